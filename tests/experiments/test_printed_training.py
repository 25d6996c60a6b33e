"""The command that is printed trains the network that was judged, on all images."""

import json
import shlex

import pytest
from test_uneven_recommendation import pictures, surroundings  # noqa: F401

import metaloss as package
from metaloss.evaluation.rivals.fitting import FittedChoice
from metaloss.evaluation.rivals.logits import TAU, ChangeChoice
from metaloss.evaluation.rivals.methods import METHODS
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.recommendation.full_training import model_name, training_of
from metaloss.experiments.recommendation_by_training.commands import train_command
from metaloss.tasks import episodic_family
from metaloss.training.schedule import make_schedule

SETTING = Setting(0.3, 40)
FAST_FLAGS = {
    "tuning-tasks": ["2"],
    "test-tasks": ["3"],
    "set": ["classifier.hidden=[4]", "--set", "rates=[0.1,1.0]"],
}
AS_IS = {"dataset": "folder:scans", "ways": 3, "shots": "as-is", "val": "as-is"}


def family(**settings):
    return episodic_family.of({**AS_IS, **settings}, "scans", "test")


def change(constant, value, offsets=(), **others):
    return ChangeChoice("ce, change", constant, value, 0.9, lambda x: x, offsets, **others)


def test_it_is_the_classifier_the_optimiser_and_the_length_that_were_judged():
    inner = {"momentum": 0.5, "nesterov": True, "weight_decay": 1e-3}
    training = training_of(family(inner=inner, metric="macro_f1"), 37, SETTING, None)
    assert training.model == "mlp-128-64", "the default of tasks"
    assert (training.lr, training.batch) == (0.3, 37)
    assert (training.momentum, training.nesterov, training.weight_decay) == (0.5, True, 1e-3)
    assert training.validation == 0
    schedule = make_schedule(training, 37)
    rates = [0.3 * schedule.scale(step, []) for step in range(schedule.steps)]
    assert sum(rates) == pytest.approx(40 * 0.3, rel=0.05), "as far as at a constant rate"
    assert rates[-1] < 0.01 * max(rates)
    assert training.metric["kind"] == "macro_f1"
    assert training_of(family(inner={"batch": 8}), 37, SETTING, None).batch == 8
    patients = training_of(family(groups="patients.csv"), 37, SETTING, None)
    assert patients.groups == "patients.csv", "train cuts off test images, and no patient in two"
    assert "--groups patients.csv" in shlex.join(train_command("ce", patients))
    adam = training_of(family(inner={"optimiser": "adam"}), 37, SETTING, None)
    assert adam.optimiser == "adam"


def test_what_is_done_after_training_is_done_there_too():
    def changed(rival):
        return training_of(family(), 37, SETTING, rival)

    assert changed(change(TAU, 1.5)).prior_correction == 1.5
    assert changed(change(TAU, 0.0)) == changed(None), "no correction at all was best"
    offsets = changed(change("largest offset", 1.0, (0.0, 1.0, 0.5)))
    assert offsets.thresholds
    assert offsets.validation > 0, "thresholds are chosen on images that are held out"
    assert changed(change("T", 2.0)) is None
    assert changed(change("T", 2.0, probabilities=False)) is None
    assert changed(FittedChoice(METHODS[0], 10.0, 0.6)) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"classifier": {"kind": "cnn"}},
        {"shots": 5, "val": 5},
        {"inner": {"schedule": "cosine"}},
        {"inner": {"optimiser": "adam", "eps": 1e-4}},
        {"inner": {"warmup": 3}},
        {"augment": {"kind": "shift", "pad": 1}},
        {"noise": {"kind": "symmetric", "share": 0.2}},
    ],
)
def test_there_is_none_where_train_does_not_do_so(settings):
    assert training_of(family(**settings), 37, SETTING, None) is None


def test_models_are_named_by_their_widths():
    assert model_name({"kind": "mlp", "hidden": [4]}) == "mlp-4"
    assert model_name({"kind": "mlp", "hidden": []}) == "linear"
    assert model_name({"kind": "linear"}) == "linear"
    assert model_name({"kind": "cnn"}) is None


def test_the_printed_command_trains_all_images_as_printed(tmp_path, metaloss):
    train, test = (tmp_path / "scans" / part for part in ("train", "test"))
    pictures(train, benign=29, malign=14, rare=9)
    for place in sorted(train.iterdir()):
        (test / place.name).mkdir(parents=True)
        for file in sorted(place.iterdir())[:5]:
            file.rename(test / place.name / file.name)
    options = ("--losses", "mse", "--no-rivals", "--json", "--data", "folder:scans")
    fast = [word for key, value in FAST_FLAGS.items() for word in (f"--{key}", *value)]
    code, out, err = metaloss("recommend", *options, *fast)
    assert code == 0, err
    summary = json.loads(out)
    program, *words = shlex.split(summary["train"])
    assert program == "metaloss"
    code, out, _ = metaloss(*words, "--json")
    assert code == 0
    trained = json.loads(out)
    assert trained["images"] == {"train": 37, "validation": 0, "test": 15}
    assert trained["model"] == "mlp-4"
    call = summary["code"][0].removeprefix("fitted = ")
    fitted = eval(call, {"metaloss": package})
    assert fitted.accuracy == [trained["trainings"][0]["accuracy"]], "the same in Python"
    (row,) = trained["table"]
    assert row["lr"] == summary["verdict"]["setting"]["lr"]
