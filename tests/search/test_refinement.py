import json
import subprocess
import sys

import pytest
import torch
from test_run_folder import (
    GENOME,
    SMALL,
    code,
    essence,
    evolved,
    family,
    only_the_subset,
    without_plots,
)

import metaloss
from metaloss import storage
from metaloss.engines import local
from metaloss.errors import DamagedFile, Interrupted, SettingsError
from metaloss.evaluation import gradients
from metaloss.evaluation.protocol import LossEvaluation
from metaloss.losses import zoo
from metaloss.search import program, refinement, settings
from metaloss.search.run_folder import find
from metaloss.strategies.gradient import GradientState

TINY = {key: value for key, value in SMALL.items() if key not in ("genome", "strategy")}
STRATEGIES = {
    "mu_plus_lambda": SMALL["strategy"],
    "openai_es": {"kind": "openai_es", "population": 4},
    "random_search": {"kind": "random_search", "population": 3},
}
FLAGS = [
    x for k, v in TINY.items() for x in ("--set", f"{k}={list(v) if isinstance(v, tuple) else v}")
]
FLAGS += ["--set", "strategy.mu=2", "--set", "strategy.lambda_=2"]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)


def refined(folder, loss="poly1", out="runs", **changes):
    given = {"tasks": family(folder), "strategy": SMALL["strategy"], **TINY, **changes}
    return metaloss.refine(loss, out=folder / out, **given)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_before_and_after_are_both_formulas_on_the_same_fresh_tasks(
    tmp_path, monkeypatch, strategy
):
    asked = []
    held_out = LossEvaluation.validation_scores

    def watched(self, losses, role, tasks, beside=(), first=0):
        score = held_out(self, losses, role, tasks, beside, first)
        asked.append((role, [str(f) for f in losses.formulas], score))
        return score

    monkeypatch.setattr(LossEvaluation, "validation_scores", watched)
    result = refined(tmp_path, strategy=STRATEGIES[strategy])
    ((formulas, score),) = [
        (formulas, score) for role, formulas, score in asked if role == "refinement"
    ]
    assert formulas == [str(zoo.read("poly1")), str(result.best.formula)]
    row = result.comparison["families"]["tiny"]
    assert (row["before"], row["after"]) == pytest.approx(tuple(score.mean(1).tolist()))
    assert row["gain"]["mean"] == pytest.approx(row["after"] - row["before"])
    assert row["gain"]["low"] <= row["gain"]["mean"] <= row["gain"]["high"]
    assert row["gain"]["tasks"] == 2
    assert storage.read_record(result.folder / "refinement.json") == result.comparison


def test_the_original_that_stays_gained_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        LossEvaluation,
        "validation_scores",
        lambda self, losses, role, tasks, beside=(), first=0: torch.full((len(losses), tasks), 0.5),
    )
    result = refined(tmp_path)
    assert result.comparison["before"] == result.comparison["after"]
    assert result.comparison["families"]["tiny"]["gain"]["mean"] == 0


def test_several_families_are_told_apart(tmp_path, monkeypatch):
    def held_out(self, losses, role, tasks, beside=(), first=0):
        score = torch.full((len(losses), 2 * tasks), 0.5)
        score[-1, tasks:] = 0.75
        return score

    monkeypatch.setattr(LossEvaluation, "validation_scores", held_out)
    rows = refined(tmp_path, tasks=[family(tmp_path, "one"), family(tmp_path, "two")]).comparison[
        "families"
    ]
    assert {name: row["gain"]["mean"] for name, row in rows.items()} == {"one": 0, "two": 0.25}


def test_the_run_is_an_ordinary_one_and_goes_on_after_an_interruption(tmp_path):
    whole = refined(tmp_path, out="whole")
    for n in (0, 10, 25):
        left = iter(range(n))
        with pytest.raises(Interrupted):
            refined(tmp_path, out=f"stop{n}", stop=lambda left=left: next(left, None) is None)
        folder = tmp_path / f"stop{n}" / whole.folder.name
        program.resume(folder)
        assert essence(folder) == essence(whole.folder)
        assert not (folder / "refinement.json").exists()
        assert refinement.resume(folder).comparison == whole.comparison


def test_an_interrupted_comparison_is_made_by_resume(tmp_path, monkeypatch):
    held_out = LossEvaluation.validation_scores

    def interrupted(self, losses, role, tasks, beside=(), first=0):
        if role == "refinement":
            raise Interrupted
        return held_out(self, losses, role, tasks, beside, first)

    with monkeypatch.context() as patch:
        patch.setattr(LossEvaluation, "validation_scores", interrupted)
        with pytest.raises(Interrupted):
            refined(tmp_path)
    (folder,) = (tmp_path / "runs").iterdir()
    assert refinement.resume(folder).comparison == refined(tmp_path, out="whole").comparison


def test_more_generations_are_compared_anew(tmp_path, monkeypatch):
    first = refined(tmp_path)
    again = refinement.resume(first.folder, changes={"generations": 5})
    assert len(program.resume(first.folder).history) == 5
    assert again.comparison["after"] == str(metaloss.load(first.folder).formula)


def test_a_damaged_comparison_is_named(tmp_path):
    folder = refined(tmp_path).folder
    (folder / "refinement.json").write_text("{}")
    with pytest.raises(DamagedFile, match=r"refinement.json is damaged"):
        refinement.resume(folder)


def test_a_run_is_refined_on_its_own_families_unless_others_are_asked_for(tmp_path):
    genome = {"kind": "constants", "formula": "mae"}
    strategy = SMALL["strategy"]
    with pytest.raises(SettingsError, match="mae has no constants"):
        evolved(tmp_path, genome=genome, strategy=strategy)
    run = evolved(
        tmp_path, genome={"kind": "constants", "formula": "poly1"}, strategy=strategy
    ).folder
    own = refinement.resolved(run, TINY, tmp_path)
    assert [f.name for f in own.families] == ["tiny"]
    assert own.genome["formula"] == str(metaloss.load(run).formula)
    other = refinement.resolved(run, {**TINY, "tasks": ["fashionmnist"]}, tmp_path)
    assert [f.name for f in other.families] == ["fashionmnist"]
    assert [f.name for f in refinement.resolved("poly1", TINY, tmp_path).families] == [
        "fashionmnist"
    ]


def test_what_has_no_numbers_is_refused_in_one_line(tmp_path):
    run = evolved(tmp_path, generations=1, genome=GENOME).folder
    with pytest.raises(SettingsError, match="dice has no numbers to refine") as caught:
        metaloss.refine("dice")
    assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match="is no refinement: its search, of genome 'mln'"):
        refinement.resume(run)


def by_gradient(folder, loss, out="runs", **changes):
    given = {"tasks": family(folder), "by": "gradient", **TINY, **changes}
    return metaloss.refine(loss, out=folder / out, **given)


LOSSES = {
    "constants": None,
    "mln": GENOME,
    "targets": {"kind": "targets", "knots": (0.1, 0.4), "clock": True},
}


@pytest.mark.parametrize("kind", LOSSES)
def test_every_loss_with_numbers_is_refined_by_gradient_and_resumes_bit_for_bit(tmp_path, kind):
    loss = "poly1"
    if LOSSES[kind]:
        loss = evolved(tmp_path, "start", generations=1, genome=LOSSES[kind]).folder
    whole = by_gradient(tmp_path, loss, "whole", strategy={"lr": 0.1})
    run = find(whole.folder)
    assert (run.settings.genome["kind"], run.settings.strategy["kind"]) == (kind, "gradient")
    for n in (8, 30, 60):
        left = iter(range(n))
        with pytest.raises(Interrupted):
            by_gradient(
                tmp_path,
                loss,
                f"stop{n}",
                strategy={"lr": 0.1},
                stop=lambda left=left: next(left, None) is None,
            )
        (folder,) = (tmp_path / f"stop{n}").iterdir()
        assert refinement.resume(folder).comparison == whole.comparison
        assert essence(folder) == essence(whole.folder)
    assert (
        "first" not in json.loads((whole.folder / "loss" / "loss.json").read_text())
        or not (json.loads((whole.folder / "loss" / "loss.json").read_text())["genome"]["first"])
    )


@pytest.mark.parametrize("genome", [GENOME, LOSSES["targets"]], ids=["mln", "targets"])
def test_where_no_other_numbers_are_better_the_loss_stays_what_it_was(
    tmp_path, monkeypatch, genome
):
    run = evolved(tmp_path, "start", generations=1, genome=genome).folder
    before = metaloss.load(run)
    worst = {"kind": "mu_plus_lambda", "mu": 2, "lambda_": 2, "sigma": 1e9}
    result = metaloss.refine(run, out=tmp_path / "runs", **{**TINY, "strategy": worst})
    assert result.best.identity == before.identity
    assert result.comparison["before"] == result.comparison["after"]


def test_a_gradient_goes_down_the_validation_cross_entropy_that_it_is_of(tmp_path):
    result = by_gradient(
        tmp_path, "0.01 * -y * logp", generations=12, strategy={"lr": 0.3}, report_every=12
    )
    # A loss whose pull is a hundredth of cross-entropy's learns too slowly: it is made stronger.
    genome, _ = find(result.folder).settings.build_parts()
    progress, _ = find(result.folder).recover((GradientState, *genome.populations))
    assert float(progress.mean_candidates[-1:].values) > 1.5


def test_gradients_keep_no_more_than_their_share_of_the_memory(tmp_path, monkeypatch):
    real = gradients.validation_gradient
    kept = set()

    def watched(*args, memory, **others):
        kept.add(memory)
        return real(*args, memory=memory, **others)

    monkeypatch.setattr(gradients, "validation_gradient", watched)
    monkeypatch.setattr(local, "cores", lambda: 4)
    by_gradient(tmp_path, "poly1", memory=1 << 26, generations=1)
    assert kept == {1 << 24}


def test_fewer_steps_than_a_training_has_can_be_unrolled(tmp_path):
    whole = by_gradient(tmp_path, "poly1", "whole")
    short = by_gradient(tmp_path, "poly1", "short", strategy={"unroll": 1})
    assert find(short.folder).settings.strategy["unroll"] == 1
    assert essence(short.folder) != essence(whole.folder)


ADAM = """
dataset = "fashionmnist"
ways = 2
shots = 1
val = 3
classifier = { kind = "mlp", hidden = [4] }
inner = { steps = 2, lr = 0.1, optimiser = "adam" }
"""
CNN = ADAM.replace('kind = "mlp", hidden = [4]', 'kind = "cnn", filters = [2]').replace(
    ', optimiser = "adam"', ""
)


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        (ADAM, "no gradient goes through the optimiser 'adam'"),
        (CNN, "through trainings of the classifier 'cnn'"),
    ],
    ids=["adam", "cnn"],
)
def test_tasks_that_no_gradient_goes_through_are_refused_before_anything_is_made(
    tmp_path, tasks, words
):
    with pytest.raises(SettingsError, match=words):
        by_gradient(tmp_path, "poly1", tasks=family(tmp_path, "other", tasks))
    for changes in ({"strategy": {"kind": "gradient"}}, {"refine": {"every": 2}}):
        with pytest.raises(SettingsError, match=words):  # as `--dry-run` resolves them
            settings.resolve({"tasks": [family(tmp_path, "other", tasks)], **changes})
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("ce",), "has no constants to tune"),
        ((), "refine takes a run or a loss"),
        (("poly1", "--resume", "x"), "refine takes a run or a loss"),
        (("focl",), "no loss 'focl'"),
        (("poly1", "--strategy", "openai"), "Did you mean 'openai_es'?"),
        (("poly1", "--by", "gradeint"), "Did you mean 'gradient'?"),
        (("poly1", "--by", "gradient", "--strategy", "gp"), "strategy is 'gradient', not 'gp'"),
        (("--resume", "x", "--by", "gradient"), "no --by"),
        (("-y * logp - 0.5 * past * p", "--by", "gradient"), "and no gradient goes through that"),
        (("--resume", "nothing"), "no run 'nothing'"),
        (("--resume", "x", "--dry-run"), "--dry-run cannot go with it"),
    ],
)
def test_wrong_input_is_one_line_exit_2_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, args, words
):
    monkeypatch.chdir(tmp_path)
    assert code("refine", *args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err
    assert not (tmp_path / "runs").exists()


def test_arguments_of_a_wrong_type_are_refused_with_what_is_expected(tmp_path):
    # In a process of its own: tests check the types of all arguments.
    cases = {
        "by=3": "by must be 'evolution' or 'gradient', got 3",
        "by=None": "by must be 'evolution' or 'gradient', got None",
        "by='gradient', strategy=3": "settings: strategy: Input should be a table, got 3",
        "tasks=3": "settings: tasks: Input should be a valid tuple, got 3",
    }
    program = "import metaloss\nfrom metaloss.errors import SettingsError\n" + "".join(
        f"try: metaloss.refine('poly1', {given})\nexcept SettingsError as e: print(e)\n"
        for given in cases
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == list(cases.values())
    assert not list(tmp_path.iterdir())


def test_a_dry_run_prints_settings_and_cost_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    args = ("refine", "poly1", "--tasks", family(tmp_path), "--by", "gradient", "--dry-run")
    assert code(*args, "--json", *FLAGS[:-4]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["settings"]["strategy"]["kind"] == "gradient"
    assert table["estimate"]["trainings"] > 0
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("kind", ["mln", "targets"])
def test_a_start_of_another_length_is_refused_with_the_settings(kind):
    with pytest.raises(SettingsError, match=r"genome: first must have \d+ numbers, got 2"):
        settings.resolve({"genome": {"kind": kind, "first": (1.0, 2.0)}})


def test_the_command_prints_before_and_after(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    args = ("refine", "-y * logp + 0.5 * p * p", "--tasks", family(tmp_path), *FLAGS)
    assert code(*args) == 0
    out = capsys.readouterr().out
    assert "before  sum(-y * logp + 0.5 * p * p)\nafter   " in out
    assert "gain    tiny, 2 fresh meta-validation tasks: " in out
    assert "saved   runs/tiny-constants-mu_plus_lambda-0/" in out
    assert code("refine", "--resume", "tiny-constants-mu_plus_lambda-0", "--json") == 0
    table = json.loads(capsys.readouterr().out)
    assert table["before"] == "sum(-y * logp + 0.5 * p * p)"
    assert table["run"].startswith("runs/")


def test_accuracy_stands_beside_another_metric_and_a_run_s_guard_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("metaloss.evaluation.metric_resamples.COUNTED", 20)
    path = family(tmp_path)
    others = {"metric": "macro_f1", "guard": {"accuracy": 50.0}, "report_every": 1}
    first = metaloss.refine(
        "poly1", path, out=tmp_path / "runs", strategy=SMALL["strategy"], **TINY, **others
    )
    row = first.comparison["families"]["tiny"]
    assert row["metric_scale"]["kind"] == "macro_f1"
    assert all(0 < row["accuracy"][when] <= 1 for when in ("before", "after"))
    assert row["accuracy"]["before"] != row["before"]
    held_out = [x["held_out"] for x in program.resume(first.folder).history if "held_out" in x]
    assert held_out
    assert all(0 < x["accuracy"] <= 1 and x["accuracy"] != x["macro_f1"] for x in held_out)
    again = refinement.resolved(first.folder, {}, tmp_path)
    assert again.guard == {"accuracy": 50.0}
    assert again.metric == {"kind": "macro_f1"}
    assert refinement.resolved(first.folder, {"tasks": [path]}, tmp_path).guard is None
