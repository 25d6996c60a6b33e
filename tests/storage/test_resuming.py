"""A job goes on in its folder under the settings and the conditions that it had."""

import pytest

from metaloss import storage
from metaloss.errors import SettingsError
from metaloss.storage.resuming import ResumableFolder, differing_keys


@pytest.fixture
def folder(tmp_path):
    table = {"conditions": {"torch": "1", "data": "a"}, "command": ["x"]}
    storage.write_record(tmp_path / "provenance.json", table)
    return ResumableFolder(tmp_path, "training")


def test_keys_differ_by_their_values_and_where_one_table_lacks_them():
    assert differing_keys({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "d": 4}) == ["b", "c", "d"]


def test_settings_that_differ_are_named_save_those_that_may(folder):
    folder.check_settings({"a": 1, "b": 2}, {"a": 1, "b": 3}, ("b",))
    with pytest.raises(SettingsError, match="a resumed training keeps its settings: b: it has 2, "):
        folder.check_settings({"a": 1, "b": 2}, {"a": 1, "b": 3})


def test_equal_conditions_write_nothing(folder):
    before = (folder.path / "provenance.json").read_bytes()
    assert folder.check_conditions({"torch": "1", "data": "a"}, allow=False) == ""
    assert (folder.path / "provenance.json").read_bytes() == before


def test_other_conditions_are_refused_until_allowed_and_then_count_as_the_last(folder):
    now = {"torch": "2", "data": "a"}
    with pytest.raises(SettingsError, match=r"this training began elsewhere \(torch: was 1, is 2"):
        folder.check_conditions(now, allow=False)
    assert folder.check_conditions(now, allow=True) == "torch: was 1, is 2"
    assert folder.check_conditions(now, allow=False) == ""
    table = storage.read_record(folder.path / "provenance.json")
    assert table["resumed"] == [now]
    assert table["conditions"] == {"torch": "1", "data": "a"}
    assert table["command"] == ["x"]
