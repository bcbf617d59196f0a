"""The benchmarks at tiny size: they run, count right, and compare like with like."""

import itertools
import json
import os
import subprocess
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from bench import __main__ as command
from bench import (
    attribution,
    coverage,
    decode,
    embed,
    gpu,
    gpu_stages,
    growth,
    growth_stages,
    jobs,
    machine,
    operators,
    paper,
    probes,
    real,
    report,
    scikit,
    solvers,
    solvers_figure,
    steps,
    storage,
    train,
)
from bench.loops import fit_one, loaded, sliced
from bench.shapes import Case, chosen_layers, data_flops, synthetic, widths_of
from torch.utils.flop_counter import FlopCounterMode

from sweep.study import training_flops
from sweep.study.check import read_config
from sweep.study.grid import expand
from sweep.study.resolve import sizes

CPU = torch.device("cpu")
TINY = Case("tiny", (8, 8, 12), 4, 120, 100, 2, batch_size=32, lr=1e-2)


def test_probe_case_has_its_figures_and_the_engines_agree():
    result = probes.run(quick=True, cases=[TINY])
    (case,) = result["cases"]
    assert case["name"] == "tiny"
    assert case["ratio_loop"] == pytest.approx(case["loop_seconds"] / case["seconds"])
    assert case["ratio_sliced"] == pytest.approx(case["sliced_seconds"] / case["seconds"])
    assert case["measured_layers"] == 2
    assert 0 < case["peak_fraction"] < 1
    assert case["max_abs_diff_points"] <= 1
    assert case["mean_abs_diff_points"] <= case["max_abs_diff_points"]
    assert {target["met"] for target in result["targets"]} >= {True}
    assert "tiny" in probes.markdown(result)


def test_both_loops_see_the_same_batches():
    data = synthetic(TINY, device=CPU)
    for layer in (0, 2):
        one, other = (fit_one(data, layer, TINY.recipe, seed=1, batches=batches) for batches in (loaded, sliced))
        assert one.top1_E == other.top1_E
        assert one.heldout_loss_E == pytest.approx(other.heldout_loss_E, rel=1e-5)
        assert one.top1 in one.top1_E


def test_arithmetic_is_what_torch_counts():
    data = chosen_layers(synthetic(TINY, device=CPU), [2])
    with FlopCounterMode(display=False) as counter:
        fit_one(data, 0, TINY.recipe, seed=1, batches=sliced)
    final_training_score = 2 * TINY.n * 12 * TINY.classes  # the engine's alone
    assert data_flops(data, TINY.epochs) - final_training_score == counter.get_total_flops()


def test_work_on_a_gpu_counts_the_same_arithmetic():
    data = synthetic(TINY, device=CPU)
    held = int(data.heldout_N.sum())
    counted = gpu.work(TINY.widths, classes=4, n=120, n_held=held, n_test=100, case=TINY)
    assert counted.flops == data_flops(data, TINY.epochs)
    assert counted.steps == 2 * (4 + -(-(120 - held) // 32))


def test_study_cases_are_the_studys_shapes():
    cases = probes.study_cases()
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    assert {(case.classes, case.n) for case in cases} == {(c, n) for c in (10, 100, 200) for n in (5_000, 50_000)}
    assert len(widths_of("resnet34")) == 33
    assert set(widths_of("resnet34")) == {256, 512, 1024, 2048}
    assert widths_of("vit_tiny_plus_patch8") == (192,) * 18


def test_embeddings_can_be_learned_but_not_trivially():
    case = Case("learnable", (64,), 10, 2_000, 1_000, 3, lr=1e-2)
    top1 = fit_one(synthetic(case, device=CPU), 0, case.recipe, seed=1, batches=sliced).top1
    assert 0.5 < top1 < 0.999


def test_a_race_compares_within_each_turn(monkeypatch):
    seconds = iter([2, 1, 30, 10, 4, 2])  # a slow turn counts as one of three
    clock = itertools.chain.from_iterable((0, each) for each in seconds)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    assert machine.race(lambda: None, lambda: None, turns=3) == (4, 2, 2)


def test_extraction_is_compared_with_the_best_bare_pass():
    tiny = embed.Case("resnet18", 32, 6, width=0.0625, batches=(3, 6))
    result = embed.run(quick=True, cases=[tiny])
    (case,) = result["cases"]
    assert case["layers"] == 17
    by_batch = case["bare_by_batch_ms"]
    assert set(by_batch) == {"3", "6"}
    assert by_batch[str(case["bare_batch"])] == min(by_batch.values())
    assert 0 < case["ratio"] == result["targets"][0]["value"]
    assert "resnet18-32px" in embed.markdown(result)


def test_gpu_script_runs_without_one_and_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = gpu.run(quick=True, case=TINY)
    assert not result["measured"]
    assert result["problems"] == []
    assert result["study"] == {"probes": 8604, "curves": 576, "seconds": None}
    assert "Not measured" in gpu.markdown(result)


def test_gpu_tables_and_extrapolation_by_hand(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    counted = gpu.work(gpu.FULL.widths, classes=100, n=126_689, n_held=12_669, n_test=5_000, case=gpu.FULL)
    study = gpu.extrapolate(counted, 10.0, gpu.FULL)
    assert study["probes"] == 8604
    # 64 backbones × 9 curves, none larger than this one and most far smaller
    assert all(10.0 < seconds < 576 * 10.0 for seconds in study["seconds"].values())
    assert gpu.extrapolate(counted, 20.0, gpu.FULL)["seconds"]["steps"] == pytest.approx(2 * study["seconds"]["steps"])
    whole = gpu.run(quick=True, case=TINY) | {"measured": True, "study": study}
    tiny = train.Case("vggm11", 32, 16, (32, 32), width=0.03125, batch_size=8, turns=1)
    monkeypatch.setattr(gpu_stages, "SMALL", (embed.Case("vggm11", 32, 8, width=0.03125, batches=(8,)),))
    others = gpu_stages.run(small=True, cases=[tiny], packing=[1])
    rates = gpu_stages.rates(others, (counted, 10.0))
    hours = paper.hours_by_block(rates, gpu.FULL)
    text = gpu.markdown(whole | {"others": others, "hours": hours})
    assert "missed" in text
    assert "| 1 |" in text
    config = read_config(paper.PAPER)
    assert list(hours) == list(dict.fromkeys(block.block for block in config.grid))
    cells = expand(config, lambda name: sizes(config, name)).cells
    operations = sum(training_flops(config, cell.backbone) for cell in cells)
    (rate,) = others["operations"]["training"]
    assert sum(by["training"] for by in hours.values()) == pytest.approx(operations / rate / 3600)
    probes = sum(by["probes"] for name, by in hours.items() if name != "weights") * 3600
    assert max(study["seconds"].values()) <= probes <= sum(study["seconds"].values())
    assert hours["weights"]["training"] == 0
    json.dumps(others)


def test_seeds_in_one_step_are_those_of_a_step_each():
    tiny = train.Case("vggm11", 32, 8, (32, 32), width=0.03125, batch_size=8)
    step, params = steps.stacked(tiny, CPU, 2)
    before = {name: value.detach().clone() for name, value in params.items()}
    step()
    loss, optimizer = steps._parts(tiny, CPU)
    steps._step(loss, optimizer)()
    for value_S, own, old_S in zip(params.values(), optimizer.param_groups[0]["params"], before.values(), strict=True):
        moved = (value_S - old_S).abs().max()
        assert 5e-4 < moved < 2e-3  # AdamW's first step is the rate, whatever the gradient
        if own.dim() > 1:  # a bias before a batch norm has rounding for a gradient, of either sign
            assert ((value_S - own).abs() < 1e-4).float().mean() > 0.95


def test_ways_to_step_are_compared_or_said_not_to_be_had(monkeypatch):
    assert steps.pays_after(0.010, 0.008, 30.0) == 15_000
    assert steps.pays_after(0.008, 0.008, 30.0) is None
    monkeypatch.setattr(steps.shutil, "which", lambda _name: None)
    monkeypatch.setattr(steps, "_STEPS", 1)
    monkeypatch.setattr(steps, "at_once", lambda work, number: number * work(lambda: None))
    tiny = train.Case("vggm11", 32, 8, (32, 32), width=0.03125, batch_size=8)
    result = steps.run(quick=True, cases=[tiny])
    (case,) = result["cases"]
    assert case["eager_ms"] > 0
    assert (case["compiled"]["why"], case["graph"]["why"]) == ("no C++ compiler here", "no GPU here")
    found = steps.markdown(result | {"cases": [case | {"graph": {"ms": 1.0, "before_s": 2.0, "pays_after": 1_234}}]})
    assert "no C++ compiler here" in found
    assert "| 1,234 |" in found


def test_growth_exponents():
    tiny = growth.Base(Case("growth", (4, 4), 3, 60, 30, 1), (1, 2), 2)
    result = growth.run(quick=True, base=tiny, stages=[("decoding: images", [1, 10], [(1.0, 0), (10.0, 2**20)])])
    assert result["series"].pop()["exponent"] == pytest.approx(1)
    names = [series["name"].split(": ")[1].split(",")[0] for series in result["series"]]
    assert set(names) == {"images", "width", "classes", "layers", "in flight"}
    assert "exponent" in growth.markdown(result)
    quadratic = growth._series("statistics: width", [1, 2, 4], [(1.0, 0), (4.0, 0), (16.0, 0)])
    assert quadratic["exponents"] == pytest.approx([2, 2])
    assert "exponent 2.00: the covariance" in growth.markdown({"series": [quadratic]})


def test_growth_of_stages_runs_them(tmp_path):
    for stage in (growth_stages._decode, growth_stages._train, growth_stages._embed):
        seconds, held = stage(tmp_path / stage.__name__, 40)
        assert seconds > 0
        assert held >= 0


class _Rubbish:
    """Freed by no count of references, only by a collection."""

    def __init__(self) -> None:
        self.itself = self


def test_memory_of_processes_at_its_peak():
    """Held by a child: what this process frees meanwhile, after thousands of tests, must not hide it."""
    rubbish = weakref.ref(_Rubbish())
    code = "held = bytearray(b'1') * (64 << 20); print('held', flush=True); input()"
    with growth_stages.anonymous_peak() as peak:
        assert rubbish() is None
        with subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout.readline() == "held\n"
            end = time.monotonic() + 30
            while peak.extra_bytes < 64 << 20 and time.monotonic() < end:
                time.sleep(0.01)
            child.communicate("\n")
    assert 64 << 20 < peak.extra_bytes < 200 << 20
    assert growth_stages._anonymous(psutil.Process())[os.getpid()] > 1 << 20


def test_decoding_is_measured_with_equal_pixels(monkeypatch):
    monkeypatch.setattr(decode, "_DISTINCT", 3)
    monkeypatch.setattr(decode, "_BARE", 6)
    monkeypatch.setattr(decode, "DRAFTED", (24,))
    result = decode.run(quick=True, images=12, resolutions=[24])
    (case,) = result["cases"]
    assert case["ratio"] == pytest.approx(case["loop"] / case["ours"]["1"])
    assert {each["name"] for each in result["decoders"]} >= {"Pillow"}
    assert next(each for each in result["decoders"] if each["name"] == "Pillow")["same"]
    assert 30_000 < result["bytes"] < 300_000  # as a photograph's
    assert all(0 < each["mean"] < 10 for each in result["drafts"])
    assert "| 24 px |" in decode.markdown(result)


def test_scikit_learn_solves_the_problem_it_is_given():
    case = Case("tiny", (6,), 3, 90, 60, 1)
    data = synthetic(case, device=CPU)
    fitted = scikit.scikit(data, 0, tolerance=1e-4)
    assert 0 < fitted.objective < np.log(3)
    assert fitted.top1 > 0.5


def test_lbfgs_is_measured_to_the_same_loss():
    case = scikit.Solved(Case("tiny", (6, 6), 3, 90, 60, 1))
    (found,) = scikit.run(quick=True, cases=[case])["cases"]
    assert found["objective"] == pytest.approx(found["scikit_objective"], rel=1e-3)
    assert "| tiny | 2 |" in scikit.markdown({"cases": [found]})


def test_peak_memory_sees_what_is_freed_again():
    with machine.peak_memory(CPU) as memory:
        held = torch.ones(32 << 20, dtype=torch.uint8)
        del held
        machine.timed(lambda: torch.ones(64 << 20, dtype=torch.uint8).sum(), device=CPU)
    assert memory.extra_bytes > 30 << 20


def test_every_benchmark_has_a_section_of_its_own_in_the_results():
    assert set(report.TITLES) == set(command.BENCHMARKS)


def test_sections_are_replaced_one_by_one(tmp_path):
    file = tmp_path / "RESULTS.md"
    facts = machine.describe(CPU) | {"others": 0.0, "provisional": False}
    report.update(file, {"growth": report.section("growth", "old growth", facts)})
    report.update(file, {"probes": report.section("probes", "new probes", facts)})
    report.update(
        file, {"growth": report.section("growth", "new growth", facts | {"others": 0.5, "provisional": True})}
    )
    text = file.read_text()
    assert text.index("new probes") < text.index("new growth")
    assert "old growth" not in text
    assert text.count("others used 50% of the processor") == 1


def test_quick_writes_json_and_no_results(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(gpu, "SMALL", TINY)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    file = tmp_path / "out.json"
    assert command.main(["gpu", "--quick", "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    assert written["quick"]
    assert written["gpu"]["machine"]["cores"] >= 1
    assert not command.RESULTS.exists()
    assert command.main(["gpu"]) == 0
    assert "## A paper backbone on a GPU" in command.RESULTS.read_text()
    assert "Not measured" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["prbes"])


@pytest.mark.parametrize("part", ["probes", "statistics"])
def test_profile_names_the_operators(part, monkeypatch):
    monkeypatch.setattr(operators, "CASE", TINY)
    assert "aten::" in operators.operators(part, rows=5)


def test_attribution_reports_time_and_memory_of_a_real_report():
    case = attribution.Case("small", 12, 2, 0, 60.0, 2 * attribution.GIB)
    (found,) = attribution.run(quick=True, cases=[case])["cases"]
    assert found["met"] is (found["seconds"] <= 60 and found["bytes"] <= 2 * attribution.GIB)
    assert found["bytes"] > 50 * attribution.MIB
    assert "| small |" in attribution.markdown({"cases": [found]})


def test_coverage_counts_what_holds_and_what_is_asserted_wrongly(tmp_path):
    answers = iter([(True, None, None), (False, None, None), (False, None, None)])
    cell = coverage.Cell("nothing", "independent", {})
    counted = coverage._cell(cell, list(answers))
    assert counted["false"] == pytest.approx(1 / 3)
    assert counted["error"] == pytest.approx((2 / 9 / 3) ** 0.5)
    own = coverage._cell(replace(cell, variable="a", effect=5.0), [(False, True, True), (False, True, False)])
    assert (own["coverage"], own["power"]) == (1.0, 0.5)
    result = {"with_trees": 0, "cells": [counted, own | {"name": "five points"}]}
    assert "| five points | 2 | 0.0% ± 35.4% | 100% | 50% |" in coverage.markdown(result)
    with ThreadPoolExecutor(1) as pool:
        assert coverage._each(lambda table: [table], 3, tmp_path / "kept.json", pool) == [[0], [1], [2]]
        assert coverage._each(lambda table: [-table], 4, tmp_path / "kept.json", pool) == [[0], [1], [2], [-3]]
    false, holds, told = coverage.one(0, coverage.CELLS[-1])  # ten points in a table of its own
    assert (false, holds, told) == (False, True, True)


def test_storage_measures_a_real_rerun_and_listings():
    result = {"rerun": storage.rerun(3), "listing": [storage.listing(20)], "scheduling": storage.scheduling(5)}
    assert result["rerun"]["probes"] == 3 * 4 * 18
    assert 0 < result["rerun"]["again"] < 60
    assert result["listing"][0]["curves"] == 20
    assert result["scheduling"]["bare"] > 0
    text = storage.markdown(
        result | {"scaling": {"backbones": 2, "one": 4.0, "two": 2.0, "side": 1.5, "efficiency": 0.75}}
    )
    assert "less than" in text
    assert "216 probes" in text


def test_the_main_job_by_two_codes(tmp_path):
    config = storage.write(tmp_path, storage.TRAINED, seeds=[0], epochs=2, images=20)
    case = jobs.compare(jobs.Job(config), {"before": jobs.ROOT, "after": jobs.ROOT}, tmp_path / "run")
    assert case["probes"] == 30  # 10 layers, ID and two datasets
    assert case["ratio"] == pytest.approx(case["before"]["whole"] / case["after"]["whole"])
    for code in ("before", "after"):
        assert 0 < case[code]["embed"] < case[code]["whole"]
    (moved,) = case["shift"].values()
    assert moved["rows"] == 30
    assert moved["largest"] == 0  # the same code twice
    assert "| config | 30 |" in jobs.markdown({"before": "abc", "jobs": [case]})


def test_a_commit_that_is_not_there_is_named():
    with pytest.raises(RuntimeError, match="no files of commit 0123456789"), jobs.earlier("0123456789"):
        pass


def test_solvers_are_compared_on_the_same_embeddings(tmp_path, monkeypatch):
    data = synthetic(Case("tiny", (8, 12), 4, 240, 200, 1), device=CPU)
    monkeypatch.setattr(real, "embeddings", lambda curve: data)
    solvers_figure.draw({"tiny": solvers_figure.measured(real.Curve("tiny"))}, tmp_path / "tiny.png")
    assert (tmp_path / "tiny.png").stat().st_size > 5_000
    case = solvers.measure(real.Curve("tiny"), data)
    assert case["retained"].keys() == case["peak"].keys() == case["rank_order"].keys() == solvers.SOLVERS.keys()
    assert case["rank_order"]["converged"] == pytest.approx(1)
    assert case["all_converged"]
    assert case["agreement"] >= 0.995
    assert case["ratio_to_adamw30"] == pytest.approx(case["seconds"]["converged"] / case["seconds"]["AdamW 30"])
    assert case["ratio_sklearn"] > 0
    # a floor is below what it is the floor of, and goes with the passes; one layer makes about as many as the mean
    for name in ("floor_share", "floor_share_one", "floor_share_sklearn"):
        assert 0 < case[name] < 1
    assert case["floor_share"] == pytest.approx(case["floor_seconds"] / case["seconds"]["converged"])
    assert case["passes_one"] == pytest.approx(case["passes"], rel=0.9)
    assert case["passes_sklearn"] > 1
    assert "| r34-tiny | 240 × 4 |" in solvers.markdown({"cases": [case]})
