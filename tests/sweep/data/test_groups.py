"""Groups are never parted: tracks laid out like GTSRB's, patients with images of several classes, lists and names."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sweep.base.errors import UserError
from sweep.config.problem import ConfigError
from sweep.data.library import Library
from sweep.data.open import open_dataset
from sweep.data.options import DatasetOptions
from sweep.data.splits import folds, hold_out
from sweep.data.view import study_view
from sweep.study.check import read_config
from sweep.study.resolve import data_identities

TRACK = r"(\d+/\d+)_\d+\.png$"  # class and track; numbers of tracks begin anew in each class
CLASSES, FRAMES = 3, 5
TRACKS = (6, 9, 4)


@pytest.fixture
def tracks(tmp_path):
    """Class folders of tracks: all frames of a track are the same picture but for its last pixel."""
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        folder = tmp_path / "signs" / f"{label:05d}"
        folder.mkdir(parents=True)
        for track in range(TRACKS[label]):
            picture = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            for frame in range(FRAMES):
                picture[-1, -1] = frame
                Image.fromarray(picture).save(folder / f"{track:05d}_{frame:05d}.png")
    return tmp_path / "signs"


def opened(path, cache, **options):
    return open_dataset("signs", DatasetOptions(kind="folder", path=str(path), **options), cache_dir=cache)


def track_of(name):
    return name.rsplit("_", 1)[0]


def test_no_track_is_in_two_parts_and_without_groups_every_part_has_seen_most_of_them(tracks, tmp_path):
    for groups, parted in ((None, True), (TRACK, False)):
        options = DatasetOptions(kind="folder", path=str(tracks), groups=groups)
        library = Library({"signs": options}, str(tmp_path / "cache"))
        images = library.images("signs", study_view(8))
        chosen = library.select("signs")
        train = [track_of(chosen.dataset.train.names[index]) for index in chosen.train_N]
        fit, held = (
            {track for track, is_held in zip(train, images.heldout_N.tolist(), strict=True) if is_held == which}
            for which in (False, True)
        )
        test = {track_of(name) for name in chosen.dataset.test.names}
        fold_N = images.folds(3)
        in_folds = {(track, fold) for track, fold in zip(train, fold_N.tolist(), strict=True)}
        assert bool(fit & held) == parted
        assert bool(set(train) & test) == parted
        assert (len(in_folds) > len(set(train))) == parted
        for labels in (images.train_labels_N[images.heldout_N], images.test_labels_N):
            assert set(labels.tolist()) == set(range(CLASSES))
        assert ("by group" in chosen.dataset.split_note) == (not parted)


def test_a_list_names_the_same_groups_and_makes_the_same_parts_and_key(tracks, tmp_path):
    listed = tmp_path / "tracks.csv"
    names = [str(file.relative_to(tracks)) for file in sorted(tracks.rglob("*.png"))]
    with open(listed, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("file", "note", "track"), *((name, "-", f"t{track_of(name)}") for name in names)])

    def identity(groups):
        config = tmp_path / "c.yaml"
        config.write_text(
            f"name: c\ncache_dir: {tmp_path}/cache\ndata_root: {tmp_path}\n"
            f"datasets: {{signs: {{path: signs{groups}}}}}\ngrid: [{{architecture: vggm11, id_dataset: signs}}]\n"
        )
        return data_identities(read_config(config, need_data=True), ["signs"])["signs"]

    by_name = identity(f", groups: '{TRACK}'")
    assert "groups " in by_name
    assert identity(", groups: {list: tracks.csv, column: track}") == by_name
    assert identity(", groups: {list: tracks.csv, column: track, image: file}") == by_name
    assert "groups " not in identity("")
    listed.write_text(listed.read_text().replace("t00000/00000", "t00000/00001"))  # two tracks become one
    assert identity(", groups: {list: tracks.csv, column: track}") != by_name


def test_what_groups_do_not_say_is_refused(tracks, tmp_path):
    with pytest.raises(UserError, match=r"groups says nothing of 95 of 95 images \(00000/00000_00000.png"):
        opened(tracks, tmp_path, groups=r"video\d+")
    with pytest.raises(UserError, match="class '00000' lies in 1 group, which cannot be parted"):
        opened(tracks, tmp_path, groups=r"\d+/")
    (tmp_path / "list.csv").write_text("file,track\na,b\n")
    with pytest.raises(UserError, match="has no column 'patient'; it has file, track"):
        opened(tracks, tmp_path, groups_list=str(tmp_path / "list.csv"), groups_column="patient")
    with pytest.raises(UserError, match="cannot be read"):
        opened(tracks, tmp_path, groups_list=str(tmp_path / "none.csv"), groups_column="track")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{generator: glyphs, groups: x}", "only a dataset with a path"),
        ("{path: signs, groups: '('}", "not a regular expression"),
        ("{path: signs, groups: {column: track}}", "list"),
    ],
)
def test_mistakes_have_a_place(tmp_path, entry, expected):
    file = tmp_path / "c.yaml"
    file.write_text(f"name: c\ndatasets: {{signs: {entry}}}\ngrid: [{{architecture: vggm11, id_dataset: signs}}]\n")
    with pytest.raises(ConfigError, match=expected):
        read_config(file)


def test_an_official_test_part_that_shares_tracks_is_told(tracks, tmp_path):
    for folder in sorted(tracks.iterdir()):
        for part in ("train", "test"):
            (tracks / part / folder.name).mkdir(parents=True)
        for file in folder.iterdir():
            part = "test" if file.stem.endswith("4") else "train"
            file.rename(tracks / part / folder.name / file.name)
        folder.rmdir()
    (note,) = [n for n in opened(tracks, tmp_path, groups=TRACK).notes if "test images" in n]
    assert note == "19 of 19 test images are of groups that the training part has too (19 groups)"


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_parts_and_folds_keep_groups_whole_and_classes_on_both_sides(data):
    """Groups of any size, which may hold several classes; a class that cannot be parted is refused by name."""
    n = data.draw(st.integers(8, 80))
    labels_N = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    groups_N = np.array(data.draw(st.lists(st.integers(0, 12), min_size=n, max_size=n)))
    if data.draw(st.booleans()):
        groups_N = groups_N + 100 * labels_N  # of one class each, as tracks are
    try:
        held_N = hold_out(labels_N, fraction=0.2, seed=1, groups_N=groups_N)
    except UserError:
        held_N = None
    if held_N is not None:
        assert not set(groups_N[held_N]) & set(groups_N[~held_N])
        assert set(labels_N[held_N]) == set(labels_N[~held_N]) == set(labels_N)
    elif (groups_N >= 100 * labels_N).all() and (groups_N // 100 == labels_N).all():
        assert min(len(np.unique(groups_N[labels_N == label])) for label in np.unique(labels_N)) == 1
    fold_N = folds(labels_N, count=4, seed=1, groups_N=groups_N)
    assert all(len(set(fold_N[groups_N == group])) == 1 for group in np.unique(groups_N))
    assert set(fold_N) == set(range(fold_N.max() + 1))


def test_groups_of_one_size_come_close_to_the_fraction():
    labels_N = np.repeat(np.arange(4), 60)
    held_N = hold_out(labels_N, fraction=0.1, seed=0, groups_N=np.arange(240) // 3)
    assert np.bincount(labels_N[held_N]).tolist() == [6] * 4
    every = hold_out(labels_N, fraction=0.1, seed=0, groups_N=np.arange(240))
    assert np.bincount(labels_N[every]).tolist() == [6] * 4


@pytest.mark.parametrize("count", [2, 5, 7])
def test_folds_are_stratified_of_one_size_and_of_the_seed(count):
    labels_N = np.random.default_rng(0).permutation(np.repeat(np.arange(9), [2, 3, 5, 8, 13, 21, 34, 55, 89]))
    fold_N = folds(labels_N, count=count, seed=3)
    sizes = np.bincount(fold_N, minlength=count)
    assert sizes.max() - sizes.min() <= 1
    for label in range(9):
        own = np.bincount(fold_N[labels_N == label], minlength=count)
        assert own.max() - own.min() <= 1
    assert np.array_equal(fold_N, folds(labels_N, count=count, seed=3))
    assert not np.array_equal(fold_N, folds(labels_N, count=count, seed=4))
