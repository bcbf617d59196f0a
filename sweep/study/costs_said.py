"""What a study takes, in words: hours of a card, memory of a host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sweep.study.grid import Curve, Sizes

# operations a second of an H100: what training at 32 px and extraction at 224 px reach, see tests/bench/RESULTS.md
_H100 = (2.5e13, 5e13)
_BYTES = 2  # of a number, float16


def hours_said(flops: float) -> str:
    """How long so many operations take on a card whose rates were measured, in words."""
    least, most = (flops / rate / 3600 for rate in reversed(_H100))
    return (
        f"computing: {least:.2g} to {most:.2g} hours on one H100 (rates of tests/bench/RESULTS.md); reading and "
        "decoding images not counted"
    )


def embedded_bytes(widths: Sequence[int], sizes: Sizes) -> int:
    """Bytes of all layers' embeddings of a curve, training and test images."""
    return _BYTES * sum(widths) * (sizes.train + sizes.test)


def memory_said(curves: Iterable[tuple[Curve, Sequence[int], Sizes]], *, share: float) -> str:
    """The largest curve of some, each with its widths and sizes.

    Parameters
    ----------
    share : of a host's free memory that embeddings may take, ``resources.memory``.
    """
    size, largest = max(
        ((embedded_bytes(widths, sizes), curve) for curve, widths, sizes in curves), key=lambda each: each[0]
    )
    return (
        f"embeddings of a curve: {size / 1e9:.2g} GB at most ({largest.backbone.architecture} on {largest.dataset}); "
        f"where that is more than {share:.0%} of a host's free memory, shared by its tasks, they are mapped from files"
    )
