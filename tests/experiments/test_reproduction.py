"""A paper's table stands beside ours, and says what was not run."""

import json

import pytest
from test_run_folder import only_the_subset

from metaloss.errors import SettingsError
from metaloss.experiments import reproduction
from metaloss.experiments.reproduction import published
from metaloss.tasks import family_files

TINY = {"tuning_tasks": 2, "test_tasks": 4, "curve_tasks": 2, "rates": (0.1, 0.5), "val": 10}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)


def test_ours_stands_beside_the_printed_numbers_and_what_was_not_run_is_named():
    found = reproduction.reproduce("mln", **TINY)
    rows = {row["loss"]: row for row in found.rows}
    assert list(rows) == ["mln-fashionmnist", "ce", "mse"]
    assert [rows[x]["printed"] for x in rows] == [0.646, 0.5922, 0.4807]
    assert [rows[x]["printed_as"] for x in rows] == ["mln", "ce", "mse"]
    assert list(found.missing) == ["cifar10"]
    assert "not found" in found.missing["cifar10"]
    text = "\n".join(reproduction.lines(found))
    assert "59.2 ± 4.7 %" in text
    assert "not run: cifar10" in text
    assert "chose its network on the tasks it reports" in text


def test_ours_is_what_the_comparison_found_at_one_rate_and_tuned():
    found = reproduction.reproduce("mln", **TINY)
    for row, other in zip(found.rows, found.report.table, strict=True):
        assert (row["one_rate"], row["tuned"]) == (
            other["plain"]["accuracy"],
            other["at"]["accuracy"],
        )
        assert row["lr"] == other["setting"]["lr"]
    assert found.rows[2]["tuned"] > found.rows[2]["one_rate"], (
        "mse needs a larger rate than cross-entropy"
    )


def test_any_loss_may_stand_for_the_paper_s_own():
    found = reproduction.reproduce("mln", loss="focal(gamma=2)", **TINY)
    assert found.rows[0]["loss"] == "focal(gamma=2)"
    assert found.rows[0]["printed_as"] == "mln"
    assert json.loads(json.dumps(found.plain()))["rows"][0]["printed"] == 0.646


def test_the_families_of_every_table_are_those_of_the_package():
    tables = [published.read(name) for name in reproduction.names()]
    episodes = [table for table in tables if isinstance(table, published.EpisodesTable)]
    assert len(episodes) == 1
    for table in episodes:
        assert set(table.printed) <= family_files.names().keys()
        assert all(table.evolved in row for row in table.printed.values())


def test_an_unknown_table_is_refused_with_those_that_are_known():
    with pytest.raises(SettingsError, match=r"unknown table 'mlm'. Did you mean 'mln'"):
        reproduction.reproduce("mlm")
