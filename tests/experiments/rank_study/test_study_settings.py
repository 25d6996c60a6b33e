"""What a setting says in a line or in a table, and what it must not say."""

import pytest

from metaloss.errors import SettingsError
from metaloss.experiments.rank_study.settings import read, resolve


def test_a_line_means_a_table():
    found = read("tasks:fashionmnist,inner.steps=40,classifier.kind=cnn,rates=[0.1,1]")
    assert (
        found.pop("name") == "tasks:fashionmnist,inner.steps=40,classifier.kind=cnn,rates=[0.1,1]"
    )
    expected = {"inner": {"steps": 40}, "classifier": {"kind": "cnn"}, "rates": [0.1, 1]}
    assert found == {"kind": "tasks", "family": "fashionmnist", **expected}


def test_a_line_of_a_training_may_name_its_augmentation_and_itself():
    found = read("train: model=convnet, augment=cutout,augment.patch=4,rates=0.1,name=short")
    expected = {"augment": {"kind": "cutout", "patch": 4}, "rates": [0.1], "name": "short"}
    assert found == {"kind": "train", "model": "convnet", **expected}


def test_a_table_gets_a_name_and_stays_as_it_is():
    table = {"kind": "tasks", "family": "folder:scans", "inner": {"steps": 3}}
    found = read(table)
    assert found == {**table, "name": "tasks:folder:scans,inner={'steps': 3}"}
    assert read(found) == found


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "fashionmnist",
            "a setting is 'tasks:FAMILY' or 'train:data=NAME,…', or such a table, "
            "got 'fashionmnist'",
        ),
        ({"kind": "x"}, "a setting is 'tasks:FAMILY'"),
        (3, "a setting is 'tasks:FAMILY'"),
        ("tasks:", "names no task family"),
        ("train:convnet", "expected name=value between commas, got 'convnet'"),
        ("train:loss=ce", "has a loss of its own; that is the study's"),
    ],
)
def test_what_is_no_setting_is_refused(spec, message):
    with pytest.raises(SettingsError, match=message.replace("(", r"\(")):
        read(spec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": ()}, "give 1 or more losses, got 0"),
        ({"settings": ("tasks:digits",)}, "give 2 or more settings, got 1"),
        (
            {"settings": ("tasks:digits", "tasks:digits")},
            "the setting 'tasks:digits' is given twice",
        ),
        ({"losses": ("ce", "ce")}, "the loss 'ce' is given twice"),
        ({"bst": 3}, "unknown setting 'bst'. Did you mean 'best'?"),
        ({"best": 1}, "best: "),
    ],
)
def test_a_study_that_cannot_be_is_refused(changes, message):
    table = {"losses": ("ce", "mse"), "settings": ("tasks:digits", "train:data=digits"), **changes}
    with pytest.raises(SettingsError) as error:
        resolve(table)
    assert message in str(error.value)


def test_a_resolved_study_resolves_to_itself():
    study = resolve(
        {"losses": ["ce", "mse"], "settings": ["tasks:digits", "train:data=digits"], "rates": [0.1]}
    )
    assert resolve(study.table()) == study
