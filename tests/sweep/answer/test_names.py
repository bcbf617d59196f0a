"""What names, patterns, files and the suggested list stand for, and which weights of one's own go with them."""

import pytest
import timm
import torch

from sweep.answer.names import Model, models_of, suggested
from sweep.base.errors import UserError
from sweep.config import WeightsEntry
from sweep.models import facts, tags
from sweep.models.corpora import trained_on


def names(*asked, entries=None, own=()):
    return [model.name for model in models_of(asked, entries or {}, own)]


def test_a_name_a_tag_a_pattern_and_a_file(tmp_path):
    assert names("resnet50.a1_in1k", "resnet50.a1_in1k") == ["resnet50.a1_in1k"]
    assert names("resnet50") == [f"resnet50.{tags('resnet50')[0]}"]
    dinov2 = names("vit_*_patch14_dinov2.lvd142m")
    assert set(dinov2) == {f"vit_{size}_patch14_dinov2.lvd142m" for size in ("small", "base", "large", "giant")}
    assert names("resnet5?") == [f"resnet50.{tags('resnet50')[0]}"]
    (tmp_path / "mine.txt").write_text("# two\nresnet18  # small\n\nresnet50.a1_in1k\n")
    assert names(str(tmp_path / "mine.txt")) == [f"resnet18.{tags('resnet18')[0]}", "resnet50.a1_in1k"]


def test_the_suggested_list_is_ten_models_that_differ():
    listed = [each["model"] for each in suggested()]
    assert names("suggest") == listed
    assert len(set(listed)) == 10
    known = [trained_on(*name.split(".", 1)) for name in listed]
    assert len({each.objective for each in known}) >= 4
    assert len({each.corpus for each in known}) >= 5
    sizes = [facts.parameters(name.split(".")[0], classes=1) for name in listed]
    assert max(sizes) > 20 * min(sizes)
    for each in suggested():
        assert each["licence"] == timm.get_pretrained_cfg(each["model"]).license


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("resnet5000", "no such architecture; the closest are"),
        ("resnet50.nothing", "has no weights named nothing; there are: a1_in1k"),
        ("nonsense*", "matches this pattern"),
        ("*.nonsense", "matches this pattern"),
        ("vggm11", "timm has no weights of vggm11"),
        ("*", "at most 200"),
    ],
)
def test_what_stands_for_nothing_is_refused_in_a_line(asked, said):
    with pytest.raises(UserError, match=said.replace("*", r"\*")) as caught:
        names(asked)
    assert "\n" not in str(caught.value)


@pytest.fixture
def checkpoint(tmp_path):
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), tmp_path / "mine.pt")
    return {"mine": WeightsEntry(path=str(tmp_path / "mine.pt"))}


def test_weights_of_ones_own_go_with_what_they_fit(checkpoint):
    default = tags("test_resnet")[0]
    assert names("test_resnet", entries=checkpoint, own=["mine"]) == ["test_resnet.mine"]
    both = names(f"test_resnet.{default}", "test_vit", entries=checkpoint, own=["mine"])
    assert both == [f"test_resnet.{default}", "test_resnet.mine", f"test_vit.{tags('test_vit')[0]}"]
    assert names("test_resnet.mine", entries=checkpoint) == ["test_resnet.mine"]
    with pytest.raises(UserError, match="fits none"):
        names("test_vit", entries=checkpoint, own=["mine"])
    assert models_of(["test_resnet"], checkpoint, ["mine"]) == [Model("test_resnet", "mine")]
