"""No group of images is torn apart: in folds, in pools, and on the two sides of a task."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedGroupKFold

from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset
from metaloss.data.episodes import EpisodeShape, Images, draw
from metaloss.data.group_cuts import parts_of_groups, two_sides
from metaloss.data.groups import with_groups, with_groups_of
from metaloss.data.pools import pools
from metaloss.errors import DataError
from metaloss.experiments.recommendation import folds
from metaloss.tasks import episodic, episodic_family


def made(counts, groups=None, test=0):
    """So many images of each class; the last of each class may be an official test split."""
    n = sum(counts)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    last = torch.cat([torch.arange(c) >= c - test for c in counts])
    order = last.long().argsort(stable=True)
    return Dataset(
        name="made",
        pixels=torch.randint(256, (n, 1, 2, 2), dtype=torch.uint8),
        labels=labels[order],
        classes=tuple("abcdef"[: len(counts)]),
        index=torch.cat([torch.arange(int((~last).sum())), torch.arange(int(last.sum()))]),
        test=last[order],
        origin="made",
        files=tuple(f"{'abcdef'[c]}/{i}.png" for i, c in enumerate(labels[order].tolist())),
        groups=groups,
    )


def random_groups(n, number, seed):
    return Stream(seed).at("groups").integers(number, n)


def shared(parts, groups):
    sets = [set(groups[torch.cat(part)].tolist()) for part in parts]
    return [a & b for i, a in enumerate(sets) for b in sets[:i] if a & b]


def test_parts_are_whole_complete_and_as_even_as_scikit_learn_s():
    for seed in range(3):
        data = made([60, 30, 12], random_groups(102, 25, seed))
        rows = tuple(torch.nonzero(data.labels == c)[:, 0] for c in range(3))
        parts = parts_of_groups(rows, data.groups, [1] * 5, f"{seed}")
        assert sorted(torch.cat([torch.cat(p) for p in parts]).tolist()) == list(range(102))
        assert not shared(parts, data.groups)
        theirs = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(
            np.zeros(102), data.labels.numpy(), data.groups.numpy()
        )
        reference = [np.bincount(data.labels[held].numpy(), minlength=3) for _, held in theirs]
        ours = [[len(x) for x in part] for part in parts]
        total = np.array([60, 30, 12])
        spread, other = ((np.array(x) / total).std(0).mean() for x in (ours, reference))
        assert spread <= 1.3 * other + 0.01


def test_parts_of_other_shares_have_those():
    data = made([200, 100], random_groups(300, 100, 0))
    rows = tuple(torch.nonzero(data.labels == c)[:, 0] for c in range(2))
    parts = parts_of_groups(rows, data.groups, (3, 1, 1), "x")
    sizes = np.array([[len(x) for x in part] for part in parts])
    np.testing.assert_allclose(sizes / sizes.sum(0), [[0.6] * 2, [0.2] * 2, [0.2] * 2], atol=0.03)


def test_a_task_has_no_group_on_both_sides_and_every_class_on_each():
    groups = torch.arange(40) // 3
    data = made([24, 10, 6], groups)
    rows = [torch.nonzero(data.labels == c)[:, 0] for c in range(3)]
    for t in range(50):
        train, val = two_sides(rows, groups, [5, 2, 1], Stream(t))
        assert not shared([tuple(train), tuple(val)], groups)
        for of_class, a, b in zip(rows, train, val, strict=True):
            assert len(a) > 0
            assert len(b) > 0
            assert sorted([*a.tolist(), *b.tolist()]) == of_class.tolist()


def test_a_class_of_one_group_cannot_be_on_both_sides():
    groups = torch.tensor([0, 1, 2, 3, 9, 9])
    rows = (torch.arange(4), torch.arange(4, 6))
    assert two_sides(rows, groups, [1, 1], Stream(0)) is None
    images = Images(torch.zeros(6, 1, 2, 2, dtype=torch.uint8), 0.0, 1.0)
    with pytest.raises(DataError, match="no group on two: every class needs images of at least"):
        draw(images, rows, EpisodeShape(2, 1, 1), [Stream(0)], groups=groups)


def test_a_part_without_a_class_gets_a_group_that_can_be_spared():
    data = made([60, 12, 6], torch.arange(78) // 2)
    few = replace(data, groups=data.groups.where(data.labels != 2, 1000 + torch.arange(78) % 3))
    cut = pools(few)
    assert not shared([x.rows for x in cut.values()], few.groups)
    assert sum(len(x) for pool in cut.values() for x in pool.rows) == 78
    for pool in cut.values():
        assert len(few.groups[pool.rows[2]].unique()) == 1
        assert min(map(len, pool.rows)) > 0
    two = replace(data, groups=data.groups.where(data.labels != 2, 1000 + torch.arange(78) % 2))
    assert sorted(len(x.rows[2]) > 0 for x in pools(two).values()) == [False, True, True]


def test_groups_are_handed_over_as_names_or_numbers():
    data = made([3, 2])
    given = with_groups_of(data, ["p2", "p1", "p2", "p1", "p3"])
    assert given.groups.tolist() == [1, 0, 1, 0, 2]
    assert with_groups_of(data, torch.tensor([7, 5, 7, 5, 9])).groups.tolist() == [1, 0, 1, 0, 2]
    with pytest.raises(DataError, match="groups: found 4, expected one for each of the 5 images"):
        with_groups_of(data, range(4))
    with pytest.raises(DataError, match="groups: found a single one, expected one for each"):
        with_groups_of(data, 3)


def test_pools_share_no_group_and_depend_on_no_seed():
    data = made([90, 45, 30], random_groups(165, 40, 1))
    cut = pools(data)
    assert not shared([x.rows for x in cut.values()], data.groups)
    assert sum(len(x) for pool in cut.values() for x in pool.rows) == 165
    again = pools(data)
    assert all(torch.equal(torch.cat(cut[name].rows), torch.cat(again[name].rows)) for name in cut)
    official = made([20, 20], torch.arange(40) // 2, test=4)
    assert sorted(torch.cat(pools(official)["test"].rows).tolist()) == list(range(32, 40))
    torn = made([20, 20], torch.zeros(40, dtype=torch.int64), test=4)
    with pytest.raises(DataError, match="1 group have images in the official test split and in"):
        pools(torn)


def test_a_group_on_both_sides_of_an_official_split_is_named(tmp_path):
    data = made([20, 20], test=4)
    path = tmp_path / "g.csv"
    path.write_text("\n".join(f"{i},p{i % 33}" for i in range(40)))
    with pytest.raises(DataError, match=r"g.csv: 7 groups \(p0, p1, p2, …\) have images both in"):
        with_groups(data, path)
    path.write_text("\n".join(f"{i},p{i // 4}" for i in range(40)))
    assert len(with_groups(data, path).groups.unique()) == 10


def test_images_of_one_name_in_two_parts_are_told_apart(tmp_path):
    data = replace(
        made([2, 2], test=1),
        files=("train/a/0.png", "train/b/0.png", "test/a/0.png", "test/b/1.png"),
    )
    path = tmp_path / "g.csv"
    lines = ["train/a/0.png,1", "/else/train/b/0.png,1", "test/a/0.png,2", "b/1.png,2"]
    path.write_text("\n".join(lines))
    assert with_groups(data, path).groups.tolist() == [0, 0, 1, 1]
    path.write_text("\n".join(["a/0.png,1", *lines]))
    with pytest.raises(DataError, match=r"not in made \(a/0.png\).*where several files have one"):
        with_groups(data, path)


def test_tasks_of_a_family_with_groups_keep_them_whole(monkeypatch, tmp_path):
    data = made([60, 30], torch.zeros(90, dtype=torch.int64))
    lines = [f"{name},{i // 3}" for i, name in enumerate(data.files)]
    (tmp_path / "g.csv").write_text("\n".join(["image,group", *lines]))
    monkeypatch.setattr(episodic, "load", lambda name, options: data)
    table = {"dataset": "made", "ways": 2, "shots": 2, "val": 3, "groups": str(tmp_path / "g.csv")}
    opened = episodic.open_episodes(episodic_family.of(table, "made", "made.toml"))
    for pool in ("train", "validation", "test"):
        tasks = opened.sample([Stream(t) for t in range(20)], pool)
        for train, val in zip(tasks.train.rows, tasks.val.rows, strict=True):
            assert not set((train // 3).tolist()) & set((val // 3).tolist())
    assert any(name.startswith("groups") for name in opened.fingerprints())


# --- the file ---


def test_an_image_is_named_by_file_by_class_and_file_by_path_or_by_row(tmp_path):
    data = made([3, 2])
    file = tmp_path / "g.csv"
    file.write_text("file,patient\n0.png,p1\na/1.png,p2\n/data/x/a/2.png,p1\n3,p3\n\n 4 , p3 \n")
    assert with_groups(data, file).groups.tolist() == [0, 1, 0, 2, 2]
    assert with_groups(data, "") is data


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a/0.png,p\na/1.png,p", "3 of 5 images have no group (a/2.png, b/3.png, b/4.png)"),
        ("a/0.png,p\na/9.png,p\n7,p", "2 lines of images that are not in made (a/9.png, 7)"),
        ("a/0.png,p\n0.png,q", "line 2: 0.png is in two groups, expected one"),
        ("a/0.png", "line 1: expected an image, a comma and its group"),
        ("a/0.png,", "line 1: expected an image, a comma and its group"),
        (None, "groups: No such file or directory, expected a CSV file"),
    ],
)
def test_what_is_wrong_with_a_file_of_groups_is_said(text, words, tmp_path):
    file = tmp_path / "g.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DataError) as caught:
        with_groups(made([3, 2]), file)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the folds of a recommendation ---


def folds_of(monkeypatch, tmp_path, data, group_of, **changes):
    lines = [f"{name},{group_of(i)}" for i, name in enumerate(data.files)]
    (tmp_path / "g.csv").write_text("\n".join(lines))
    monkeypatch.setattr(folds, "load", lambda name, options: data)
    number = changes.pop("folds", None)
    table = {"groups": str(tmp_path / "g.csv"), **changes}
    return folds.make_folds("folder:scans", table, Stream(0), folds=number)


def test_folds_and_their_tasks_keep_groups_whole(monkeypatch, tmp_path):
    cut = folds_of(monkeypatch, tmp_path, made([40, 16, 10]), lambda i: i // 2)
    groups = cut.dataset.groups
    assert cut.folds == 5
    assert not shared(cut.parts, groups)
    for episodes, pool in zip(
        cut.fold(1, torch.device("cpu")), ("validation", "test"), strict=True
    ):
        tasks = episodes.sample([Stream(t) for t in range(20)], pool)
        for train, val in zip(tasks.train.rows, tasks.val.rows, strict=True):
            assert not set(groups[train].tolist()) & set(groups[val].tolist())


def test_a_class_of_few_groups_makes_fewer_folds_or_is_refused(monkeypatch, tmp_path):
    data = made([40, 16, 12])
    few = folds_of(monkeypatch, tmp_path, data, lambda i: i // 4)
    assert few.folds == 3
    with pytest.raises(
        DataError, match="the images of c are of 3 groups, and 5 folds need 5, one in each: add"
    ):
        folds_of(monkeypatch, tmp_path, data, lambda i: i // 4, folds=5)
    with pytest.raises(DataError, match="of 1 group, and 3 folds need 3, one in each: add images"):
        folds_of(monkeypatch, tmp_path, data, lambda i: i if i < 56 else "one")
