"""Write a probe as files that need nothing of ours, and look whether they say what the table says.

Shapes: N images, B batch, C classes.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import shlex
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from sweep.artefact.found import Found
from sweep.base.errors import UserError
from sweep.base.provenance import provenance
from sweep.cell import KeptProbe, embed_curve, kept_probe, layers_of_backbone, library_of, probe_images, refit, workshop
from sweep.data import Images, Selection, dataset_options
from sweep.models import ProbedLayer, needed_state
from sweep.study import Backbone
from sweep.train import ALONE, Weights, obtain

LOADER = Path(__file__).with_name("load_probe.py")
_GREYS = {"white": 255, "grey": 128, "black": 0}
_NETWORK = "network.pt2"
_BATCH = 16
_MAY_DIFFER = 0.01  # share of test images: another processor rounds differently
_LOGITS_OFF = 0.05  # of ONNX


def export(found: Found, folder: Path, *, onnx: bool = True) -> str:
    """Write the files; returns what was written, in words.

    Raises
    ------
    UserError
        If the folder holds something else, the weights cannot be had, or the files do not say what the table says.
    """
    if folder.exists() and (not folder.is_dir() or any(each.name not in _OURS for each in folder.iterdir())):
        raise UserError(f"--to {folder}: holds something else: name a new directory")
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=".tmp-") as place:
        made = Path(place) / folder.name
        made.mkdir()
        said = _made(found, made, onnx=onnx)
        shutil.rmtree(made / "__pycache__", ignore_errors=True)
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)
    names = ", ".join(sorted(each.name for each in folder.iterdir()))
    return "\n".join(
        [*said, f"written to {folder}: {names}", f"use: python {shlex.quote(str(folder / LOADER.name))} IMAGE …"]
    )


def _made(found: Found, folder: Path, *, onnx: bool) -> list[str]:
    """Make the files, and look at them; what there is to say."""
    backbone = found.planned.curve.backbone
    weights = obtain(backbone, workshop(found.task, found.store, found.device, ALONE), found.planned.donor)
    images = probe_images(library_of(found.task), found.planned.curve)
    kept, how = kept_probe(found.store, found.planned.key, found.row["layer"]), "its weights were kept"
    if kept is None:
        embedded = embed_curve(found.task, found.planned, weights, images, found.device)
        kept = refit(found.task, found.planned, images, embedded, found.row, found.device)
        how = "fitted again by its seed"
    layer = layers_of_backbone(backbone)[found.row["layer"] - 1]
    _write(found, folder, layer, weights, kept)
    shutil.copyfile(LOADER, folder / LOADER.name)
    _compare_pixels(_loaded(folder), found, images)
    agree, total = _agreement(folder, images, found.row)
    about = f"{found.name}, layer {found.row['layer']} ({layer.label}), on {found.planned.curve.dataset}: {how}"
    agreed = f"right and wrong as in the table on {agree:,} of {total:,} test images"
    if total - agree > max(1, _MAY_DIFFER * total):
        raise UserError(f"{about}; {agreed}: nothing is written, the files are not to be trusted")
    return [about, agreed, *([_onnx(folder, backbone.resolution)] if onnx else [])]


_OURS = {"probe.json", "probe.safetensors", "probe.onnx", "probe.onnx.data", _NETWORK, LOADER.name, "__pycache__"}


def _write(found: Found, folder: Path, layer: ProbedLayer, weights: Weights, kept: KeptProbe) -> None:
    backbone, model = found.planned.curve.backbone, weights.model.eval().requires_grad_(False).cpu()
    side = backbone.resolution
    images = torch.zeros(2, 3, side, side)
    linear = {name.rpartition("_")[0]: tensor.cpu() for name, tensor in _tensors(kept).items()}
    tensors = {f"head.{name}": tensor for name, tensor in linear.items()}
    arguments = _timm_arguments(backbone, model)
    if arguments is None:
        _save_program(model, layer, images, folder / _NETWORK)
    else:
        tensors |= {f"network.{name}": value for name, value in needed_state(model, layer, images).items()}
    about = _about(found, layer, weights, kept)
    about |= {"network": _NETWORK if arguments is None else "timm", "arguments": arguments}
    safetensors.torch.save_file({name: value.contiguous().clone() for name, value in tensors.items()},
                                folder / "probe.safetensors")  # fmt: skip
    (folder / "probe.json").write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")


def _tensors(kept: KeptProbe) -> dict[str, Tensor]:
    return {name: getattr(kept.linear, name) for name in ("mean_D", "scale_D", "weight_DC", "bias_C")}


def _about(found: Found, layer: ProbedLayer, weights: Weights, kept: KeptProbe) -> dict[str, Any]:
    """What the loader needs to know, then what a person may want to know."""
    backbone, row = found.planned.curve.backbone, found.row
    view = backbone.view
    background = dataset_options(found.config, found.planned.curve.dataset).background
    needed = {
        "architecture": backbone.architecture,
        "layer": layer.name,
        "input": layer.input,
        "norm": layer.norm,
        "tensor": layer.layout.tensor,
        "axes": layer.layout.axes,
        "prefix_tokens": layer.layout.prefix_tokens,
        "pooling": layer.pooling,
        "half": kept.half,
        "labels": _labels(found),
        "pixel_mean": list(weights.mean),
        "pixel_std": list(weights.std),
        "resize": view.side,
        "resize_mode": view.mode,
        "interpolation": view.interpolation,
        "crop": view.resolution,
        "fill": list(view.fill),
        "background": _GREYS[background],
    }
    told = {
        "model": found.name,
        "weights": str(backbone.weights) if backbone.weights else "trained in the sweep",
        "corpus": backbone.weights.trained_on.corpus if backbone.weights and backbone.weights.trained_on else None,
        "dataset": found.planned.curve.dataset,
        "dataset_fingerprint": row["dataset_fingerprint"],
        "layer_number": row["layer"],
        "layer_pooling": row["layer_pooling"],
        "probe_solver": row["probe_solver"],
        "top1": row["top1"],
        "n_test": row["n_test"],
        "curve_key": found.planned.key,
    }
    return needed | {"about": told | dict(provenance())}


def _selection(found: Found) -> Selection:
    """The probe's images, as the sweep chose them."""
    curve, library = found.planned.curve, library_of(found.task)
    own = {"classes": curve.backbone.id_classes, "images_per_class": curve.backbone.images_per_class}
    return library.select(curve.dataset, **(own if curve.is_id else {}))


def _labels(found: Found) -> list[str]:
    """Names of the probe's classes."""
    chosen = _selection(found)
    return [chosen.dataset.class_names[number] for number in chosen.classes.tolist()]


def _timm_arguments(backbone: Backbone, model: nn.Module) -> dict[str, Any] | None:
    """What ``timm.create_model`` builds this very network with; None if timm has no such network."""
    if backbone.architecture not in timm.list_models() or backbone.width != 1.0:
        return None
    fixed = timm.get_pretrained_cfg_value(backbone.architecture, "fixed_input_size")
    arguments: dict[str, Any] = {"num_classes": backbone.head} | ({"img_size": backbone.resolution} if fixed else {})
    theirs = timm.create_model(backbone.architecture, **arguments)
    shapes = [{name: value.shape for name, value in each.state_dict().items()} for each in (theirs, model)]
    return arguments if type(theirs) is type(model) and shapes[0] == shapes[1] else None


class _Whole(nn.Module):
    """All of a network, of which only the embedding is given: what it does not need is dropped after the export."""

    def __init__(self, network: nn.Module, layer: ProbedLayer) -> None:
        super().__init__()
        self.network, self.layer = network, layer

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) standardised images → (B, D)."""
        modules, kept = dict(self.network.named_modules()), list[Tensor]()

        def reached(_module: nn.Module, inputs: object, named: object, output: object) -> None:
            kept.append(self.layer.embed([inputs, named] if self.layer.input else output, modules))

        handle = modules[self.layer.name].register_forward_hook(reached, with_kwargs=True)
        try:
            self.network(images)
        finally:
            handle.remove()
        return kept[0]


def _save_program(model: nn.Module, layer: ProbedLayer, images: Tensor, file: Path) -> None:
    """A network that timm has not, as a program of torch.export: no source is needed to run it."""
    needed = needed_state(model, layer, images)
    batch = {0: torch.export.Dim("batch")}
    try:
        with torch.no_grad(), _quiet():
            program = torch.export.export(_Whole(model, layer), (images,), dynamic_shapes=(batch,), strict=False)
            program.graph_module.graph.eliminate_dead_code()
            for name, value in program.state_dict.items():  # no operation reads them any more: a number stands for all
                if name.removeprefix("network.") not in needed:
                    empty = value.detach().new_zeros(()).expand_as(value)
                    program.state_dict[name] = (
                        nn.Parameter(empty, requires_grad=False) if isinstance(value, nn.Parameter) else empty
                    )
            torch.export.save(program, file)
    except Exception as error:  # of many types, from code of others
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"timm does not build this network, and torch.export cannot write it ({type(error).__name__}: {reason})"
        ) from error


def _loaded(folder: Path) -> Any:
    """The loader that lies in the folder, as its user would import it."""
    spec = importlib.util.spec_from_file_location("load_probe", folder / LOADER.name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Probe(folder)


def _compare_pixels(probe: Any, found: Found, images: Images) -> None:
    """UserError if the loader shows some test images otherwise than they were shown to the network."""
    chosen = _selection(found)
    read = dict(chosen.dataset.test.read_many(chosen.test_N[:_BATCH].tolist()))
    whole = [read[n] for n in chosen.test_N[:_BATCH].tolist() if not isinstance(read[n], Exception)]
    view = found.planned.curve.backbone.view
    for image, shown_HWC in zip(whole, images.test_NHWC, strict=False):
        if not np.array_equal((probe.prepared(image).permute(1, 2, 0) * 255).round().byte().numpy(), shown_HWC):
            raise UserError(f"{found.name}: the loader shows images otherwise than the sweep did ({view}): "
                            "nothing is written")  # fmt: skip


def _agreement(folder: Path, images: Images, row: Mapping[str, Any]) -> tuple[int, int]:
    """On how many test images the files are right or wrong as the table is, and how many there are."""
    probe, total = _loaded(folder), len(images.test_labels_N)
    right_N = np.unpackbits(np.frombuffer(row["correct"], dtype=np.uint8))[:total].astype(bool)
    predicted = []
    with torch.inference_mode():
        for start in range(0, total, _BATCH):
            pixels = torch.from_numpy(np.array(images.test_NHWC[start : start + _BATCH]))
            predicted.append(probe(pixels.permute(0, 3, 1, 2).float() / 255).argmax(1).numpy())
    return int(((np.concatenate(predicted) == images.test_labels_N) == right_N).sum()), total


def _onnx(folder: Path, side: int) -> str:
    """Write ``probe.onnx`` where torch can; in words what came of it."""
    file, images = folder / "probe.onnx", torch.rand(2, 3, side, side)
    for old in (file, folder / "probe.onnx.data"):
        old.unlink(missing_ok=True)
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        return f"no probe.onnx: torch needs {error.name} for it (pip install 'tunnel-sweep[onnx]')"
    probe = _loaded(folder)
    probe.stops = False
    try:
        with torch.no_grad(), _quiet():
            torch.onnx.export(
                probe,
                (images,),
                str(file),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        off = _difference(probe, file, side)
    except Exception as error:  # of many types; the other files do without
        file.unlink(missing_ok=True)
        lines = [line for line in str(error).strip().splitlines() if line.strip()] or [""]
        return f"no probe.onnx: torch does not export this network ({type(error).__name__}: {lines[0][:200]})"
    if off > _LOGITS_OFF:
        file.unlink()
        return f"no probe.onnx: its logits were {off:.2g} from these"
    return f"probe.onnx: images (B, 3, {side}, {side}) in [0, 1] → logits, at most {off:.1g} from these on noise"


def _difference(probe: nn.Module, file: Path, side: int) -> float:
    """Largest difference of logits on noise, in another number of images than the export saw."""
    import onnxruntime

    images = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    (theirs,) = onnxruntime.InferenceSession(str(file)).run(None, {"images": images.numpy()})
    with torch.inference_mode():
        return float(np.abs(probe(images).numpy() - theirs).max())


@contextmanager
def _quiet() -> Iterator[None]:
    """What exporters warn of is theirs; whether the result is right is looked at."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
