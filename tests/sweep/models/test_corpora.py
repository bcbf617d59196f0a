"""What timm's and torchvision's weights were trained on: a declared table, held against timm's own facts."""

import pytest
import timm

from sweep.models import facts
from sweep.models.corpora import CORPORA, torchvision_trained_on, trained_on
from sweep.models.tags_build import build, text
from sweep.models.timm_tags import FILE, default_tag, expected_pixels, tags

PRETRAINED = [full.split(".", 1) for full in timm.list_pretrained()]
IN1K = 1_281_167


@pytest.mark.parametrize(
    ("full", "corpus", "images", "classes", "objective"),
    [
        ("vit_base_patch14_dinov2.lvd142m", "lvd142m", 142_000_000, None, "self-supervised"),
        ("vit_base_patch16_clip_224.laion2b", "laion2b", 2_320_000_000, None, "language-image"),
        ("convnext_base.fb_in22k_ft_in1k", "imagenet21k + imagenet1k", 14_197_122, 1000, "supervised"),
        ("vit_base_patch16_clip_224.openai_ft_in12k", "wit400m + imagenet12k", 400_000_000, 11_821, None),
        ("convnextv2_base.fcmae_ft_in1k", "imagenet1k", IN1K, 1000, "masked images + supervised"),
        ("beit_base_patch16_224.in22k_ft_in22k", "imagenet21k", 14_197_122, 21_841, "masked images + supervised"),
        ("convnext_tiny.in12k_ft_in1k", "imagenet12k + imagenet1k", 12_129_687, 1000, "supervised"),
        ("tf_efficientnet_b5.ns_jft_in1k", "jft300m + imagenet1k", 300_000_000, 1000, "noisy student + supervised"),
        ("resnext101_32x8d.fb_swsl_ig1b_ft_in1k", "ig1b + imagenet1k", 940_000_000, 1000, None),
        ("vit_base_patch16_siglip_224.webli", "webli", None, None, "language-image"),
    ],
)
def test_a_tag_says_what_its_weights_were_trained_on(full, corpus, images, classes, objective):
    architecture, tag = full.split(".")
    assert tag in tags(architecture)
    found = trained_on(architecture, tag)
    assert (found.corpus, found.images, found.classes) == (corpus, images, classes)
    assert objective is None or found.objective == objective


@pytest.mark.parametrize("tag", ["in99k", "new_in1k_words", "clip_ft_in1k", "pt", "ssld_in1k", ""])
def test_a_tag_with_a_word_that_is_not_declared_is_never_guessed(tag):
    assert trained_on("resnet50", tag) is None


def test_networks_whose_tags_leave_something_out_are_unknown():
    assert trained_on("beit3_base_patch16_224", "in22k_ft_in1k") is None
    assert trained_on("eva_large_patch14_196", "in22k_ft_in1k").objective == "masked images + supervised"


def test_labels_agree_with_the_heads_that_timm_publishes():
    """Independent of the table: the number of classes of each published classifier."""
    others = {
        21_842,
        21_843,
        19_168,
    }  # Microsoft's and Google's copies of ImageNet-21K, the winter release and one more
    compared = 0
    for architecture, tag in PRETRAINED:
        head = timm.get_pretrained_cfg(f"{architecture}.{tag}").num_classes
        found = trained_on(architecture, tag)
        if found is None or not head or found.classes is None:
            continue
        if "distilled" in tag or found.objective.split(" + ")[-1] not in ("supervised",):
            continue
        compared += 1
        assert head == found.classes or (found.classes in (21_841, 19_167) and head in others), (
            architecture,
            tag,
            head,
            found,
        )
    assert compared > 1000


def test_most_of_timms_weights_are_known():
    known = [trained_on(architecture, tag) is not None for architecture, tag in PRETRAINED]
    assert sum(known) >= 0.85 * len(known)


def test_every_corpus_has_a_source():
    assert all(corpus.source and (corpus.images is None or corpus.images > 10**6) for corpus in CORPORA.values())


def test_torchvisions_names_are_known():
    assert torchvision_trained_on("ResNet50_Weights.IMAGENET1K_V2").images == IN1K
    assert torchvision_trained_on("ViT_B_16_Weights.IMAGENET1K_SWAG_LINEAR_V1").images == 3_600_000_000
    assert torchvision_trained_on("ResNet50_Weights.COCO_V1") is None


# ----------------------------------------------------------------------------------------------- timm without timm


def test_the_file_of_tags_is_what_the_installed_timm_says():
    assert FILE.read_text(encoding="utf-8") == text(build())


@pytest.mark.parametrize("architecture", ["convnext_base", "vit_base_patch16_clip_224", "resnet101", "efficientnet_b0"])
def test_the_default_tag_is_timms(architecture):
    assert default_tag(architecture) == timm.get_pretrained_cfg(architecture).tag == tags(architecture)[0]
    assert facts.architecture(architecture).weights[0] == default_tag(architecture)


@pytest.mark.parametrize("tag", ["fb_in22k_ft_in1k", "fb_in22k_ft_in1k_384", "clip_laion2b"])
def test_pixels_are_those_of_the_tag(tag):
    found, expected = expected_pixels("convnext_base", tag), timm.get_pretrained_cfg(f"convnext_base.{tag}")
    assert (found.resolution, found.crop) == (expected.input_size[-1], expected.crop_pct)
    assert (found.mean, found.std, found.interpolation) == (expected.mean, expected.std, expected.interpolation)
