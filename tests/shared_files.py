"""Files that stand beside the project and never in it: $TUNNEL_SWEEP_SHARED, or ``shared`` beside the checkout."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("TUNNEL_SWEEP_SHARED", Path(__file__).resolve().parents[2] / "shared"))
STUDY = SHARED / "study"
needs_study = pytest.mark.skipif(not STUDY.is_dir(), reason="needs the study's lists ($TUNNEL_SWEEP_SHARED)")
