"""Write ``catalogue_more.json``: ``python -m sweep.models.catalogue_more``: facts of the networks of the large studies.

They are the architectures that the shipped configs name beside those of ``catalogue.json``, so that a plan of two
hundred weights is made in seconds. A test describes some of them anew and looks for every name of the configs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import timm

from sweep.models.describe import describe
from sweep.models.facts import MORE


def build(names: Iterable[str]) -> dict[str, Any]:
    """The file's content for some architectures."""
    return {"timm_version": timm.__version__, "described": {name: describe(name) for name in sorted(names)}}


def text(content: dict[str, Any]) -> str:
    """As it stands in the file: one model a line."""
    described = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in content["described"].items())
    return f'{{"timm_version": {json.dumps(content["timm_version"])},\n"described": {{\n{described}\n}}}}\n'


if __name__ == "__main__":
    known = json.loads(MORE.read_text(encoding="utf-8"))["described"] if MORE.exists() else {}
    made = build(sys.argv[1:] or known)
    Path(MORE).write_text(
        text({**made, "described": dict(sorted((known | made["described"]).items()))}), encoding="utf-8"
    )
