"""Results on standard output, all else on standard error; streams that take nothing, and readers that have gone."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.streams import Steady

ROOT = Path(__file__).resolve().parents[2]
LIST = f"{sys.executable} {ROOT / 'analysis' / 'against.py'} --list"


def bash(command, cwd=ROOT):
    return subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("command", "code", "out"),
    [
        (f"{LIST} >/dev/full", 0, ""),
        (f"{LIST} | true; echo ${{PIPESTATUS[0]}}", 0, "141\n"),
        (f"{sys.executable} {ROOT / 'analysis' / 'browse.py'} --results 'n\u00f6 such\u2026' 2>&-", 2, ""),
        (
            f"PYTHONIOENCODING=ascii {sys.executable} -m analysis.sql 'no\u2026' -c 'FROM probes' 2>/dev/full",
            2,
            "",
        ),
    ],
)
def test_streams_change_no_exit_code(command, code, out):
    done = bash(command)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, "")


def test_a_mistake_is_no_result_and_a_working_directory_that_is_gone_is_said(tmp_path):
    (tmp_path / "gone").mkdir()
    done = bash(f"rmdir ../gone; {LIST}", cwd=tmp_path / "gone")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("the working directory has been deleted: cd to one that is there, and run again\n")


def test_control_characters_of_names_are_shown():
    shown = io.StringIO()
    print("half \x1b[2J done\r", file=Steady(shown, breaks=True))
    assert shown.getvalue() == "half \\x1b[2J done\r\n"
