"""Losses by name, and random formulas: as many as asked for, all different, the same every time."""

import pytest

from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.experiments.rank_study.candidates import drawn, read
from metaloss.genomes._filters import examine

KEY = Stream(1)


@pytest.mark.parametrize("kind", ["graph", "tree"])
def test_random_formulas_pass_the_filters_and_are_a_function_of_the_seed(kind):
    found = drawn(5, {"kind": kind}, KEY)
    assert len({str(x) for x in found}) == 5
    assert all(
        examine(x.expression, registry.build("genomes", {"kind": kind}, "genome").filters).reason
        == 0
        for x in found
    )
    assert drawn(5, {"kind": kind}, KEY) == found
    assert drawn(5, {"kind": kind}, KEY.at("other")) != found


def test_names_formulas_and_random_ones_go_together():
    found = read(["ce", " -y * (1 - p) * logp ", "random:2"], "runs", {"kind": "graph"}, KEY)
    assert list(found)[:2] == ["ce", "-y * (1 - p) * logp"]
    assert len(found) == 4
    assert list(found)[2:] == [str(x) for x in drawn(2, {"kind": "graph"}, KEY)]


@pytest.mark.parametrize(
    ("specs", "genome", "message"),
    [
        (["ce", "random:2"], "mln", "genome 'mln' draws no formulas"),
        (["random:0"], "graph", "no loss 'random:0'"),
        (["random:2", "random:2"], "graph", "is given twice"),
    ],
)
def test_what_cannot_be_in_a_study_is_refused(specs, genome, message):
    assert genome in registry.names("genomes")
    with pytest.raises(SettingsError, match=message):
        read(specs, "runs", {"kind": genome}, KEY)
