"""A guard: what lies too far behind cross-entropy by another metric cannot win."""

import math
import tomllib

import pytest
import torch
from test_run_folder import SMALL, code, only_the_subset, without_plots
from test_run_folder import family as small_family
from trees import population

from metaloss.console import text as console_text
from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.errors import SettingsError
from metaloss.evaluation.family_evaluation import FamilyEvaluation
from metaloss.evaluation.guard import BEHIND, Guard, guard_lines
from metaloss.evaluation.protocol import LossEvaluation
from metaloss.losses import zoo
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.search import objectives, program, settings
from metaloss.search.election import choose_winner
from metaloss.search.finalists import Finalists, size_front
from metaloss.search.run_folder import find
from metaloss.search.trained_losses import TrainedLosses
from metaloss.tasks import episodic, episodic_family

NAN = float("nan")
FAMILY = {"dataset": "digits", "ways": 3, "shots": 2, "val": 4, "inner": {"steps": 3}}
# Columns of four candidates on the tasks of two families: score and accuracy.
MEASURED = torch.tensor(
    [
        [[0.9, 0.50], [0.9, 0.50], [0.9, 0.50]],
        [[0.5, 0.59], [0.5, 0.59], [0.5, 0.59]],
        [[0.8, 0.40], [0.8, 0.40], [0.8, 0.60]],
        [[0.7, NAN], [NAN, 0.60], [0.7, 0.60]],
    ]
)
BASELINE = torch.tensor([[0.6, 0.60], [0.6, 0.60], [0.6, 0.60]])
INDEX = torch.tensor([0, 0, 1])
TREE = registry.build("genomes", {"kind": "tree", "min_height": 1})


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)
    monkeypatch.setattr("metaloss.evaluation.metric_resamples.COUNTED", 20)


def opened(**changes):
    family = episodic_family.of({**FAMILY, **changes}, "digits", "digits.toml")
    return episodic.open_episodes(family)


# --- what it measures ---


def test_the_excess_is_what_a_mean_over_families_lies_further_behind_than_it_may():
    two = Guard({"accuracy": 2.0}).excess(MEASURED, BASELINE, INDEX)
    # The third is 20 points behind on one family and level on the other one.
    assert two.tolist() == pytest.approx([8, 0, 8, 13], abs=1e-4)
    assert Guard({"accuracy": 20.0}).excess(MEASURED, BASELINE, INDEX)[:3].tolist() == [0, 0, 0]


def test_metrics_of_other_units_and_directions_are_guards_too():
    # Scores of nll, in nats, say how much better a value is.
    measured = torch.tensor([[[0.5, 0.60, 14.0]], [[0.5, 0.55, 15.5]]])
    baseline = torch.tensor([[0.5, 0.60, 15.0]])
    guard = Guard({"accuracy": 1.0, "nll": 0.25})
    excess = guard.excess(measured, baseline, torch.tensor([0]))
    assert excess.tolist() == pytest.approx([0.75, 4], abs=1e-4)


@pytest.mark.parametrize("metric", ["macro_f1", None])
def test_the_first_column_is_the_score_and_the_others_are_the_guard_s_metrics(metric):
    family = opened(**({"metric": metric} if metric else {}))
    losses = Formulas.of([zoo.read("ce"), zoo.read("mse"), Formula.parse("1e30*-y*logp")])
    with Local() as engine:

        def scores(episodes, beside=()):
            evaluation = FamilyEvaluation(engine, episodes, Stream(0))
            return evaluation.scores(losses, "train", Stream(1), 5, beside=beside)[0]

        columns = scores(family, ("accuracy", "worst_recall"))
        alone = [scores(x) for x in (family, opened(), opened(metric="worst_recall"))]
    assert columns.shape == (3, 5, 3)
    torch.testing.assert_close(columns, torch.stack(alone, -1), equal_nan=True)
    assert columns[2].isnan().all()
    if metric:
        assert torch.equal(columns[:2, :, 0], alone[0][:2])


# --- what it decides ---


def test_what_is_outside_ranks_behind_all_that_is_not_and_failures_last():
    objective = objectives.guarded(objectives.mean, Guard({"accuracy": 2.0}))
    fitness = objective(MEASURED, INDEX, BASELINE)
    assert fitness[1] == objectives.mean(MEASURED[..., 0], INDEX)[1]
    assert fitness.argsort(descending=True, stable=True)[0] == 1
    assert fitness[0].item() == pytest.approx(BEHIND - 8)
    assert fitness[3] == -math.inf
    assert Guard.outside(fitness).tolist() == [True, False, True, False]
    nearer = MEASURED.clone()
    nearer[0, :, 1] += 1e-3
    assert objective(nearer, INDEX, BASELINE)[0] > fitness[0], "also among themselves"


def election(guard, measured=MEASURED):
    class Known(LossEvaluation):
        def beside_baselines(self, losses, baselines, pool, role, tasks, first=0):
            assert (pool, role) == ("validation", "winner")
            return measured, BASELINE

        def kind_index(self, tasks, key, first=0):
            return INDEX

    texts = ("-y*logp", "-y*p", "-y*sqrt(p)", "-y*sqrt(sqrt(p))")
    formulas = tuple(map(Formula.parse, texts))
    stands = Finalists(TREE, population(TREE, *texts[1:]), formulas, list("abcd"))
    with Local() as engine:
        return stands, choose_winner(stands.losses, Known(engine, (), Stream(0), guard), 2)


def test_the_winner_is_the_best_within_the_guard_or_else_the_nearest_to_it():
    assert election(Guard({"accuracy": 20.0}))[1].row == 0
    stands, elected = election(Guard({"accuracy": 2.0}))
    assert elected.row == 1
    assert elected.all_outside.tolist() == [True, False, True, True]
    assert not elected.outside
    front = size_front(stands, elected.reached, outside=elected.all_outside)
    assert [row["formula"] for row in front] == [str(stands.formulas[1])]
    nearest = election(Guard({"accuracy": 0.0}))[1]
    assert (nearest.row, nearest.outside) == (1, True), "one point, of 10, 10 and more"


def test_a_formula_that_was_outside_does_not_stand_for_what_it_reached():
    losses = [("sum(-y*p)", 0.9), ("sum(-y*logp)", 0.6)]
    record = {"generation": 1, "losses": losses, "control": 0.5}
    trained = TrainedLosses(TREE.filters, [{**record, "outside_losses": ["sum(-y*p)"]}])
    assert list(map(str, trained.best(5))) == [str(Formula.parse("sum(-y*logp)"))]
    assert len(TrainedLosses(TREE.filters, [record]).best(5)) == 2


# --- a search with one ---


def test_a_search_with_a_guard_says_whether_its_winner_keeps_it(tmp_path, capsys):
    path = small_family(tmp_path)
    changes = {"metric": "macro_f1", "guard": {"accuracy": 100.0, "nll": 0.0}}
    chosen = settings.resolve({**SMALL, "tasks": [path], **changes})
    result = program.start(chosen, tmp_path / "runs")
    assert find(result.folder).settings == chosen
    table = result.summary["guard"]
    assert table["allowed"] == {"accuracy": 100.0, "nll": 0.0}
    (rows,) = table["test"].values()
    assert rows["accuracy"]["kept"]
    assert rows["nll"]["kept"] == (rows["nll"]["winner"] <= rows["nll"]["ce"])
    (row,) = result.summary["test"].values()
    assert rows["accuracy"]["winner"] == pytest.approx(row["accuracy"])
    assert rows["accuracy"]["ce"] == pytest.approx(row["ce"]["accuracy"])
    assert all(0 <= record["outside"] <= record["candidates"] for record in result.history)
    lines = console_text.summary_lines(result.summary)
    assert [x for x in lines if x.startswith("guard   kept on tiny: accuracy ")]
    assert guard_lines(result.summary)[0] in (result.folder / "loss" / "card.md").read_text()


def test_a_guard_that_all_keep_changes_nothing_but_what_it_tells(tmp_path):
    path = small_family(tmp_path)
    plain, guarded = (
        program.evolve(path, out=tmp_path / name, metric="macro_f1", **SMALL, **more)
        for name, more in (("plain", {}), ("guarded", {"guard": {"accuracy": 100.0}}))
    )
    assert [{**x, "outside": 0} for x in plain.history] == guarded.history
    assert plain.summary["test"] == guarded.summary["test"]
    assert plain.summary["choice"] == guarded.summary["choice"]
    assert "guard" not in plain.summary
    assert "guard" not in tomllib.loads((plain.folder / "config.toml").read_text())


def test_the_command_takes_a_guard_and_says_so(tmp_path, capsys):
    config = tmp_path / "search.toml"
    config.write_bytes(
        settings.toml(settings.resolve({**SMALL, "tasks": [small_family(tmp_path)]}))
    )
    flags = ["--config", config, "--set", "guard.accuracy=2.0", "--out", tmp_path]
    assert code("evolve", *flags) == 0
    printed = capsys.readouterr().out
    assert (
        "guard   at most behind tuned cross-entropy: accuracy by 2 points; what is further behind "
        "ranks last" in printed
    )
    assert "guard   kept on tiny: " in printed or "guard   NOT kept on tiny: " in printed


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        ({"acuracy": 2.0}, "guard: unknown metric 'acuracy'. Did you mean 'accuracy'?"),
        ({"accuracy": -1.0}, "guard.accuracy"),
        (2.0, "as guard.accuracy=2.0, got 2.0"),
        ("accuracy", "as guard.accuracy=2.0, got 'accuracy'"),
        ("mcc", "as guard.mcc=2.0, got 'mcc'"),
        ("well", "as guard.accuracy=2.0, got 'well'"),
    ],
)
def test_what_is_no_guard_is_refused_in_one_line(guard, words):
    with pytest.raises(SettingsError) as caught:
        settings.resolve({"guard": guard})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
