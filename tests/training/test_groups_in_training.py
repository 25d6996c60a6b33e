"""Groups of images, such as patients, in `train`: whole in one share, counted in its intervals."""

import json
from dataclasses import replace

import pytest
import torch
from small_trainings import SMALL, Noted, without_curves, without_pauses

import metaloss
from metaloss.core.proportions import wilson
from metaloss.core.streams import Stream
from metaloss.data.groups import digest_of_groups
from metaloss.errors import DataError, Interrupted, SettingsError
from metaloss.tasks.held_out_halves import halve
from metaloss.training import cautions
from metaloss.training.measurement import Predictions
from metaloss.training.shares import split_shares


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_pauses(monkeypatch)
    without_curves(monkeypatch)


@pytest.fixture
def patients(shapes):
    """The images, three of one class and patient, no official test split."""
    groups = torch.arange(len(shapes.labels)) // 3
    return replace(shapes, test=torch.zeros_like(shapes.test), groups=groups)


def of_class(dataset, label, groups):
    """The data set with other groups of a class, each with as many images."""
    own = dataset.labels == label
    changed = dataset.groups.clone()
    changed[own] = 1000 + torch.arange(int(own.sum())) % groups
    return replace(dataset, groups=changed)


# --- shares ---


def test_no_group_is_in_two_shares_and_the_share_follows_the_seed(patients):
    drawn = []
    for seed in range(5):
        shares = split_shares(patients, 0.2, Stream(seed))
        groups = [set(patients.groups[x].tolist()) for x in vars(shares).values()]
        assert sum(map(len, groups)) == len(set.union(*groups)) == 40
        for rows in vars(shares).values():
            assert patients.labels[rows].bincount(minlength=4).min() > 0
        held = patients.labels[shares.validation].bincount(minlength=4)
        assert held.max() <= 6, "a fifth of 24 in whole groups of 3"
        drawn.append(shares.validation.tolist())
    assert drawn[0] == split_shares(patients, 0.2, Stream(0)).validation.tolist()
    assert len(set(map(tuple, drawn))) > 1


def test_three_groups_of_a_class_are_enough_and_are_shared_out(patients):
    few = of_class(patients, 2, 3)
    shares = split_shares(few, 0.1, Stream(0))
    for rows in vars(shares).values():
        assert len(few.groups[rows[few.labels[rows] == 2]].unique()) == 1


@pytest.mark.parametrize("number", [1, 2])
def test_a_class_of_too_few_groups_is_named_with_what_is_needed(patients, number):
    with pytest.raises(DataError) as caught:
        split_shares(of_class(patients, 2, number), 0.2, Stream(0))
    said = str(caught.value)
    assert "groups are whole in one share, and leave no image of 'c' to t" in said
    assert f"are of {number} group" in said
    assert f"At least 3 are needed: add images of {3 - number} more, or leave the class out" in said


def test_beside_an_official_test_split_two_groups_do_or_none_is_held_out(shapes):
    groups = torch.arange(len(shapes.labels)) // 3
    official = replace(shapes, groups=groups)
    one = official.labels.eq(1) & ~official.test
    alone = replace(official, groups=groups.masked_fill(one, 999))
    with pytest.raises(DataError) as caught:
        split_shares(alone, 0.2, Stream(0))
    assert (
        "no image of 'b' to validate on: its images outside the official test split are of 1 "
        in (str(caught.value))
    )
    assert "or hold out none to validate on (--set validation=0)" in str(caught.value)
    shares = split_shares(alone, 0.0, Stream(0))
    assert len(shares.validation) == 0
    assert torch.equal(shares.test, shapes.test.nonzero()[:, 0])


def test_groups_that_hold_most_of_several_classes_are_refused(patients):
    # Three hospitals, two of which have all images of two classes.
    mixed = replace(patients, groups=torch.tensor([0, 1, 1, 2])[patients.labels])
    with pytest.raises(DataError, match="leave no image of"):
        split_shares(mixed, 0.2, Stream(0))


def test_halves_of_what_is_held_out_share_no_group(patients):
    rows = torch.arange(120)
    first, second = halve(rows, patients, Stream(0))
    assert sorted([*first.tolist(), *second.tolist()]) == rows.tolist()
    assert not set(patients.groups[first].tolist()) & set(patients.groups[second].tolist())
    with pytest.raises(DataError, match="class 'c': images of 1 group are held out, and fitness"):
        halve(rows, of_class(patients, 2, 1), Stream(0))


# --- a training ---


def test_a_training_counts_groups_and_says_so(patients, network):
    noted = Noted()
    fits = metaloss.fit_all(["ce"], network, patients, seeds=2, reporter=noted, **SMALL)
    counts = fits.summary["groups"]
    assert sum(counts.values()) == 40
    (line,) = [x for x in noted.lines if x.startswith("groups  ")]
    assert f"{counts['test']} to test, each whole in one share" in line
    assert any("images to validate on are of " in x for x in noted.warned) == (
        counts["validation"] < cautions.GROUPS
    )
    (row,) = fits.table
    tests = patients.labels[split_shares(patients, 0.2, Stream(0)).test].bincount()
    for name, n in zip("abcd", tests.tolist(), strict=True):
        size = row["independent_images"][name]
        assert n / 3 <= size <= n
        assert row["recall_interval"][name] == pytest.approx(wilson(row["recall"][name], size))
    page = (fits.folder / "report.html").read_text()
    assert "images of one group count the less the more alike" in page
    assert f"{counts['train']} + {counts['validation']} + {counts['test']} groups" in page
    about = json.loads((fits.folder / "provenance.json").read_text())
    digest = digest_of_groups(patients.groups)
    assert about["data"]["groups"] == {**counts, "sha256": digest}
    assert about["conditions"]["groups"] == digest


def test_without_groups_nothing_is_said_of_them(shapes, network):
    noted = Noted()
    fits = metaloss.fit_all(["ce"], network, shapes, reporter=noted, **SMALL)
    assert not [x for x in (*noted.lines, *noted.warned) if "group" in x]
    assert "group" not in (fits.folder / "report.html").read_text().partition("How to repeat")[0]
    assert "independent_images" not in fits.table[0]
    assert not (fits.folder / "groups.json").exists()


def test_thresholds_change_how_many_images_count(patients):
    logits = torch.zeros(24, 2)
    logits[:, 0] = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(6)
    seen = Predictions(logits, torch.zeros(24).long(), 0.5, torch.arange(24) // 4)
    mixed, all_right = seen.measured(), seen.shifted(torch.tensor([5.0, 0.0])).measured()
    assert mixed.independent[0] > all_right.independent[0] == pytest.approx(6)
    assert mixed.independent[1] == 0, "there is no image of the class"


@pytest.mark.parametrize("given", ["names", "file"])
def test_groups_are_handed_over_or_named_and_a_resumed_training_keeps_them(
    patients, network, tmp_path, given
):
    names = [f"patient {g:02}" for g in patients.groups.tolist()]
    if given == "file":
        place = tmp_path / "patients.csv"
        place.write_text("".join(f"{row},{name}\n" for row, name in enumerate(names)))
        groups = place
    else:
        groups = names
    plain = replace(patients, groups=None)
    whole = metaloss.fit("ce", network, plain, groups=groups, **SMALL)
    calls = []
    with pytest.raises(Interrupted):
        metaloss.fit(
            "ce",
            network,
            plain,
            groups=groups,
            stop=lambda: calls.append(0) or len(calls) == 7,
            **SMALL,
        )
    folder = whole.folder.with_name("shapes-given-ce-2")
    if given == "file":
        place.unlink()
    metaloss.fit(resume=folder, model=network, data=plain)
    for name in ("summary.json", "epochs.csv", "model-0.safetensors", "results.csv"):
        assert (folder / name).read_bytes() == (whole.folder / name).read_bytes()
    with pytest.raises(SettingsError, match="keeps its settings: groups"):
        metaloss.fit(resume=folder, model=network, data=plain, groups="others.csv")


def test_other_groups_are_other_conditions(patients, network):
    names = patients.groups.tolist()
    plain = replace(patients, groups=None)
    fitted = metaloss.fit("ce", network, plain, groups=names, **SMALL)
    again = {"resume": fitted.folder, "model": network, "data": plain}
    metaloss.fit(groups=names, **again)
    with pytest.raises(SettingsError, match="groups"):
        metaloss.fit(groups=[g // 2 for g in names], **again)


def test_groups_must_be_one_an_image_and_on_one_side_of_an_official_split(shapes, network):
    with pytest.raises(DataError, match="groups: found 5, expected one for each of the 120 images"):
        metaloss.fit("ce", network, shapes, groups=range(5), **SMALL)
    with pytest.raises(DataError, match=r"groups: 1 group \(0\) has images both in the official"):
        metaloss.fit("ce", network, shapes, groups=[0] * 120, **SMALL)
