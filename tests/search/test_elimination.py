import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from test_report import check_vector
from test_run_folder import TINY, code, evolved, family, only_the_subset, tree, without_plots

import metaloss
from metaloss import console, storage
from metaloss.criterion import loss_io
from metaloss.errors import DamagedFile, Interrupted, RunInUse, SettingsError
from metaloss.evaluation import plots
from metaloss.evaluation.family_evaluation import FamilyEvaluation
from metaloss.evaluation.statistics import rank_correlation
from metaloss.search import elimination
from metaloss.search.run_folder import Run, find
from metaloss.tasks.episodic import Episodes

PARTS = {
    "genome": {"kind": "tree"},
    "strategy": {"kind": "gp", "mu": 6, "lambda_": 6},
    "generations": 2,
}
SMALL = {
    "start": 6,
    "stages": [
        {"keep": 4, "tasks": 2},
        {"keep": 2, "steps": 2, "tasks": 2},
        {"keep": 1, "scale": 2, "tasks": 2, "repeats": 2},
    ],
}
FLAGS = ("--start", 6, "--set", "stages=[{keep=4, tasks=2}, {keep=2, steps=2, tasks=2}]")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)
    monkeypatch.setattr(plots, "ranks", lambda *args: None)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        only_the_subset(patch, folder)
        without_plots(patch)
        patch.setattr(plots, "front", lambda *args: None)
        return evolved(folder, **PARTS).folder


@pytest.fixture
def run(searched, tmp_path):
    """A copy of a finished search for formulas."""
    return Path(shutil.copytree(searched, tmp_path / "runs" / searched.name))


def records(run):
    return [
        storage.read_record(path) for path in sorted((run / "elimination").glob("stage-*.json"))
    ]


def test_every_stage_scores_what_the_one_before_kept_and_keeps_the_best(run):
    metaloss.eliminate(run, changes=SMALL)
    found = records(run)
    best = [str(f) for f in elimination.candidates(find(run), 6)]
    assert [record["asked"]["losses"] for record in found] == [
        best,
        found[0]["kept"],
        found[1]["kept"],
    ]
    assert [len(record["kept"]) for record in found] == [4, 2, 1]
    for record in found:
        reached = dict(zip(record["asked"]["losses"], record["accuracy"], strict=True))
        dropped = reached.keys() - set(record["kept"])
        assert min(reached[text] for text in record["kept"]) >= max(
            (reached[text] for text in dropped), default=0
        )


def test_a_stage_may_rank_by_the_mean_of_those_before_it_too(run):
    stages = [
        {"keep": 5, "tasks": 2},
        {"keep": 3, "tasks": 2, "mean_of": 2},
        {"keep": 1, "tasks": 2, "mean_of": 3},
    ]
    result = metaloss.eliminate(run, changes={"start": 6, "stages": stages})
    reached = [dict(zip(x["asked"]["losses"], x["accuracy"], strict=True)) for x in records(run)]
    for number, record in enumerate(records(run)):
        worth = {
            text: sum(x[text] for x in reached[: number + 1]) / (number + 1)
            for text in record["asked"]["losses"]
        }
        assert record["worth"] == pytest.approx(list(worth.values()))
        assert record["kept"] == sorted(worth, key=lambda text: -worth[text])[: len(record["kept"])]
    assert result.summary["ranking"][0]["accuracy"] == pytest.approx(max(worth.values()))


@pytest.mark.parametrize(
    "stages",
    [
        [{"keep": 2, "mean_of": 2}],
        [{"keep": 3}, {"keep": 2, "steps": 2, "mean_of": 2}],
        [{"keep": 3}, {"keep": 2, "families": ["digits"], "mean_of": 2}],
    ],
)
def test_only_stages_of_one_budget_are_averaged(run, stages):
    with pytest.raises(
        SettingsError, match=r"mean_of = 2 needs as many stages up to it with the same families"
    ):
        metaloss.eliminate(run, changes={"start": 6, "stages": stages})


def test_the_candidates_are_the_best_of_the_whole_search_with_the_best_first(run):
    leads = {}
    for line in (run / "history.jsonl").read_text().splitlines():
        record = json.loads(line)
        for text, reached in record["losses"]:
            leads.setdefault(text, []).extend(
                [] if reached is None else [reached - record["control"]]
            )
    worth = {text: sum(found) / (len(found) + 1) for text, found in leads.items() if found}
    assert [str(f) for f in elimination.candidates(find(run), 3)] == sorted(
        worth, key=lambda text: -worth[text]
    )[:3]


def test_of_losses_that_are_one_in_other_words_the_best_begins(run, monkeypatch):
    same = [("sum(-y * logp)", 0.8), ("sum(y * (3.0 - logp))", 0.9), ("sum(-2.0 * y * logp)", 0.6)]
    other = [("sum(square(p - y))", 0.5), ("sum(square(y - p))", 0.4)]
    monkeypatch.setattr(Run, "history", lambda self: [{"losses": same + other, "control": 0.1}])
    found = [str(f) for f in elimination.candidates(find(run), 9)]
    assert found == ["sum(y * (3.0 - logp))", "sum(-2.0 * y * logp)", "sum(square(p - y))"], (
        "another scale is another loss"
    )
    assert [str(f) for f in elimination.candidates(find(run), 2)] == found[:2]


def test_the_winner_is_the_best_of_the_last_stage_and_loads(run):
    result = metaloss.eliminate(run, changes=SMALL)
    (winner,) = records(run)[-1]["kept"]
    for spec in (run / "elimination", run / "elimination" / "loss"):
        assert str(metaloss.load(spec).formula) == winner
    assert str(result.best.formula) == winner == result.summary["ranking"][0]["formula"]
    card = (run / "elimination" / "loss" / "card.md").read_text()
    assert winner in card
    assert "the last of 6 on tiny" in card
    assert card.count("Stage ") == 3
    assert metaloss.load(run).formula != "", "the run's own winner stays"


def test_an_elimination_interrupted_anywhere_and_resumed_has_equal_bytes(run, tmp_path):
    asked = 0

    def count():
        nonlocal asked
        asked += 1
        return False

    whole = metaloss.eliminate(
        shutil.copytree(run, tmp_path / "whole" / run.name), changes=SMALL, stop=count
    ).folder
    for n in range(0, asked, max(1, asked // 6)):
        copy = Path(shutil.copytree(run, tmp_path / f"stop{n}" / run.name))
        left = iter(range(n))
        with pytest.raises(Interrupted):
            metaloss.eliminate(copy, changes=SMALL, stop=lambda left=left: next(left, None) is None)
        metaloss.eliminate(copy, changes=SMALL)
        assert tree(copy / "elimination") == tree(whole)


def test_finished_stages_are_not_played_again(run, monkeypatch):
    first = metaloss.eliminate(run, changes=SMALL)
    monkeypatch.setattr(Episodes, "evaluate", lambda *args, **how: pytest.fail("trained again"))
    assert metaloss.eliminate(run, changes=SMALL).summary == first.summary


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"stages": [{"keep": 3, "tasks": 2}]},
            "stage-1.json was made with other settings (keep: was 4, is 3)",
        ),
        ({"start": 5}, "(other losses)"),
        ({"stages": [SMALL["stages"][0], {"keep": 2, "steps": 3, "tasks": 2}]}, "stage-2.json"),
    ],
)
def test_a_stage_made_with_other_settings_is_refused_with_what_differs(run, change, words):
    metaloss.eliminate(run, changes=SMALL)
    before = tree(run)
    with pytest.raises(SettingsError) as caught:
        metaloss.eliminate(run, changes={**SMALL, **change})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert tree(run) == before


def test_a_damaged_stage_is_named(run):
    metaloss.eliminate(run, changes=SMALL)
    path = run / "elimination" / "stage-2.json"
    path.write_bytes(path.read_bytes().replace(b"0.", b"1.", 1))
    with pytest.raises(DamagedFile, match=r"stage-2.json is damaged"):
        metaloss.eliminate(run, changes=SMALL)


def test_a_run_in_use_is_left_alone(run):
    with storage.Lock(run), pytest.raises(RunInUse):
        metaloss.eliminate(run, changes=SMALL)
    assert not (run / "elimination").exists()


def test_a_run_without_formulas_is_refused_in_one_line(tmp_path):
    folder = evolved(tmp_path, generations=1).folder
    with pytest.raises(SettingsError, match=r"genome 'mln' searches for no formulas") as caught:
        metaloss.eliminate(folder)
    assert "\n" not in str(caught.value)
    assert not (folder / "elimination").exists()


def test_a_run_in_which_nothing_has_trained_yet_is_refused(run):
    (run / "history.jsonl").write_text("")
    with pytest.raises(
        SettingsError, match="holds no loss that trains yet: metaloss evolve --resume"
    ):
        metaloss.eliminate(run)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"start": 3, "stages": [{"keep": 4}]},
            "no stage can keep more losses than the one before, got 3 → 4",
        ),
        ({"stages": [{"keep": 4}, {"keep": 5}]}, "100 → 4 → 5"),
        ({"stages": []}, "stages"),
        ({"stages": [{"keep": 3, "step": 2}]}, "unknown setting 'step'"),
        ({"strat": 3}, "unknown setting 'strat'. Did you mean 'start'?"),
        ({"tasks": ["fashonmnist"]}, "unknown task family 'fashonmnist'"),
        ({"stages": [{"keep": 3, "scale": 1000}] * 2, "tasks": ["fashionmnist"]}, "classifier"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_trains(run, changes, words):
    with pytest.raises(SettingsError) as caught:
        metaloss.eliminate(run, changes=changes)
    assert words in str(caught.value)
    assert not (run / "elimination").exists()


def test_other_families_may_be_asked_for(run, tmp_path):
    result = metaloss.eliminate(run, changes={**SMALL, "tasks": [family(tmp_path, "other")]})
    assert records(run)[0]["reference"]["families"].keys() == {"other"}
    assert result.best.about["evolved on"] == "tiny"
    assert result.best.about["eliminated on"] == "other"


@pytest.mark.parametrize(("kind", "widths"), [("mlp", "hidden"), ("cnn", "filters")])
def test_a_stage_multiplies_the_family_s_steps_and_widths(open_tiny, kind, widths):
    episodes = open_tiny(classifier={"kind": kind, widths: [3, 5]})
    larger = episodes.enlarged(4, 2)
    assert larger.family.inner.steps == 4 * episodes.family.inner.steps
    assert getattr(larger.model, widths) == (6, 10)
    assert getattr(episodes.model, widths) == (3, 5)
    assert episodes.enlarged(1, 1).family.inner == episodes.family.inner


def test_every_stage_and_repeat_has_fresh_meta_validation_tasks(run, monkeypatch):
    keys = set()
    evaluate = Episodes.evaluate

    def watched(self, engine, populations, pool, key, *args, **how):
        assert pool == "validation"
        keys.add(key.path)
        return evaluate(self, engine, populations, pool, key, *args, **how)

    monkeypatch.setattr(Episodes, "evaluate", watched)
    metaloss.eliminate(run, changes=SMALL)
    rounds = {
        ("elimination", number, repeat) for number, repeat in ((1, 0), (2, 0), (3, 0), (3, 1))
    }
    assert keys == {("baseline",), *rounds}


def test_cross_entropy_is_tuned_for_every_budget_once(run, monkeypatch):
    budgets = []
    tune = FamilyEvaluation.tune

    def watched(self, losses, rates, tasks, steps=(), *, role):
        budgets.append((steps or (self.family.steps,), self.family.model.hidden))
        return tune(self, losses, rates, tasks, steps, role)

    monkeypatch.setattr(FamilyEvaluation, "tune", watched)
    stages = [*SMALL["stages"], SMALL["stages"][-1]]
    metaloss.eliminate(run, changes={**SMALL, "stages": stages})
    assert budgets == [((3,), (8,)), ((6,), (8,)), ((3,), (16,))]
    assert all(
        record["reference"]["families"]["tiny"]["lr"] in (0.1, 0.3) for record in records(run)
    )


def test_kendalls_tau_is_that_of_a_count_by_hand():
    assert rank_correlation([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]) == pytest.approx(
        (5 - 1) / 6
    )
    assert rank_correlation([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert rank_correlation([1.0, 2.0, 2.0], [1.0, 2.0, 3.0]) == pytest.approx(
        2 / (2 * 3) ** 0.5
    )  # one tie, two pairs in order
    assert rank_correlation([1.0], [2.0]) is None
    assert rank_correlation([1.0, 1.0], [1.0, 2.0]) is None


def test_each_stage_is_compared_with_the_one_before_and_drawn(run, monkeypatch):
    monkeypatch.undo()
    drawn = []
    ranks = plots.ranks
    monkeypatch.setattr(
        plots, "ranks", lambda pairs, path: drawn.append(pairs) or ranks(pairs, path)
    )
    rows = metaloss.eliminate(run, changes=SMALL).summary["stages"]
    found = records(run)
    assert rows[0]["tau"] is None
    for earlier, later, pair in zip(found, found[1:], *drawn, strict=False):
        reached = dict(zip(earlier["asked"]["losses"], earlier["accuracy"], strict=True))
        before = [reached[text] for text in later["asked"]["losses"]]
        assert (pair["before"], pair["after"]) == (before, later["accuracy"])
        assert pair["tau"] == later["tau"] == rank_correlation(before, later["accuracy"])
    assert [row["tau"] for row in rows[1:]] == [pair["tau"] for pair in drawn[0]]
    assert (run / "elimination" / "ranks.png").read_bytes().startswith(b"\x89PNG")
    check_vector(run / "elimination" / "ranks.pdf")


def test_the_command_prints_a_row_per_stage_and_the_winner(run, capsys):
    assert code("eliminate", run, *FLAGS) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line[:5].strip().isdigit()]
    assert [row[:6] for row in rows] == [
        ["1", "6", "1x", "1x", "2", "1"],
        ["2", "4", "2x", "1x", "2", "1"],
    ]
    assert f"winner  {metaloss.load(run / 'elimination').describe()}: " in out
    assert code("eliminate", run.name, "--runs", run.parent, *FLAGS, "--json") == 0
    assert json.loads(capsys.readouterr().out)["stages"][1]["losses"] == 4
    assert code("eliminate", run, *FLAGS, "-q") == 0
    assert capsys.readouterr().out == ""


def test_a_file_gives_the_stages_and_flags_win(run, tmp_path):
    (tmp_path / "mine.toml").write_text("start = 5\n[[stages]]\nkeep = 2\ntasks = 2\n")
    assert code("eliminate", run, "--config", tmp_path / "mine.toml", "--start", 4, "-q") == 0
    (record,) = records(run)
    assert len(record["accuracy"]) == 4
    assert record["asked"]["keep"] == 2
    assert not (run / "elimination" / "ranks.png").exists(), "one stage has none before it"


def test_a_signal_leaves_stages_that_the_printed_command_goes_on_from(run, monkeypatch, capsys):
    told = console.Console.on_elimination_stage

    def stage(self, row):
        told(self, row)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(console.Console, "on_elimination_stage", stage)
        assert code("eliminate", run, *FLAGS) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"interrupted; go on with: metaloss eliminate {run} --start 6 --set 'stages="
    )
    assert [path.name for path in (run / "elimination").iterdir()] == ["stage-1.json"]
    assert code("eliminate", run, *FLAGS, "-q") == 0
    assert loss_io.load(run / "elimination").describe() == records(run)[-1]["kept"][0]


# --- another metric, and a guard ---


def order(record):
    """The losses of a stage, the best first, told by hand from what its file says."""
    asked = record["asked"]["losses"]
    rows = zip(asked, record["worth"], record["excess"], strict=True)
    return [text for text, _, _ in sorted(rows, key=lambda x: (x[2] > 0, x[2] or -x[1]))]


def test_what_lies_outside_the_guard_goes_last_and_accuracy_stands_beside_the_metric(run, capsys):
    path = family(run.parent, "f1", f'metric = "macro_f1"\n{TINY}')
    changes = {**SMALL, "tasks": [path], "guard": {"accuracy": 0.5}}
    with console.Console() as talk:
        result = metaloss.eliminate(run, changes=changes, reporter=talk)
    found = records(run)
    assert any(any(record["excess"]) for record in found)
    for record in found:
        ce = record["reference"]["accuracy"]
        behind = [max(0.0, 100 * (ce - x) - 0.5) for x in record["accuracy"]]
        assert record["excess"] == pytest.approx(behind, abs=1e-4)
        assert record["worth"] == record["score"] != record["accuracy"]
        assert record["kept"] == order(record)[: len(record["kept"])]
    ranking = result.summary["ranking"]
    assert [x["formula"] for x in ranking] == order(found[-1])
    best = found[-1]["asked"]["losses"].index(ranking[0]["formula"])
    assert ranking[0]["accuracy"] == found[-1]["accuracy"][best]
    assert ranking[0]["macro_f1"] == found[-1]["score"][best]
    assert result.summary["guard"] == {"accuracy": 0.5}
    printed = capsys.readouterr().out
    outside = sum(x > 0 for x in found[0]["excess"])
    assert f"CE {100 * found[0]['reference']['accuracy']:.1f} %, {outside} outside the" in printed
    assert "guard   at most behind tuned cross-entropy: accuracy by 0.5 points" in printed
    assert f"(accuracy {100 * ranking[0]['accuracy']:.1f} %) in the last stage" in printed


def test_the_guard_is_the_run_s_own_unless_another_one_is_given(tmp_path):
    run = evolved(tmp_path, guard={"accuracy": 100.0}, **PARTS).folder
    metaloss.eliminate(run, changes=SMALL)
    assert all(record["asked"]["guard"] == {"accuracy": 100.0} for record in records(run))
    assert not any(any(record["excess"]) for record in records(run))
    kept = [record["kept"] for record in records(run)]
    with pytest.raises(SettingsError, match="other guard"):
        metaloss.eliminate(run, changes={**SMALL, "guard": {"accuracy": 1.0}})
    shutil.rmtree(run / "elimination")
    metaloss.eliminate(run, changes={**SMALL, "guard": {}})
    assert [record["kept"] for record in records(run)] == kept
    assert all("excess" not in record for record in records(run))


@pytest.mark.parametrize(
    ("guard", "words"),
    [("accuracy", "as guard.accuracy=2.0, got 'accuracy'"), ({"acuracy": 1}, "unknown metric")],
)
def test_what_is_no_guard_is_refused(run, guard, words):
    with pytest.raises(SettingsError, match=words):
        metaloss.eliminate(run, changes={**SMALL, "guard": guard})
