"""The study's downloaded weights: facts against timm's, and original file formats on small networks."""

import argparse
import re
from collections import OrderedDict

import pytest
import timm
import torch

from sweep.models import __main__ as command
from sweep.models import weights_by_name as known
from sweep.models import weights_catalogue
from sweep.models.augmentations import LEVELS, RULES
from sweep.models.build import build_backbone
from sweep.models.corpora import trained_on
from sweep.study.check import read_config
from sweep.study.sources import weights_source

CONFIG = """
name: t
data_root: {root}
grid:
  - {{architecture: {architecture}, pretraining: {name}, resolution: native}}
probe_datasets: [glyphs]
"""


def test_facts_agree_with_timm_and_with_the_corpora():
    entries = known.study_weights()
    assert len({entry.name for entry in entries}) == 8
    for entry in entries:
        assert entry.augmentation in LEVELS
        if entry.tag is None:
            continue
        architecture, _, tag = entry.tag.partition(".")
        corpus = trained_on(architecture, tag)
        assert (corpus.objective, corpus.augmentation) == (entry.objective, entry.augmentation)
        assert corpus.corpus == entry.corpus
        config = timm.get_pretrained_cfg(entry.tag)
        assert config.license == entry.licence.lower()
        assert entry.source in (config.url, config.origin_url)


def test_every_rule_of_augmentation_speaks_of_some_weights():
    first = dict.fromkeys(RULES, 0)
    for name in timm.list_pretrained():
        architecture, _, tag = name.partition(".")
        own = next((rule for rule in RULES if weights_rule(rule, architecture, tag)), None)
        if own is not None:
            first[own] += 1
            assert trained_on(architecture, tag) is None or trained_on(architecture, tag).augmentation == own.level
    assert min(first.values()) > 0, [rule for rule, count in first.items() if not count]
    assert {rule.level for rule in RULES} == set(LEVELS)


def weights_rule(rule, architecture, tag):
    return re.fullmatch(rule.architecture, architecture) and re.fullmatch(rule.tag, tag)


def swav(network, *, training):
    """As main_swav.py writes it, or as the published file has it: names behind "module.", heads besides."""
    state = {f"module.{name}": value for name, value in network.state_dict().items() if not name.startswith("fc.")}
    state |= {
        "module.projection_head.0.weight": torch.zeros(8, 512),
        "module.projection_head.1.num_batches_tracked": torch.tensor(3),
        "module.projection_head.3.weight": torch.zeros(4, 8),
        "module.prototypes.weight": torch.zeros(30, 4),
    }
    if not training:
        return OrderedDict(state)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    return {"epoch": 800, "state_dict": state, "optimizer": optimizer.state_dict(), "amp": {"loss_scaler0": {"s": 1.0}}}


def mugs(network, *, form):
    """As main.py writes it ("full"), and as its two scripts extract the backbone from it."""
    own = {name: value for name, value in network.state_dict().items() if not name.startswith("head.")}
    own |= {f"relation_blocks.0.{name[9:]}": value + 9 for name, value in own.items() if name.startswith("blocks.0.")}
    if form == "flat":
        return own
    if form == "state_dict":
        return {"state_dict": own}
    teacher = {f"backbone.{name}": value for name, value in own.items()}
    teacher["instance_head.mlp.0.weight"] = torch.zeros(3, 192)
    student = {f"module.{name}": value + 1 for name, value in teacher.items()}
    memory = {"queue": torch.zeros(8, 192)}
    return {
        "student": student,
        "teacher": teacher,
        "student_mem": memory,
        "teacher_mem": memory,
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 400,
        "args": argparse.Namespace(arch="vit_base", epochs=400),
        "instance-sup.": {},
        "group-sup.": {"center": torch.zeros(1, 64)},
        "fp16_scaler": {"scale": 65536.0},
    }


@pytest.mark.parametrize(
    ("name", "architecture", "written"),
    [
        ("swav", "resnet18", lambda network: swav(network, training=False)),
        ("swav", "resnet18", lambda network: swav(network, training=True)),
        ("mugs", "vit_tiny_patch16_224", lambda network: mugs(network, form="flat")),
        ("mugs", "vit_tiny_patch16_224", lambda network: mugs(network, form="state_dict")),
        ("mugs", "vit_tiny_patch16_224", lambda network: mugs(network, form="full")),
    ],
)
def test_original_files_are_read_by_name(tmp_path, monkeypatch, name, architecture, written):
    small = tuple(
        known.StudyWeights(**(vars(entry) | {"architecture": architecture}))
        for entry in known.study_weights()
        if entry.file
    )
    monkeypatch.setattr(known, "study_weights", lambda: small)
    (entry,) = (entry for entry in small if entry.name == name)
    torch.manual_seed(0)
    network = timm.create_model(architecture, num_classes=0)
    (tmp_path / "weights").mkdir()
    torch.save(written(network), tmp_path / "weights" / entry.file)
    (tmp_path / "c.yaml").write_text(CONFIG.format(root=tmp_path, architecture=architecture, name=name))
    monkeypatch.setattr("sweep.study.check_weights.study_weights", lambda: small)
    source = weights_source(read_config(tmp_path / "c.yaml", need_data=True), architecture, name)
    assert source.trained_on.images == 1_281_167
    assert source.mean == (0.485, 0.456, 0.406)
    built = build_backbone(architecture, classes=5, resolution=32 if name == "swav" else 224, weights=source)
    for key, value in network.state_dict().items():
        assert torch.equal(built.state_dict()[key], value), key
    (tmp_path / "weights" / entry.file).unlink()
    with pytest.raises(Exception, match=r"fetch it: https.*licence"):
        read_config(tmp_path / "c.yaml", need_data=True)


def test_the_catalogue_covers_every_tag_of_the_configs(capsys):
    assert command.main(["weights"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 9
    assert "not known" in said[4]  # SwAV's checksum
    assert command.main(["weights", "--csv", "vit_base_patch16_224.mae"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert dict(zip(head.split(","), row.split(","), strict=True))["images"] == "1281167"
    with pytest.raises(weights_catalogue.UserError, match="no weights of that name"):
        weights_catalogue.rows(["nothing*"])
