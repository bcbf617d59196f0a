"""Closed, full and poor streams, no working directory, early signals: words, and the exit code of the work."""

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweep.base.line import Line
from sweep.base.streams import Steady, printable

ROOT = Path(__file__).resolve().parents[3]
COMMAND = f"{sys.executable} {ROOT / 'sweep' / 'run.py'}"
WORK = f"{COMMAND} --config {ROOT / 'nö such.yaml'}"  # ends at once, with 2


def bash(command, cwd=ROOT, **options):
    return subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, text=True, **options)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (f"{WORK} 2>&-", 2),
        (f"{WORK} >&- 2>/dev/full", 2),
        (f"{COMMAND} --layers resnet18 >/dev/full", 0),
        (f"{COMMAND} --layers resnet18 >&-", 0),
        (f"{sys.executable} -m sweep.table columns >/dev/full", 0),
    ],
)
def test_streams_that_take_nothing_change_no_exit_code(command, code):
    done = bash(command)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_a_reader_that_has_gone_ends_every_command_alike():
    done = bash(f"{sys.executable} -m sweep.table columns | true; echo ${{PIPESTATUS[0]}}")
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_characters_that_a_stream_lacks_are_written_as_numbers():
    done = bash(f"PYTHONIOENCODING=ascii {WORK.replace('such', 'such…')}")
    assert done.returncode == 2
    assert "u2026" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_working_directory_that_is_gone_is_said(tmp_path):
    (tmp_path / "gone").mkdir()
    done = bash(f"rmdir ../gone; {WORK}", cwd=tmp_path / "gone")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("the working directory has been deleted: cd to one that is there, and run again\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_anything_is_started_is_an_interruption(tmp_path, number):
    """While a plug-in is imported, which takes long here."""
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\npathlib.Path(__file__).with_name('here').touch()\ntime.sleep(60)"
    )
    config = tmp_path / "c.yaml"
    config.write_text("name: t\nimports: [slow]\ngrid: [{architecture: vggm11, id_dataset: fractals}]\n")
    process = subprocess.Popen([*COMMAND.split(), "--config", config], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 150
    while not (tmp_path / "here").exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=150)
    assert (process.returncode, said) == (130, "interrupted; what is finished is kept\n")


def test_control_characters_of_names_are_shown_and_ours_obeyed():
    assert printable("a\x1b[31mb\tc\n\x07") == "a\\x1b[31mb\tc\n\\x07"
    shown = io.StringIO()
    shown.isatty = lambda: True
    steady = Steady(shown, breaks=True)
    Line(steady).show("half \x1b[2J done")
    print("\x9b2J", file=steady)
    assert shown.getvalue() == "\r\x1b[Khalf \\x1b[2J done\\x9b2J\n"
