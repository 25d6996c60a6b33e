"""A search by a metric: what families may name, and that all of a run follows it."""

import pytest
from test_run_folder import SMALL, TINY, only_the_subset, without_plots
from test_run_folder import family as small_family

from metaloss.core.metric_scale import MetricScale
from metaloss.errors import SettingsError
from metaloss.search import program, settings
from metaloss.search.run_folder import find
from metaloss.tasks import episodic_family, opening

FAMILY = {"dataset": "digits", "ways": 3, "shots": 2, "val": 4, "inner": {"steps": 3}}
COSTS = "," + ",".join("0123456789") + "\n"
COSTS += "".join(f"{i}," + ",".join(str(abs(i - j)) for j in range(10)) + "\n" for i in range(10))


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)
    monkeypatch.setattr("metaloss.evaluation.metric_resamples.COUNTED", 20)
    monkeypatch.setattr("metaloss.evaluation.metric_resamples.RANKED", 20)


def family(**changes):
    return episodic_family.of({**FAMILY, **changes}, "digits", "digits.toml")


def test_a_family_names_a_metric_and_holds_all_its_settings(tmp_path):
    assert family().metric is None
    assert family(metric="accuracy").metric is None
    assert family(metric="macro_f1").metric == {"kind": "macro_f1"}
    recall = family(metric={"kind": "recall_at_precision", "of": "3"}).metric
    assert recall == {"kind": "recall_at_precision", "at": 0.9, "of": "3"}
    path = tmp_path / "costs.csv"
    path.write_text(COSTS)
    cost = family(metric={"kind": "cost", "matrix": str(path)})
    path.unlink()
    assert family(metric=cost.metric) == cost
    assert ("metrics", "cost") in cost.parts


@pytest.mark.parametrize(
    ("metric", "line"),
    [
        ("macro-f1", "digits.toml: metric: unknown metric 'macro-f1'. Did you mean 'macro_f1'?"),
        ({"kind": "ece", "bin": 3}, "digits.toml: metric: unknown setting 'bin'. Did you mean"),
        ({"at": 0.5}, "digits.toml: metric: needs a kind, one of accuracy, "),
        (7, "digits.toml: metric: expected the name of a metric, or a table"),
    ],
    ids=["name", "setting", "kind", "number"],
)
def test_what_is_no_metric_is_refused_in_one_line(metric, line):
    with pytest.raises(SettingsError) as caught:
        family(metric=metric)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_families_of_one_search_have_one_metric(tmp_path):
    for name, metric in (("a", "auroc"), ("b", "mcc")):
        text = 'dataset = "digits"\nways = 3\nshots = 2\nval = 4\n'
        (tmp_path / f"{name}.toml").write_text(f'{text}metric = "{metric}"\n')
    paths = [str(tmp_path / f"{name}.toml") for name in "ab"]
    with pytest.raises(SettingsError, match="scored by one metric; a has auroc, b has mcc"):
        settings.resolve({"tasks": paths})
    both = settings.resolve({"tasks": paths, "metric": "cost"})
    assert both.metric["kind"] == "cost"
    assert not both.maximise


def test_a_metric_that_does_not_fit_the_classes_is_refused_before_any_training(tmp_path):
    table = {**SMALL, "tasks": ["digits"], "ways": 3}
    recall = {"kind": "recall_at_precision", "of": "3"}
    with pytest.raises(SettingsError, match="needs tasks of all 10 classes"):
        program.start(settings.resolve({**table, "metric": recall}), tmp_path)
    assert not list(tmp_path.glob("*mln*"))


@pytest.mark.parametrize("metric", ["auroc", "cost"])
def test_a_search_by_a_metric_is_shown_in_its_own_sign_with_accuracy_beside_it(metric, tmp_path):
    table = {"kind": "cost", "matrix": str(tmp_path / "costs.csv")} if metric == "cost" else metric
    (tmp_path / "costs.csv").write_text(COSTS)
    path = small_family(tmp_path, "small", TINY.replace("fashionmnist", "digits"))
    chosen = settings.resolve({**SMALL, "tasks": [path], "metric": table})
    result = program.start(chosen, tmp_path)
    scale = MetricScale.of(result.summary)
    assert (scale.kind, scale.maximise) == (metric, metric == "auroc")
    (row,) = result.summary["test"].values()
    for reached in (row, row["ce"], row["ce_steps"]):
        assert 0 <= reached["accuracy"] <= 1
        assert 0 <= reached[metric] <= (1 if metric == "auroc" else 9)
    gain = row["ce"]["gain"]
    assert gain["mean"] == pytest.approx(row[metric] - row["ce"][metric], abs=1e-6)
    assert row["ce"]["low"] <= gain["mean"] <= row["ce"]["high"]
    better = max if scale.maximise else min
    assert all(better(r["best"], r["mean"]) == r["best"] >= 0 for r in result.history)
    assert find(result.folder).settings == chosen


def test_a_long_tail_replaces_a_share_of_the_data_and_a_share_a_long_tail():
    family = opening.of({"dataset": "digits", "ways": 10, "shots": 5, "val": 15}, "one", "one")
    share = settings.changed(family, {"shots": {"kind": "as-is", "share": 0.1}})
    tail = settings.changed(share, {"shots": {"most": 20, "least": 2}})
    assert str(tail.shots) == "{ most = 20, least = 2 }"
    assert settings.changed(tail, {"shots": {"least": 4}}).shots.most == 20
    assert settings.changed(tail, {"shots": {"share": 0.1}}).shots == share.shots
