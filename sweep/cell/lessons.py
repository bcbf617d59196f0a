"""A backbone learns one task after the other: the weights after each, in the store, and what is needed to look at them.

The body is all but the classifier; each task has a classifier of its own, which later tasks leave alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from sweep.base.seeds import derive_seed
from sweep.cell.task import CellTask
from sweep.data import Images
from sweep.models import Anatomy, anatomy, build_backbone, layers_of
from sweep.study import Backbone, PlannedCourse, Task
from sweep.train import Glasses, Workshop, glasses_of, obtain_weights, train_missing

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Lesson:
    """One task of a course.

    Attributes
    ----------
    backbone : as it learns the task.
    shop : where it does; its store has the weights afterwards.
    network : with a classifier for this task, to put weights into.
    before, after : classifiers: as training begins with, and as it leaves it.
    """

    task: Task
    backbone: Backbone
    shop: Workshop
    images: Images
    network: nn.Module
    before: State
    after: State


@dataclass(frozen=True)
class Learned:
    """A course whose tasks are learned.

    Attributes
    ----------
    bodies : everything but classifiers, before the first task and after each.
    about : whose the weights are, layer by layer.
    """

    lessons: tuple[Lesson, ...]
    bodies: tuple[State, ...]
    about: Anatomy
    glasses: Glasses

    def network(self, lesson: Lesson, body: State, *, trained: bool = True) -> nn.Module:
        """The network of a task with these weights; without ``trained`` with the classifier that training begins with.

        There is one network of each task: the next call changes it.
        """
        lesson.network.load_state_dict({**body, **(lesson.after if trained else lesson.before)})
        return lesson.network

    def body(self, extractor: int, tunnel: int, layer: int) -> State:
        """Layers up to and with ``layer`` as they are after so many tasks, those behind it as after others."""
        behind = range(layer + 1, len(self.about.layers) + 1)
        return self.about.spliced(self.bodies[extractor], self.bodies[tunnel], behind)


def learn(task: CellTask, planned: PlannedCourse, first: Workshop) -> Learned:
    """Learn every task of a course that the store has no weights of.

    Parameters
    ----------
    first : of the first task, which is the backbone's own.
    """
    backbone, tasks = task.cell.backbone, planned.course.tasks
    untrained = _built(backbone, planned.runs[0])
    layers = layers_of(
        backbone.architecture,
        resolution=backbone.resolution,
        width=backbone.width,
        pattern=backbone.layers_pattern,
    )
    about = anatomy(untrained, backbone.architecture, layers, resolution=backbone.resolution)
    lessons, bodies = list[Lesson](), [_parts(untrained.state_dict(), about)[0]]
    for each, run in zip(tasks, planned.runs, strict=True):
        own = replace(backbone, id_dataset=each.dataset, id_classes=each.classes)
        shop = replace(first, run=run, stages={}, library=replace(first.library, skip=each.skip))
        if lessons:
            shop = replace(
                shop, start=_going_on(bodies[-1]), images={"task": each.label, "after": lessons[-1].shop.run}
            )
        images = shop.library.images(
            own.id_dataset, own.view, classes=own.id_classes, images_per_class=own.images_per_class
        )
        own = replace(own, id_classes=images.classes)
        train_missing([own], shop)
        network = _built(own, run)
        before = _parts(network.state_dict(), about)[1]
        body, after = _parts(obtain_weights(own, shop).model.state_dict(), about)
        lessons.append(Lesson(each, own, shop, images, network, before, after))
        bodies.append(body)
    return Learned(tuple(lessons), tuple(bodies), about, glasses_of(backbone, first.device))


def _built(backbone: Backbone, run: str) -> nn.Module:
    """The untrained network that a training run begins with, but for what it takes from an earlier one."""
    return build_backbone(
        backbone.architecture,
        classes=backbone.head,
        resolution=backbone.resolution,
        width=backbone.width,
        seed=derive_seed("init", run),
    )


def _parts(state: State, about: Anatomy) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A network's body and its classifier."""
    body = {name: value.clone() for name, value in state.items() if about.owner[name] <= len(about.layers)}
    return body, {name: value.clone() for name, value in state.items() if name not in body}


def _going_on(body: State) -> Callable[[nn.Module], nn.Module]:
    """Puts a body under a network's own classifier."""

    def started(network: nn.Module) -> nn.Module:
        network.load_state_dict({**network.state_dict(), **body})
        return network

    return started
