"""Full trainings as tasks: scores repeat, shares do not mix, searches resume."""

import contextlib
import json
import shlex
from dataclasses import replace

import pytest
import torch
from test_run_folder import essence, without_plots

import metaloss
from metaloss import cli, storage
from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.errors import DataError, Interrupted, SettingsError
from metaloss.losses import zoo
from metaloss.losses.base import CrossEntropies
from metaloss.losses.formulas import Formulas
from metaloss.search import program, refinement, settings
from metaloss.search.estimate import estimate_cost
from metaloss.tasks import episodic_family, full_training, opening, single_training, training_cache
from metaloss.tasks.opening import with_training_cache
from metaloss.training import fitting, images, models
from metaloss.training.measurement import Measurement

TRAINING = {
    "data": "mnist",
    "model": "convnet",
    "epochs": 2,
    "batch": 16,
    "validation": 0.3,
    "lr": 0.05,
}
KEYS = [Stream(5).at("task", t) for t in range(2)]
LOSSES = Formulas.of([zoo.read("ce"), zoo.read("mae")])
SMALL = {
    **{
        "generations": 2,
        "tasks_per_generation": 1,
        "baseline_tasks": 2,
        "winner_tasks": 2,
        "test_tasks": 9,
    },
    **{"rates": (0.05,), "finalists": 1, "genome": {"kind": "graph"}},
    "strategy": {"kind": "regularized", "population": 2, "initial": 3, "batch": 2, "tournament": 2},
}
FILE = """
kind = "training"
seeds = 2
[training]
data = "mnist"
model = "convnet"
epochs = 1
batch = 32
validation = 0.3
lr = 0.05
rates = [0.02, 0.05]
augment = { kind = "base", pad = 1 }
"""


@pytest.fixture(autouse=True)
def surroundings(shapes, network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A network that has learned these images after six steps.
    monkeypatch.setitem(models._OURS, "convnet", lambda channels, classes, size: network())
    monkeypatch.setattr(images.datasets, "load", lambda name, options: shapes)


def trainings(**changes):
    family = {key: changes.pop(key) for key in ("seeds", "workers") if key in changes}
    return opening.open_family(
        opening.of(
            {"kind": "training", **family, "training": {**TRAINING, **changes}}, "full", "f.toml"
        )
    )


@pytest.fixture
def path(tmp_path):
    (tmp_path / "full.toml").write_text(FILE)
    return str(tmp_path / "full.toml")


# --- scores ---


def test_a_score_depends_on_its_own_loss_and_seed_alone():
    e = trainings(augment={"kind": "all", "pad": 1, "patch": 4})
    both = e.scores(LOSSES, "train", KEYS)
    assert both.shape == (1, 2, 2)
    assert torch.equal(e.scores(LOSSES[1:], "train", KEYS[1:])[0, 0, 0], both[0, 1, 1])
    assert len(both.unique()) > 1


def test_a_formula_scores_as_its_criterion_does():
    e = trainings()
    plain = e.scores(CrossEntropies.of(1), "validation", KEYS)
    assert torch.equal(plain, e.scores(LOSSES[:1], "validation", KEYS))
    assert plain.min() > 0.4, "four classes that are easily told apart"


def test_a_formula_that_stands_twice_is_trained_once(monkeypatch):
    e = trainings()
    jobs = []
    monkeypatch.setattr(
        full_training.FullTrainingTasks, "attempt", lambda self, job, stop: jobs.append(job) or 0.5
    )
    assert e.scores(Formulas.of([*LOSSES.formulas, *LOSSES.formulas]), "train", KEYS).shape == (
        1,
        4,
        2,
    )
    assert len(jobs) == 4


def test_each_candidate_trains_at_its_own_rate_and_a_failure_is_a_value():
    score = trainings().scores(
        CrossEntropies.of(2), "train", KEYS[:1], lr=torch.tensor([0.05, 1e30])
    )
    assert score[0, :, 0].isnan().tolist() == [False, True]


def test_what_raises_is_a_failure_but_where_all_raise_it_is_a_bug(monkeypatch):
    class Broken(CrossEntropies):
        def terms(self, logits):
            if float(self.smoothing) > 0.5:
                raise RuntimeError("broken")
            return super().terms(logits)

    losses = Broken(torch.tensor([0.0, 0.9]))
    assert trainings().scores(losses, "train", KEYS[:1])[0, :, 0].isnan().tolist() == [False, True]
    with pytest.raises(RuntimeError, match="broken"):
        trainings().scores(losses[1:], "train", KEYS[:1])


def test_several_lengths_are_several_trainings():
    e = trainings(schedule="one_cycle", warmup=2)
    assert e.steps == 6
    score = e.scores(LOSSES[:1], "train", KEYS, steps=(1, 6))
    assert torch.equal(score[1:], e.scores(LOSSES[:1], "train", KEYS))
    assert not torch.equal(score[0], score[1])


def test_a_stop_drops_the_work():
    with pytest.raises(Interrupted):
        trainings().scores(LOSSES, "train", KEYS, engine=Local(stop=lambda: True))


# --- images ---


def test_no_image_serves_two_purposes(shapes):
    e = trainings()
    rows = torch.cat(list(e.shares.values()))
    assert len(rows.unique()) == len(rows) == len(shapes.labels)
    assert torch.equal(e.shares["test"], shapes.test.nonzero()[:, 0])
    for share in e.shares.values():
        assert len(shapes.labels[share].unique()) == 4


def test_a_pool_is_scored_on_its_own_images(monkeypatch):
    e = trainings(epochs=1)
    seen = []

    def measured(classifier, loss, batches):
        seen.append(sum(len(labels) for _, labels in batches))
        return Measurement(0.0, 0.25, 0.0)

    monkeypatch.setattr(single_training, "measure", measured)
    for pool in ("validation", "test"):
        assert float(e.scores(LOSSES[:1], pool, KEYS[:1])) == 0.25
    assert seen == [len(e.shares["validation"]), len(e.shares["test"])]


def test_groups_are_whole_in_one_use_and_are_a_condition(shapes, tmp_path):
    place = tmp_path / "patients.csv"
    place.write_text("".join(f"{row},{row // 3}\n" for row in range(len(shapes.labels))))
    family = trainings(groups=str(place))
    used = [set((rows // 3).tolist()) for rows in family.shares.values()]
    assert len(set.union(*used)) == sum(map(len, used)) == 40
    for rows in family.shares.values():
        assert shapes.labels[rows].bincount(minlength=4).min() > 0
    digest = family.fingerprints()["groups full"]
    place.write_text("".join(f"{row},{row // 2}\n" for row in range(len(shapes.labels))))
    assert trainings(groups=str(place)).fingerprints()["groups full"] != digest
    assert "groups full" not in trainings().fingerprints()


def test_too_little_held_out_is_one_line():
    with pytest.raises(
        DataError, match=r"class 'a': 1 images are held out, .* raise training.validation"
    ):
        trainings(validation=0.01)


# --- families ---


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"training": {"epocs": 3}},
            r"f.toml: training: unknown setting 'epocs'. Did you mean 'epochs'\?",
        ),
        ({"training": {"loss": "mae"}}, "f.toml: training.loss is decided by the search"),
        ({"training": {"seeds": 3}}, "f.toml: training.seeds is decided by the search"),
        ({"training": {}, "seeds": 1}, "f.toml: seeds: .* got 1"),
        ({"training": 3}, "f.toml: training must be a table, got 3"),
        ({"training": {}, "shots": 1}, "f.toml: unknown setting 'shots'"),
    ],
)
def test_a_family_that_cannot_be_is_one_line(table, message):
    with pytest.raises(SettingsError, match=message):
        opening.of({"kind": "training", **table}, "f", "f.toml")


def test_an_unknown_model_is_told_before_any_training():
    with pytest.raises(SettingsError, match="Did you mean 'convnet'"):
        trainings(model="convnt")


def test_a_papers_protocol_lies_under_a_familys_own_settings():
    plain = opening.read("cifar10-resnet9").training
    assert (plain.model, plain.optimiser, plain.steps, plain.warmup) == (
        "resnet9",
        "adam",
        20_000,
        1_000,
    )
    assert opening.read("cifar10-resnet9-long").training == replace(plain, steps=96_000)
    wide = opening.read("cifar10-wrn").training
    assert (wide.model, wide.optimiser, wide.steps, wide.lr) == ("wrn-28-10", "sgd", 117_300, 0.1)
    table = {"kind": "training", "protocol": "loss-report", "training": {"lr": 0.02}}
    own = opening.of(table, "own", "own.toml").training
    assert (own.loss, own.seeds, own.lr, own.rates) == (("ce",), 1, 0.02, ()), (
        "losses and seeds are the search's"
    )


def test_the_estimate_of_full_trainings_takes_a_few_steps_of_one(path, monkeypatch):
    asked = []
    scores = full_training.FullTrainingTasks.scores
    monkeypatch.setattr(
        full_training.FullTrainingTasks,
        "scores",
        lambda self, *a, steps=(), **k: asked.append(steps) or scores(self, *a, steps=steps),
    )
    found = estimate_cost(
        settings.resolve({"tasks": [path], **SMALL, "training": {"epochs": 100_000}})
    )
    assert asked == [(1,), (1,), (single_training.TIMED_STEPS,)]
    assert found["trainings"] > 0
    assert found["seconds"] > 0


def test_the_shipped_family_reads_and_the_settings_of_a_run_hold_it():
    family = opening.read("fashionmnist-convnet")
    chosen = settings.resolve(
        {"tasks": ("fashionmnist-convnet",), "training": {"augment": {"kind": "mixup"}}}
    )
    mixed = replace(family.training.augment, kind="mixup")
    assert chosen.families[0].training == replace(family.training, augment=mixed)
    assert settings.resolve(chosen.table()) == chosen
    table = chosen.table()
    table["families"][0]["training"]["epocs"] = 1
    with pytest.raises(
        SettingsError,
        match=r"families.0.training: unknown setting 'epocs'. Did you mean 'epochs'\?",
    ):
        settings.resolve(table)


def test_what_needs_episodes_says_so(path):
    with pytest.raises(
        SettingsError,
        match=r"full.toml is a family of full trainings, and episodes are needed here",
    ):
        episodic_family.read(path)


def test_a_comparison_names_the_command_that_makes_it_on_full_trainings(path, monkeypatch):
    formula = "-y * (1 - p) * logp"
    with pytest.raises(
        SettingsError, match=r"full.toml is a family of full trainings, and compare is"
    ) as caught:
        metaloss.compare(["mae", formula, metaloss.load("poly1")], tasks=path)
    _, name, *words = shlex.split(str(caught.value).partition(" there: ")[2])
    assert name == "train"
    asked = []
    monkeypatch.setattr(fitting, "start", lambda chosen, *args, **how: asked.append(chosen))
    with contextlib.suppress(AttributeError):  # there is no result to print
        cli.training.train.main([*words, "--json"], standalone_mode=False)
    family = opening.read(path).training
    losses = ("mae", formula, "poly1", "ce")
    assert asked == [replace(family, loss=losses, rates=(0.02, 0.05), seeds=2, lr=None)]


def test_constants_are_tuned_on_full_trainings(path, tmp_path, monkeypatch):
    without_plots(monkeypatch)
    done = counted(monkeypatch)
    given = {key: x for key, x in SMALL.items() if key not in ("genome", "strategy")}
    strategy = NETWORKS["strategy"]
    found = metaloss.refine(
        "focal(gamma=2)", path, out=tmp_path / "runs", strategy=strategy, **given
    )
    row = found.comparison["families"]["full"]
    assert row["gain"]["tasks"] == found.comparison["tasks"] == 2, "as many as the family has seeds"
    assert row["gain"]["mean"] == pytest.approx(row["after"] - row["before"])
    role = [(loss, pool, key) for loss, pool, key, *_ in done if key.path[0] == "refinement"]
    assert {pool for _, pool, _ in role} == {"validation"}
    assert {loss for loss, _, _ in role} == {
        str([found.comparison[x]]) for x in ("before", "after")
    }
    (found.folder / "refinement.json").unlink()
    done.clear()
    assert refinement.resume(found.folder).comparison == found.comparison
    assert done == []


# --- searches ---


def test_a_search_ends_with_a_test_and_repeats_and_resumes_to_the_bit(path, tmp_path, monkeypatch):
    without_plots(monkeypatch)
    found = metaloss.evolve(path, out=tmp_path / "one", **SMALL)
    row = found.summary["test"]["full"]
    assert row["tasks"] == 2, "as many as the family has seeds"
    assert row["ce"] == row["ce_steps"]
    assert row["ce"]["lr"] in (0.02, 0.05)
    shares = json.loads((found.folder / "provenance.json").read_bytes())["data"]["full"]["shares"]
    assert {name: x["images"] for name, x in shares.items()} == {
        "training": 62,
        "train": 12,
        "validation": 16,
        "test": 30,
    }
    calls = []

    def stop():
        if any((tmp_path / "two").glob("*/history.jsonl")):  # in the second generation
            calls.append(0)
        return len(calls) > 2

    with pytest.raises(Interrupted):
        metaloss.evolve(path, out=tmp_path / "two", stop=stop, **SMALL)
    (folder,) = (tmp_path / "two").iterdir()
    assert len((folder / "history.jsonl").read_text().splitlines()) == 1
    program.resume(folder)
    assert essence(folder) == essence(found.folder)


def counted(monkeypatch):
    """Every training that ends, by its loss, pool, seed, rate and steps."""
    done = []
    attempt = full_training.FullTrainingTasks.attempt

    def watched(self, job, stop):
        result = attempt(self, job, stop)
        done.append(
            (str(training_cache.fingerprint(job.loss)), job.pool, job.key, job.lr, job.steps)
        )
        return result

    monkeypatch.setattr(full_training.FullTrainingTasks, "attempt", watched)
    return done


NETWORKS = {
    "genome": {"kind": "mln", "hidden": 4, "start": "random"},
    "strategy": {"kind": "mu_plus_lambda", "mu": 2, "lambda_": 2},
}


# After a rate of cross-entropy, and in a generation; in a generation of networks, and at the end.
@pytest.mark.parametrize(
    ("changes", "stops"), [({}, (1, 9)), (NETWORKS, (6, -3))], ids=["formulas", "networks"]
)
def test_a_search_that_goes_on_trains_nothing_twice(path, tmp_path, monkeypatch, changes, stops):
    without_plots(monkeypatch)
    done = counted(monkeypatch)
    chosen = {**SMALL, **changes}
    whole = metaloss.evolve(path, out=tmp_path / "whole", **chosen)
    expected = list(done)
    assert len(expected) == len(set(expected))
    for stop in stops:
        done.clear()
        most = stop % len(expected)
        with pytest.raises(Interrupted):
            metaloss.evolve(
                path, out=tmp_path / str(most), stop=lambda most=most: len(done) >= most, **chosen
            )
        assert len(done) == most
        (folder,) = (tmp_path / str(most)).iterdir()
        again = program.resume(folder)
        assert done == expected
        assert essence(folder) == essence(whole.folder)
        assert again.summary == whole.summary
        assert (folder / training_cache.FILE).read_bytes() == (
            whole.folder / training_cache.FILE
        ).read_bytes()


def test_episodes_keep_no_trainings(open_tiny, tmp_path):
    families = [open_tiny()]
    assert with_training_cache(tmp_path, families, torch.device("cpu")) == families
    assert not list(tmp_path.glob("*.jsonl"))


def test_an_elimination_can_end_in_full_training(path, tmp_path, monkeypatch):
    without_plots(monkeypatch)
    monkeypatch.setattr("metaloss.evaluation.plots.ranks", lambda *args: None)
    found = metaloss.evolve(path, out=tmp_path / "runs", **{**SMALL, "generations": 1})
    stages = [{"keep": 2, "tasks": 1}, {"keep": 1, "steps": 2, "tasks": 2, "families": [path]}]
    done = metaloss.eliminate(found.folder, changes={"start": 3, "stages": stages})
    assert [row["tasks"] for row in done.summary["stages"]] == [1, 2]
    last = storage.read_record(done.folder / "stage-2.json")
    assert last["asked"]["families"][0]["training"]["epochs"] == 1
    (done.folder / "stage-2.json").unlink()
    anew = counted(monkeypatch)
    assert (
        metaloss.eliminate(found.folder, changes={"start": 3, "stages": stages}).summary
        == done.summary
    )
    assert anew == []
    with pytest.raises(SettingsError, match="a stage of full trainings cannot have scale = 2"):
        metaloss.eliminate(found.folder, changes={"start": 3, "stages": [{"keep": 1, "scale": 2}]})
