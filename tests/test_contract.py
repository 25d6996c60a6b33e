"""What every run promises.

For searches of formulas, and for everything that decides what a run trains.
"""

import json
import math

import pytest
import torch
from test_engine import KEYS, STARTS
from test_run_folder import GENOME, SMALL, essence, family, only_the_subset, without_plots
from test_search import Recorder

import metaloss
from metaloss.cli import showing
from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.errors import Interrupted, SettingsError
from metaloss.genomes._filters import Filters
from metaloss.genomes._symbolic import Symbolic
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.search import program
from metaloss.search.trained_losses import TrainedLosses

TREE = {"kind": "tree", "max_size": 12, "max_height": 4, "first_height": 3}
GP = {"kind": "gp", "mu": 3, "lambda_": 3}
REGULARIZED = {"kind": "regularized", "population": 3, "initial": 4, "batch": 3, "tournament": 2}
GUARD = {"metric": "macro_f1", "guard": {"accuracy": 0.0, "nll": 0.01}}
SCREEN = {"screen_steps": 2, "screen_tasks": 1, "screen_share": 0.9}
TWO = """
dataset = "fashionmnist"
ways = 2
shots = 1
val = 3
classifier = { kind = "mlp", hidden = [4] }
inner = { steps = 2, lr = 0.1 }
"""
# Tasks of 3 to 60 images, some padded, with a share of wrong labels that is drawn as well.
UNEVEN = """
dataset = "fashionmnist"
ways = 3
shots = [1, 20]
val = { kind = "as-is", mean = 4 }
noise = { kind = "confusion", share = [0.1, 0.5] }
classifier = { kind = "mlp", hidden = [4] }
inner = { steps = 3, lr = 0.1, batch = 8 }
"""
AUGMENTED = UNEVEN + 'augment = { kind = "mixup", copies = 3 }\n'
# What is searched, and on which families.
CASES = {
    "from losses": (
        {"genome": {**TREE, "start": "ce,mse"}, "strategy": SMALL["strategy"]},
        ["tiny"],
    ),
    "regularized": ({"genome": TREE, "strategy": REGULARIZED}, ["tiny"]),
    "refresh": ({"genome": TREE, "strategy": {**REGULARIZED, "refresh": 2}}, ["tiny"]),
    "refresh, networks": ({"strategy": {**REGULARIZED, "refresh": 2}}, ["tiny"]),
    "wins": ({"genome": TREE, "strategy": GP, "objective": "wins"}, ["tiny", "two"]),
    "robust": (
        {"strategy": REGULARIZED, "objective": "robust", "deviations": 0.5},
        ["tiny", "two"],
    ),
    "screen": ({"genome": TREE, "strategy": REGULARIZED, **SCREEN}, ["tiny"]),
    "screen, networks": ({"genome": GENOME, **SCREEN}, ["tiny"]),
    "guard": (
        {"genome": TREE, "strategy": REGULARIZED, **GUARD, **SCREEN},
        ["tiny", "two"],
    ),
    "guard, networks": ({"genome": GENOME, **GUARD, **SCREEN}, ["tiny"]),
    "uneven beside even": ({"genome": TREE, "strategy": GP}, ["uneven", "two"]),
    "clock": ({"genome": {**TREE, "clock": True}, "strategy": GP, **SCREEN}, ["tiny", "two"]),
    "past": ({"genome": {**TREE, "past": True}, "strategy": GP}, ["tiny"]),
    "clock, networks": ({"genome": {**GENOME, "clock": True}}, ["tiny", "two"]),
    "clock, targets": ({"genome": {"kind": "targets", "clock": True}}, ["tiny", "two"]),
    "clock, taylor": ({"genome": {"kind": "taylor", "clock": True}}, ["tiny", "two"]),
    "taylor with its filter": (
        {
            "genome": {"kind": "taylor", "start": "0*p", "invariant": True},
            "strategy": {"kind": "cma_es", "population": 4, "sigma": 1.2},
        },
        ["tiny", "two"],
    ),
    "unit gain": ({"genome": TREE, "strategy": GP, "unit_gain": True, **SCREEN}, ["tiny", "two"]),
    "unit gain, clock": (
        {"genome": {"kind": "targets", "clock": True}, "unit_gain": True},
        ["tiny", "two"],
    ),
    "gradient": (
        {"genome": GENOME, "strategy": {"kind": "gradient", "lr": 0.1}},
        ["uneven", "two"],
    ),
    "memetic": (
        {
            "genome": {"kind": "targets", "knots": (0.1, 0.4)},
            "strategy": {"kind": "cma_es", "population": 4},
            "refine": {"every": 2, "best": 3, "steps": 2, "lr": 0.1},
        },
        ["tiny", "two"],
    ),
    "gradient, unit gain": (
        {
            "genome": {"kind": "taylor", "clock": True},
            "strategy": {"kind": "gradient", "unroll": 2},
            "unit_gain": True,
        },
        ["tiny", "augmented"],
    ),
    "augmented beside even": ({"genome": TREE, "strategy": GP}, ["augmented", "two"]),
}
cases = pytest.mark.parametrize("name", CASES)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)


def run(folder, name, out="runs", **more):
    """A finished run of three generations."""
    changes, families = CASES[name]
    texts = {"two": (TWO,), "uneven": (UNEVEN,), "augmented": (AUGMENTED,)}
    tasks = [family(folder, name, *texts.get(name, ())) for name in families]
    return program.evolve(tasks, out=folder / out, **{**SMALL, "generations": 3, **changes, **more})


def interrupted(call, *args, **more):
    recorder = Recorder(last=1)
    with pytest.raises(Interrupted):
        call(*args, reporter=recorder, stop=recorder.stop, **more)


@cases
def test_a_run_that_was_stopped_twice_equals_the_uninterrupted_one(tmp_path, name):
    whole = run(tmp_path, name, "whole").folder
    interrupted(run, tmp_path, name)
    folder = tmp_path / "runs" / whole.name
    interrupted(program.resume, folder)
    program.resume(folder)
    assert essence(folder) == essence(whole)
    assert (folder / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()


@pytest.fixture(scope="module")
def formulas(tmp_path_factory):
    """A run of trees in which some trainings fail."""
    folder = tmp_path_factory.mktemp("formulas")
    with pytest.MonkeyPatch.context() as patch:
        only_the_subset(patch, folder)
        without_plots(patch)
        return run(folder, "screen", report_every=2)


def test_a_time_limit_in_the_midst_of_a_task_epoch_is_no_end(tmp_path):
    short = run(tmp_path, "regularized", time_limit=0.0)
    assert len(short.history) == 1
    program.resume(short.folder)
    assert essence(short.folder) == essence(run(tmp_path, "regularized", "whole").folder)


def test_the_history_of_formulas_tells_each_with_its_accuracy_and_what_was_refused(formulas):
    for record in formulas.history:
        assert 0 < record["control"] < 1
        assert isinstance(record["refused"], dict)
        reached = [x for _, x in record["losses"] if x is not None]
        assert record["best"] == (pytest.approx(max(reached)) if reached else None)
        assert all(Formula.parse(text) for text, _ in record["losses"])
        known = {
            "generation",
            "candidates",
            "best",
            "mean",
            "diverged",
            "failed_trainings",
            "tasks",
            "trained",
            "trainings",
        }
        assert record.keys() - known <= {
            "screened",
            "refused",
            "control",
            "losses",
            "held_out",
            "lead",
            "sha256",
        }
        assert record["diverged"] >= 0
        assert record["failed_trainings"] >= 0


def test_trainings_and_those_that_were_screened_out_are_counted(formulas):
    trainings = 0
    for record in formulas.history:
        trainings += 2 * record["trained"]
        assert record["trainings"] == trainings
        assert record["trained"] + record.get("screened", 0) <= record["candidates"]
    assert sum(record.get("screened", 0) for record in formulas.history) > 0


def test_what_the_history_tells_is_what_the_live_ledger_knew(formulas, tmp_path, monkeypatch):
    live = []
    add = TrainedLosses.add
    monkeypatch.setattr(
        TrainedLosses,
        "add",
        lambda self, record, *at_hand: (
            live.append(json.dumps(record)) or add(self, record, *at_hand)
        ),
    )
    folder = run(tmp_path, "screen").folder
    told = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [json.loads(text)["losses"] for text in live] == [record["losses"] for record in told]
    assert any(x is None for record in told for _, x in record["losses"])


def test_no_formula_is_trained_twice_on_one_epoch_s_tasks(tmp_path):
    history = run(tmp_path, "regularized", tries=50).history
    texts = [text for record in history for text, _ in record["losses"]]
    digests = [Formula.parse(text).digest for text in texts]
    assert sum(record["trained"] for record in history) == len(set(digests))


def test_a_winner_that_is_a_formula_loads_as_one(formulas):
    loss = metaloss.load(formulas.folder)
    table = json.loads((formulas.folder / "loss" / "loss.json").read_text())
    assert table["kind"] == "formula"
    assert str(Formula.parse(table["formula"])) == loss.describe()
    assert not (formulas.folder / "loss" / "weights.safetensors").exists()
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    target = torch.arange(4)
    assert torch.equal(loss(logits, target), formulas.best(logits, target))


def test_the_summary_has_the_front_of_accuracy_against_size(formulas):
    front = formulas.summary["front"]
    for key in ("size", "accuracy"):
        assert [row[key] for row in front] == sorted({row[key] for row in front})
    assert max(row["accuracy"] for row in front) == formulas.summary["choice"]["accuracy"]
    assert formulas.best.describe() in [row["formula"] for row in front]
    assert all(Formula.parse(row["formula"]).expression.size == row["size"] for row in front)


def test_a_winner_that_sees_the_clock_says_how_many_steps_its_search_had(tmp_path):
    result = run(tmp_path, "clock, targets")
    loss = metaloss.load(result.folder)
    # The geometric mean of 3 and 2 steps, in whole numbers.
    assert loss.steps == result.best.steps == 2
    assert "half-way through 2 steps" in (result.folder / "loss" / "card.md").read_text()
    shown = showing.text(showing.describe(str(result.folder), tmp_path))
    assert "clock      It sees how far a training is: call loss.at(step, steps)" in shown


@pytest.mark.parametrize("name", ["unit gain", "unit gain, clock"])
def test_a_winner_of_a_search_with_unit_gains_is_divided_by_its_gain(tmp_path, name):
    result = run(tmp_path, name)
    loss = metaloss.load(result.folder)
    assert loss.normalise
    logits, target = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    plain = loss.with_options(normalise=False)
    torch.testing.assert_close(loss(logits, target), plain(logits, target) / loss.gain(5))


def test_a_front_stands_for_nothing_where_losses_are_networks(tmp_path):
    assert run(tmp_path, "refresh, networks").summary["front"] == []


WRONG = {
    "unknown loss 'cee'": {"genome": {"kind": "tree", "start": "cee"}},
    "unknown primitive 'ad'": {"genome": {"kind": "tree", "functions": ["ad"]}},
    "objective": {"objective": "best"},
    "tries": {"tries": 0},
    "screen_share": {"screen_share": 2.0},
    "screen_steps": {"screen_steps": -1},
    "deviations": {"deviations": -1.0},
    "needs real vectors": {"genome": "tree", "strategy": "openai_es"},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_searched_is_refused_before_a_run_s_folder_is_made(tmp_path, message):
    with pytest.raises(SettingsError, match=message) as caught:
        program.evolve(family(tmp_path), out=tmp_path / "runs", **{**SMALL, **WRONG[message]})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def symbolic():
    return [
        name
        for name in registry.names("genomes")
        if issubclass(registry.part("genomes", name), Symbolic)
    ]


@pytest.mark.parametrize("kind", symbolic())
def test_a_formula_scores_alone_what_it_scores_among_others(open_tiny, kind):
    try:
        genome = registry.build("genomes", {"kind": kind})
    except SettingsError as error:
        pytest.skip(f"needs settings: {error}")
    episodes = open_tiny()
    losses = genome.losses(genome.sample(6, Stream(0)))
    broken = Formulas.of([*losses.formulas, Formula.parse("exp(exp(9 - y*logp))")])
    tasks = episodes.sample(KEYS)
    with Local(workers=1) as engine:
        together = engine.score(broken, episodes, tasks, STARTS)
        alone = [engine.score(losses[i : i + 1], episodes, tasks, STARTS) for i in range(6)]
    difference = (together[:6] - torch.cat(alone)).abs()
    assert difference[~difference.isnan()].max() <= 1 / 12 + 1e-6
    assert torch.equal(together[:6].isnan(), torch.cat(alone).isnan())
    assert together[6].isnan().all()


def test_a_ledger_is_made_of_a_run_s_history(formulas):
    ledger = TrainedLosses(Filters(), formulas.history)
    assert len(ledger.best(100)) <= len(ledger.entries)
    assert all(math.isfinite(entry.rank_score) for entry in ledger.entries.values())
