"""How fast networks go on a device, as ``--calibrate`` measured it: seconds of a backbone and of each of its curves.

Operations alone do not say which backbone takes longest: a small network reaches a tenth of what a large one does.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sweep.config import Config
from sweep.study import costs
from sweep.study.grid import Backbone, Curve


@dataclass(frozen=True)
class Rates:
    """What one device was measured to do.

    Attributes
    ----------
    device, kind : its name, and cpu or cuda.
    training : images a second, by :func:`network`.
    extraction : images a second, by :func:`probed`.
    least : seconds that fitting and describing a curve takes however few its images, by :func:`fitted`.
    products : operations a second of products of matrices, which fitting probes mostly is.
    packing : of a GPU, images a second of so many trainings at once, by :func:`network` and their number (as text: the
        rates are kept as JSON); of the networks that take longest.
    memory, card : bytes of a GPU that training takes, by :func:`network`, and that it has.
    """

    device: str
    kind: str
    training: Mapping[str, float]
    extraction: Mapping[str, float]
    least: Mapping[str, float]
    products: float
    packing: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    memory: Mapping[str, float] = field(default_factory=dict)
    card: float = 0.0

    def know(self, backbone: Backbone, curves: Iterable[Curve]) -> bool:
        """Whether a backbone and these of its curves were measured."""
        trained = backbone.recipe is None or network(backbone) in self.training
        return trained and all(
            probed(curve.backbone) in self.extraction and fitted(curve) in self.least for curve in curves
        )

    def training_seconds(self, config: Config, backbone: Backbone) -> float:
        """Of ID training by one process, without augmentation; 0 for downloaded weights."""
        if backbone.recipe is None:
            return 0.0
        return (costs.id_images(config, backbone) or 0) * backbone.recipe.epochs / self.training[network(backbone)]

    def extraction_seconds(self, config: Config, curve: Curve) -> float:
        """Of embedding a curve's images."""
        counts = costs.curve_sizes(config, curve)
        return (counts.train + counts.test) / self.extraction[probed(curve.backbone)]

    def probe_seconds(self, config: Config, curve: Curve) -> float:
        """Of fitting a curve's probes and describing its layers."""
        counts, widths = costs.curve_sizes(config, curve), costs.layer_widths(curve.backbone)
        operations = curve.probes_per_layer * costs.probe_flops(curve, widths, counts)
        return self.least[fitted(curve)] + operations / self.products

    def beside(self, earlier: Rates | None) -> Rates:
        """With what was measured before of other networks, on such a device: parts of a study share a store."""
        if earlier is None or (earlier.device, earlier.kind) != (self.device, self.kind):
            return self
        return replace(
            self,
            training={**earlier.training, **self.training},
            extraction={**earlier.extraction, **self.extraction},
            least={**earlier.least, **self.least},
            packing={**earlier.packing, **self.packing},
            memory={**earlier.memory, **self.memory},
        )

    def said(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def network(backbone: Backbone) -> str:
    """What decides how fast a network trains."""
    return f"{backbone.architecture} × {backbone.width:g}, {backbone.resolution} px"


def probed(backbone: Backbone) -> str:
    """What decides how fast its layers are embedded."""
    return f"{network(backbone)}, {backbone.layers_pattern}, {backbone.pooling}, {backbone.norm}"


def fitted(curve: Curve) -> str:
    """What decides how long the smallest fit takes."""
    said = repr((costs.layer_widths(curve.backbone), curve.probes, curve.probe_seeds))
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def ends_after(jobs: Sequence[tuple[float, int]], places: int) -> float:
    """Seconds until all jobs have ended, the driver's way: those of several processes first, each the longest first.

    Parameters
    ----------
    jobs : of each its seconds in one process, and how many processes share it, at most ``places``; they lose nothing.
    """
    free = [0.0] * places
    for seconds, processes in sorted(jobs, key=lambda job: (job[1] == 1, -job[0])):
        taken = [heapq.heappop(free) for _ in range(processes)]
        for _ in taken:
            heapq.heappush(free, max(taken) + seconds / processes)
    return max(free)
