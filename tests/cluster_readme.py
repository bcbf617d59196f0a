"""The commands of cluster/README.md, for the tests that check or run them."""

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster"
README = (CLUSTER / "README.md").read_text(encoding="utf-8")
# a shell with the environment's commands first, as after `source .venv/bin/activate`
PATH = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}


def blocks(text):
    """The fenced shell blocks of a Markdown text."""
    return re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def lines(section):
    """The shell commands of a section, continuation lines joined."""
    text = README.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.sub(r"\\\n\s*", "", "".join(blocks(text))).splitlines()


def one(section, start):
    """The one command of a section that starts so."""
    (found,) = [line for line in lines(section) if line.startswith(start)]
    return found
