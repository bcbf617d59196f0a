"""From names of a config to numbers of every layer: what each instrument and each reading measures.

``docs/instruments.md`` defines the numbers; the functions behind them are in ``embed`` and ``probes``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields, replace

import numpy as np
import torch
from torch import Tensor

from sweep import table
from sweep.base.seeds import derive_seed
from sweep.cell.bench import Bench, Row
from sweep.cell.probing import probe_data, probe_seed
from sweep.data import image_complexity
from sweep.embed import Collapse, Spectrum, collapse, likeness, spectrum
from sweep.probes import (
    ProbeData,
    Right,
    auroc,
    budget_bytes,
    centre,
    drawn_images,
    few_shot,
    fit_probes,
    fpr95,
    nearest_means,
    nearest_neighbours,
    shares_right,
)

SHOTS, DRAWS = (1, 5, 10), 5
_BITS = (("correct", False), ("heldout_correct", True))
Said = Callable[[Tensor, Tensor, Tensor], Tensor]  # training embeddings, their labels, others → their classes


def _spectrum(bench: Bench) -> Iterator[Row]:
    names = [field.name for field in fields(Spectrum)]
    for at, emb_ND in enumerate(bench.embedded.train):
        found = spectrum(emb_ND, classes=bench.images.classes, device=bench.device)
        values = asdict(found) if found else dict.fromkeys(names)
        yield from (bench.row(name, at, value) for name, value in values.items())


def _collapse(bench: Bench) -> Iterator[Row]:
    names = [field.name for field in fields(Collapse)]
    labels_N = bench.train_labels_N
    for at, finite in bench.layers():
        probe = bench.linear(at) if finite else None
        weight_DC = bias_C = None
        if probe is not None:
            weight_DC = probe.scale_D[:, None] * probe.weight_DC.double()
            bias_C = probe.bias_C.double() - probe.mean_D @ weight_DC
        found = collapse(
            bench.embedded.train[at], labels_N, classes=bench.images.classes, weight_DC=weight_DC, bias_C=bias_C
        )
        values = asdict(found) if found else dict.fromkeys(names)
        yield from (bench.row(name, at, value) for name, value in values.items())


def _cka(bench: Bench) -> Iterator[Row]:
    seed = derive_seed("cka", bench.images.fingerprint)
    for pair in likeness(bench.embedded.train, seed=seed, device=bench.device):
        for name in ("cka", "cka_debiased"):
            yield bench.row(name, pair.one, getattr(pair, name), other_layer=pair.other + 1)


def _ood_detection(bench: Bench) -> Iterator[Row]:
    reference = bench.reference
    assert reference is not None
    for at, finite in bench.layers():
        known = finite and reference.is_finite(at)
        emb_MD = bench.embedded.test[at]
        for name, score in (("energy", reference.by_energy), ("knn", reference.by_neighbours)):
            scores = score(at, emb_MD) if known else None
            yield bench.row(f"{name}_auroc", at, auroc(*scores) if scores else None)
            yield bench.row(f"{name}_fpr95", at, fpr95(*scores) if scores else None)


def _image_complexity(bench: Bench) -> Iterator[Row]:
    """Of the images, not of a layer."""
    seed = derive_seed("complexity", bench.images.fingerprint)
    yield {"reading": "image_complexity", "value": image_complexity(bench.images.train_NHWC, seed=seed)}


def _accuracies(
    bench: Bench, reading: str, at: int, test: Right | None, heldout: Right | None, **more: int
) -> Iterator[Row]:
    """Rows of the accuracies that some classifier of one layer has; None: there are none."""
    for name, value, held in _pairs(test, heldout):
        yield bench.row(f"{reading}_{name}", at, value, heldout_value=held, **more)


def _pairs(test: Right | None, heldout: Right | None) -> list[tuple[str, float | None, float | None]]:
    """Each kind of accuracy on test and on held-out images, null where there are none."""
    return [
        ("top1", test.top1 if test else None, heldout.top1 if heldout else None),
        ("per_class", test.per_class if test else None, heldout.per_class if heldout else None),
    ]


def _by(reading: str, said: Said, bench: Bench) -> Iterator[Row]:
    """A reading that knows no choice: of test images by all training images, of held-out ones by the others."""
    labels_N, test_labels_N, held_N = bench.train_labels_N, bench.test_labels_N, bench.heldout_N
    classes = bench.images.classes
    for at, finite in bench.layers():
        if not finite:
            yield from _accuracies(bench, reading, at, None, None)
            continue
        train_ND = bench.embedded.train[at].to(bench.device)
        right_M = said(train_ND, labels_N, bench.embedded.test[at]) == test_labels_N
        right_H = said(train_ND[~held_N], labels_N[~held_N], train_ND[held_N]) == labels_N[held_N]
        test = shares_right(right_M, test_labels_N, classes=classes)
        yield from _accuracies(bench, reading, at, test, shares_right(right_H, labels_N[held_N], classes=classes))


def _knn(bench: Bench) -> Iterator[Row]:
    classes = bench.images.classes
    return _by("knn", lambda *about: nearest_neighbours(*about, classes=classes), bench)


def _nearest_mean(bench: Bench) -> Iterator[Row]:
    classes = bench.images.classes
    return _by("nearest_mean", lambda *about: nearest_means(*about, classes=classes), bench)


def _few_shot(bench: Bench) -> Iterator[Row]:
    """Draws do not depend on the backbone, so that backbones and layers are compared on the same images."""
    labels_N, fit_N = torch.from_numpy(bench.images.train_labels_N), ~torch.from_numpy(bench.images.heldout_N)
    layers = list(bench.layers())
    means = {at: centre(bench.embedded.train[at][fit_N], bench.device) for at, finite in layers if finite}
    for shots in SHOTS:
        for draw in range(DRAWS):
            seed = derive_seed("few shot", bench.images.fingerprint, shots, draw)
            drawn_K = drawn_images(labels_N, fit_N, shots, seed)
            if drawn_K is None:  # a class has not so many
                continue
            for at, finite in layers:
                test, heldout = _by_few(bench, at, drawn_K, means[at]) if finite else (None, None)
                yield from _accuracies(bench, "few_shot", at, test, heldout, shots=shots, draw=draw)


def _by_few(bench: Bench, at: int, drawn_K: Tensor, centre_D: Tensor) -> tuple[Right | None, Right | None]:
    train_ND, classes = bench.embedded.train[at], bench.images.classes
    labels_N, test_labels_N, held_N = bench.train_labels_N, bench.test_labels_N, bench.heldout_N
    few_KD = train_ND[drawn_K.to(train_ND.device)]
    probe = few_shot(few_KD, labels_N[drawn_K.to(bench.device)], centre_D, classes=classes)
    if probe is None:
        return None, None
    held_labels_H = labels_N[held_N]
    right_M = probe.read(bench.embedded.test[at]) == test_labels_N
    right_H = probe.read(train_ND[held_N.to(train_ND.device)]) == held_labels_H
    return (
        shares_right(right_M, test_labels_N, classes=classes),
        shares_right(right_H, held_labels_H, classes=classes),
    )


def _per_class(bench: Bench) -> Iterator[Row]:
    """Of the linear probe itself, from what its fragment has stored."""
    for row in table.read_fragments(bench.store, [bench.planned.key]).to_pylist():
        if row["chosen"] is not False:  # null in fragments that knew one probe of a layer
            test, heldout = (_from_bits(bench, row[name], held) for name, held in _BITS)
            _, (_, value, held) = _pairs(test, heldout)
            yield bench.row("linear_per_class", row["layer"] - 1, value, heldout_value=held)


def _from_bits(bench: Bench, bits: bytes | None, heldout: bool) -> Right | None:
    """Accuracies from which test or held-out images were right."""
    if bits is None:
        return None
    images = bench.images
    labels = images.train_labels_N[images.heldout_N] if heldout else images.test_labels_N
    right = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=len(labels)).astype(bool)
    return shares_right(torch.from_numpy(right), torch.from_numpy(labels), classes=images.classes)


def _concatenation(bench: Bench) -> Iterator[Row]:
    """The curve's own probe on the last layer, on it and the middle one, and on all layers side by side."""
    curve, data = bench.planned.curve, probe_data(bench.images, bench.embedded, bench.device)
    last = len(data.train) - 1
    stacks = {"last": [last], "middle + last": [last // 2, last], "all": list(range(last + 1))}
    budget = budget_bytes(bench.device, bench.task.memory, tasks=bench.task.sharing(bench.device.type))
    for name, layers in stacks.items():
        together = _together(data, name, sorted(set(layers)))
        results = fit_probes(together, curve.probes, seed=probe_seed(bench.images, curve), budget=budget)
        result = next(each for each in results if each.chosen)
        bits = [None if result.problem else getattr(result, of) for of, _ in _BITS]
        test, heldout = (_from_bits(bench, each, held) for each, (_, held) in zip(bits, _BITS, strict=True))
        for of, value, held in _pairs(test, heldout):
            yield {"reading": f"concatenation_{of}", "layer_name": name, "value": value, "heldout_value": held}


def _together(data: ProbeData, name: str, layers: list[int]) -> ProbeData:
    """Some layers' embeddings side by side, as if they were one layer's."""
    train, test = (torch.cat([part[at] for at in layers], dim=1) for part in (data.train, data.test))
    names = [data.layer_names[layers[0]] if len(layers) == 1 else name]  # of which initial weights are drawn
    return replace(data, train=[train], test=[test], layer_names=names)


INSTRUMENTS: Mapping[str, Callable[[Bench], Iterator[Row]]] = {
    "spectrum": _spectrum,
    "collapse": _collapse,
    "cka": _cka,
    "ood_detection": _ood_detection,
    "image_complexity": _image_complexity,
    "knn": _knn,
    "nearest_mean": _nearest_mean,
    "few_shot": _few_shot,
    "per_class": _per_class,
    "concatenation": _concatenation,
}
