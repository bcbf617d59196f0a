"""Write ``timm_tags.json``: ``python -m sweep.models.tags_build``. A test holds the file against this."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import timm

from sweep.models.timm_tags import FILE


def build() -> dict[str, Any]:
    """The file's content: kinds of pixels, and which of them each tag, and each architecture without a tag, expects."""
    kinds: dict[str, int] = {}
    tags: dict[str, dict[str, int]] = defaultdict(dict)
    for full in timm.list_pretrained():
        architecture, _, tag = full.partition(".")
        tags[architecture][tag] = _kind(timm.get_pretrained_cfg(full), kinds)
    own, ordered = {}, {}
    for name in timm.list_models():
        config = timm.get_pretrained_cfg(name)
        if config is not None:
            own[name] = _kind(config, kinds)
        if found := tags.get(name):
            default = config.tag if config is not None and config.tag in found else next(iter(found))
            ordered[name] = {default: found[default], **found}
    return {
        "timm_version": timm.__version__,
        "kinds": [json.loads(kind) for kind in kinds],
        "tags": ordered,
        "own": own,
    }


def _kind(config: Any, kinds: dict[str, int]) -> int:
    """Number of a kind of pixels; a new one is added."""
    said = [config.input_size[-1], config.mean, config.std, config.crop_pct, config.interpolation, config.crop_mode]
    return kinds.setdefault(json.dumps(said), len(kinds))


def text(content: dict[str, Any]) -> str:
    """As it stands in the file: a kind, an architecture a line."""
    kinds = ",\n".join(f"  {json.dumps(kind)}" for kind in content["kinds"])
    tags = ",\n".join(f"  {json.dumps(name)}: {json.dumps(found)}" for name, found in content["tags"].items())
    version, own = json.dumps(content["timm_version"]), json.dumps(content["own"])
    return f'{{"timm_version": {version},\n"kinds": [\n{kinds}\n],\n"tags": {{\n{tags}\n}},\n"own": {own}}}\n'


if __name__ == "__main__":
    FILE.write_text(text(build()), encoding="utf-8")
