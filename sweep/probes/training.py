"""Training of many probes by AdamW together; some may end before others.

Shapes: N images, D width, C classes, L layers of one width, B batch, M images of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sweep.base.graph import Graphed, side_stream
from sweep.config import Probe
from sweep.probes.bucket import AdamW, Bucket
from sweep.probes.data import ProbeData
from sweep.probes.source import Source

_STREAM_BYTES = 64 << 20  # embeddings held at once when they are streamed
_STREAMS = 4  # that buckets share on a GPU


@dataclass(frozen=True)
class Request:
    """How some layers are fitted: which recipes, with which seed, in which arithmetic.

    Attributes
    ----------
    recipes : equal but for learning rate and weight decay.
    seeds : of initial weights and batch order, one per replicate; the order is shared by all layers and recipes.
    dtype : of weights and arithmetic.
    resident : whether the embeddings are on the device; else they are streamed to it.
    """

    recipes: Sequence[Probe]
    seeds: Sequence[int]
    dtype: torch.dtype
    resident: bool = True


@dataclass(frozen=True)
class Part:
    """Probes of a group that train.

    Attributes
    ----------
    number : of the group.
    layers : places of the bucket's layers in the group.
    test : their test embeddings.
    """

    number: int
    layers: list[int]
    bucket: Bucket
    test: Source

    def of(self, layers: Sequence[int], *, apart: bool) -> Part:
        """Some of these layers; with ``apart`` their parameters are copied even if it is all of them."""
        if not apart and list(layers) == self.layers:
            return self
        places = [self.layers.index(layer) for layer in layers]
        return Part(self.number, list(layers), self.bucket.of(places), self.test.of(places))


_Step = Callable[[Sequence[Source], Tensor, Tensor], None]  # some images of the sources, and their labels


class Training:
    """One of the two fits: its training images, its probes in buckets, their optimisers.

    Attributes
    ----------
    whole : all probes: as they end, or the very ones that train where all of them end together.
    parts : those that train.
    """

    def __init__(
        self,
        data: ProbeData,
        request: Request,
        groups: Sequence[Sequence[int]],
        sources: Sequence[Source],
        tests: Sequence[Source],
        fit_N: Tensor,
        seed: int,
    ) -> None:
        self._images_N, self._labels_N = fit_N.nonzero().squeeze(1), data.train_labels_N
        self._batch_size = request.recipes[0].batch_size
        self._recipes = request.recipes
        self.whole = [
            Bucket(
                source,
                [data.layer_names[layer] for layer in group],
                request.recipes,
                fit_N,
                classes=data.classes,
                seed=seed,
                dtype=request.dtype,
            )
            for group, source in zip(groups, sources, strict=True)
        ]
        self.parts = [
            Part(number, list(range(bucket.source.layers)), bucket, test)
            for number, (bucket, test) in enumerate(zip(self.whole, tests, strict=True))
        ]
        self._optimizers = self._new_optimizers()
        self._chunk = None if request.resident else self._streamed_images()
        self._graphed: Graphed | None = None

    @property
    def buckets(self) -> list[Bucket]:
        """Of the probes that train."""
        return [part.bucket for part in self.parts]

    def _new_optimizers(self) -> list[AdamW]:
        return [AdamW(recipe, self.buckets, number) for number, recipe in enumerate(self._recipes)]

    def apart(self) -> None:
        """Let ``whole`` keep what :meth:`end` puts there, beside the probes that train."""
        self._keep([part.layers for part in self.parts])

    def end(self, ended: Mapping[int, Sequence[tuple[int, int]]]) -> None:
        """Put probes as they are now into ``whole``: by number of the group, recipe and layer of it."""
        for part in self.parts:
            for recipe, layer in ended.get(part.number, ()):
                self.whole[part.number].adopt(part.bucket, recipe, part.layers.index(layer), layer)

    def leave(self, going: Mapping[int, Sequence[int]]) -> None:
        """Go on with some layers alone; on a GPU, where each batch is captured anew, once half of them are done."""
        kept = [[layer for layer in part.layers if layer in going[part.number]] for part in self.parts]
        now, then = (sum(len(layers) for layers in of) for of in ([part.layers for part in self.parts], kept))
        if then < now and (not self._images_N.is_cuda or 2 * then <= now):
            self._keep(kept)

    def _keep(self, kept: Sequence[Sequence[int]]) -> None:
        places, before = [], 0
        for part, layers in zip(self.parts, kept, strict=True):
            places += [before + part.layers.index(layer) for layer in layers]
            before += len(part.layers)
        parts = [
            part.of(layers, apart=part.bucket is self.whole[part.number])
            for part, layers in zip(self.parts, kept, strict=True)
            if layers
        ]
        if not parts:
            return
        self.parts, old, self._graphed = parts, self._optimizers, None
        self._optimizers = self._new_optimizers()
        for optimizer, other in zip(self._optimizers, old, strict=True):
            optimizer.adopt(other, places)

    def _streamed_images(self) -> int:
        """Images of a chunk, whole batches."""
        batch_bytes = self._batch_size * sum(bucket.source.row_bytes for bucket in self.buckets)
        return self._batch_size * max(1, _STREAM_BYTES // batch_bytes)

    def train_epoch(self, order_seed: int) -> None:
        """One pass over the images of this fit in a seeded order, the last batch as small as it comes."""
        generator = torch.Generator().manual_seed(order_seed)
        order_N = torch.randperm(len(self._images_N), generator=generator).to(self._images_N.device)
        self._over(self._images_N[order_N], self.buckets, self._trained)

    def _over(self, images_N: Tensor, buckets: Sequence[Bucket], step: _Step) -> None:
        """Steps over images, a chunk of them at a time on the device where they are streamed."""
        labels_N = self._labels_N[images_N]
        if self._chunk is None:
            self._steps([bucket.source for bucket in buckets], images_N, labels_N, step)
            return
        for images_M, labels_M in zip(images_N.split(self._chunk), labels_N.split(self._chunk), strict=True):
            loaded = [bucket.source.loaded(images_M) for bucket in buckets]
            self._steps(loaded, torch.arange(len(images_M), device=images_M.device), labels_M, step)

    def _steps(self, sources: Sequence[Source], images_M: Tensor, labels_M: Tensor, step: _Step) -> None:
        """Steps over some images of the sources, in this order."""
        for images_B, labels_B in zip(images_M.split(self._batch_size), labels_M.split(self._batch_size), strict=True):
            step(sources, images_B, labels_B)

    def _trained(self, sources: Sequence[Source], images_B: Tensor, labels_B: Tensor) -> None:
        if images_B.is_cuda and self._chunk is None and len(images_B) == self._batch_size:
            self._graph(images_B, labels_B)(images_B, labels_B)
        else:
            self._step(sources, images_B, labels_B)

    def left(self) -> list[list[Tensor]]:
        """Norm of the gradient on all images of this fit, over that at weights of zero: by group and recipe, (L,)."""
        sums = [[torch.zeros_like(grad_LCD) for grad_LCD in bucket.weight_grads_LCD] for bucket in self.whole]
        n = len(self._images_N)

        def add(sources: Sequence[Source], images_B: Tensor, labels_B: Tensor) -> None:
            for bucket, source, of_recipes in zip(self.whole, sources, sums, strict=True):
                bucket.gradients(source, images_B, labels_B)
                for sum_LCD, grad_LCD in zip(of_recipes, bucket.weight_grads_LCD, strict=True):
                    sum_LCD.add_(grad_LCD, alpha=len(images_B) / n)

        self._over(self._images_N, self.whole, add)
        labels_N = self._labels_N
        return [
            [torch.linalg.vector_norm(sum_LCD, dim=(1, 2)) / bucket.slope_at_zero(labels_N) for sum_LCD in of_recipes]
            for bucket, of_recipes in zip(self.whole, sums, strict=True)
        ]

    def _step(self, sources: Sequence[Source], images_B: Tensor, labels_B: Tensor) -> None:
        for bucket, source in zip(self.buckets, sources, strict=True):
            bucket.gradients(source, images_B, labels_B)
        for optimizer in self._optimizers:
            optimizer.step()

    def _side_by_side(self, images_B: Tensor, labels_B: Tensor) -> None:
        """The step with each bucket's gradients on a stream of its own: small kernels leave most of a GPU idle."""
        here, streams = torch.cuda.current_stream(images_B.device), []
        for number, bucket in enumerate(self.buckets):
            streams.append(side_stream(images_B.device, 1 + number % _STREAMS))
            streams[-1].wait_stream(here)
            with torch.cuda.stream(streams[-1]):
                bucket.gradients(bucket.source, images_B, labels_B)
        for stream in streams:
            here.wait_stream(stream)
        for optimizer in self._optimizers:
            optimizer.step()

    def _graph(self, images_B: Tensor, labels_B: Tensor) -> Graphed:
        if self._graphed is None:
            self._graphed = Graphed(
                self._side_by_side,
                state=[tensor for optimizer in self._optimizers for tensor in optimizer.state],
                inputs=(images_B, labels_B),
            )
        return self._graphed
