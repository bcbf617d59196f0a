"""The census of timm, made anew: a fixed third in each run, the smaller networks of every model file.

All of it with ``pytest tests/sweep/models/test_census.py --all``, or ``python -m sweep.models census --check``.
"""

import pytest
import timm
import torch

from sweep.models import __main__ as command
from sweep.models import census

KNOWN = census.read()
VERSION = census.version()
FUSED = "mobilenetv5"  # the last of its intermediates is a fusion of several: the output of no block
same_timm = pytest.mark.skipif(timm.__version__ != VERSION, reason=f"the census is of timm {VERSION}")


@same_timm
@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_networks_show_what_the_census_says(request):
    third = census.third(KNOWN)
    assert 3 * len(third) >= len(KNOWN)
    assert all(set(third) & set(timm.list_models(module=file)) for file in timm.list_modules())
    names = list(KNOWN) if request.config.getoption("--all") else third
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # it is Python's time; other tests run beside it
    try:
        assert census.differences(KNOWN, names) == []
    finally:
        torch.set_num_threads(threads)


@same_timm
def test_every_architecture_is_right_or_refused_with_a_reason():
    assert list(KNOWN) == sorted(timm.list_models())
    refused = {name: entry["refused"] for name, entry in KNOWN.items() if "refused" in entry}
    assert all("layer " in reason and "cannot be told apart" in reason for reason in refused.values())
    right = [name for name, entry in KNOWN.items() if "layers" in entry and "wrong" not in entry]
    assert len(right) + len(refused) == len(KNOWN)
    assert len(right) >= 0.97 * len(KNOWN)


@pytest.mark.parametrize(("what", "least"), [("timm", 1200), ("equal", 150)])
def test_timms_own_intermediates_are_outputs_of_our_points(what, least):
    """As shapes for all, number for number where they were computed."""
    compared = {name: [int(n) for n in entry[what].split("/")] for name, entry in KNOWN.items() if what in entry}
    assert len(compared) >= least
    by_block = {name: pair for name, pair in compared.items() if KNOWN[name].get("layers") in ("blocks", "stages")}
    assert [name for name, (found, of) in by_block.items() if found != of and not name.startswith(FUSED)] == []
    found, of = (sum(numbers) for numbers in zip(*compared.values(), strict=True))
    assert found >= 0.99 * of  # of convolutional networks some stages put out several maps, or none by themselves


def test_an_entry_that_is_not_right_is_noticed():
    name = "resnet18"
    wrong = KNOWN[name] | {"ends": ["conv1", "fc"]}
    (said,) = census.differences({name: wrong}, [name])
    assert said.startswith("resnet18: {")
    assert census.equal("test_vit") == "6/6"


def test_the_command_counts_and_checks(tmp_path, capsys):
    file = tmp_path / "census.json"
    assert command.main(["census", "test_vit", "coat_tiny", "--file", str(file), "--equal", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("2 architectures: 1 right, 0 contradicted, 1 refused")
    assert "refused: coat_tiny: layer parallel_blocks.0" in said
    assert census.read(file)["test_vit"]["equal"] == "6/6"
    assert command.main(["census", "test_vit", "--file", str(file), "--check"]) == 0
    file.write_text(file.read_text().replace("BTC 64", "BTC 46"))
    assert command.main(["census", "test_vit", "--file", str(file), "--check"]) == 1


def test_a_name_or_part_that_is_none_is_answered_in_words(capsys):
    assert command.main(["census", "resnt50"]) == 2
    assert "timm has no architecture of that name; the closest are resnet50" in capsys.readouterr().err
    assert command.main(["census", "--part", "1"]) == 2
    assert command.main(["weights", "no_such.*"]) == 2
    assert capsys.readouterr().out == ""
