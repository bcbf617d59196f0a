"""The README's pictures of the browsing page: `python -m tests.screenshots results/demo` after `make demo`.

They go to ``docs/figures``: the layers of the backbone that loses most beside its match of the other architecture, and
the table of backbones, dark.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from analysis import load
from tests.browser import chromium, settled, visit

FIGURES = Path(__file__).resolve().parents[1] / "docs" / "figures"
EQUAL = ["id_classes", "images_per_class", "augmentation", "seed"]


def pair(results: str) -> list[str]:
    """The backbone that keeps least, and the one that differs from it in its architecture."""
    table = load.backbones(results).sort_values("retained")
    first = table.iloc[0]
    known = [name for name in EQUAL if name in table]
    match = table[(table[known] == first[known]).all(axis=1) & (table["architecture"] != first["architecture"])]
    return [first["backbone"], *match["backbone"].head(1)]


def shoot(page: Any, name: str) -> None:
    """Write what is seen of a page, in few colours so that the file stays small."""
    page.wait_for_timeout(300)
    page.evaluate("scrollTo(0, 0)")
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(128)
    picture.save(FIGURES / f"{name}.png", optimize=True)
    print(FIGURES / f"{name}.png")


def main(results: str) -> None:
    """Take both pictures of a sweep's page."""
    file = Path(results).absolute() / "report" / "browse.html"
    layers = f'#tab="layers"&x="layer"&sel={json.dumps(pair(results))}'
    with chromium() as browser:
        for name, hash, scheme, height in (
            ("browse-layers", layers, "light", 940),
            ("browse-backbones", "", "dark", 900),
        ):
            page, _ = visit(browser, file, hash, viewport={"width": 1440, "height": height}, color_scheme=scheme)
            settled(page)
            shoot(page, name)


if __name__ == "__main__":
    main(*sys.argv[1:])
