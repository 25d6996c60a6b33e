"""`study` scores every loss under every setting once, and its folder can be resumed."""

import csv
import json
import math

import pytest
from scans import TASKS, TRAIN, written

import metaloss
from metaloss.core.reporting import Reporter
from metaloss.errors import Interrupted, SettingsError
from metaloss.experiments.rank_study import regimes, run

LOSSES = ["ce", "mse", "-y * (1 - p) * logp"]
SMALL = {"tasks": 3, "device": "cpu"}


@pytest.fixture(autouse=True)
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path)


class Teller(Reporter):
    """Hears of scores, and stops a study after some of them."""

    def __init__(self, stop_after=math.inf):
        self.scores = []
        self.most = stop_after

    def on_score(self, loss, score, place):
        self.scores.append((loss, place))

    def stop(self):
        return len(self.scores) >= self.most


def table(folder):
    return list(csv.DictReader((folder / "results.csv").read_text().splitlines()))


def test_a_study_leaves_a_folder_that_says_everything():
    found = metaloss.study(LOSSES, [TASKS, TRAIN], **SMALL)
    assert found.folder.as_posix() == "studies/rank-0"
    names = {x.name for x in found.folder.iterdir()}
    assert names >= {
        "config.toml",
        "provenance.json",
        "results.csv",
        "scatter.pdf",
        "scatter.png",
        "taus.json",
    }
    rows = table(found.folder)
    assert [(x["setting"], x["loss"]) for x in rows] == [
        (s, x) for s in (TASKS, TRAIN) for x in LOSSES
    ]
    assert [float(x["accuracy"]) for x in rows] == [x["accuracy"] for x in found.scores]
    assert all(0 < float(x["accuracy"]) <= 1 for x in rows)
    # A family has its own rate; so few images and steps get the least one of full-size training.
    assert {(x["setting"], x["lr"]) for x in rows} == {(TASKS, "0.1"), (TRAIN, "0.03")}
    (pair,) = json.loads((found.folder / "taus.json").read_bytes())["pairs"]
    assert (pair["a"], pair["b"], pair["all"]["n"], pair["k"]) == (TASKS, TRAIN, 3, 2)
    assert not list(found.folder.rglob("model.safetensors"))
    trained = (found.folder / "scores").glob("2-*/trainings/epochs.csv")
    assert len(next(trained).read_text().splitlines()) == 1 + 2 * len(LOSSES)
    about = json.loads((found.folder / "provenance.json").read_bytes())
    assert about["asked"] == LOSSES
    assert f"data of {TASKS}" in about["conditions"]


def test_a_full_size_score_is_validation_accuracy_averaged_over_seeds():
    setting = f"{TRAIN},seeds=2"
    found = metaloss.study(["ce", "mse"], [setting, f"{TRAIN},lr=0.01"], **SMALL)
    flags = {"steps": 4, "epoch_steps": 2, "batch": 4, "device": "cpu", "seeds": 2}
    fitted = metaloss.fit("ce", "convnet", "folder:scans", **flags)
    last = [record["val_accuracy"] for record in fitted.history if record["epoch"] == 2]
    assert found.scores[0]["accuracy"] == pytest.approx(sum(last) / 2)
    assert found.scores[0]["n"] == 2


def test_a_stopped_study_goes_on_and_computes_no_score_again():
    whole = metaloss.study(LOSSES, [TASKS, TRAIN], out="whole", **SMALL)
    teller = Teller(stop_after=4)
    with pytest.raises(Interrupted):
        metaloss.study(LOSSES, [TASKS, TRAIN], reporter=teller, stop=teller.stop, **SMALL)
    assert len(teller.scores) == 4
    rest = Teller()
    found = metaloss.study(resume="rank-0", reporter=rest)
    assert rest.scores == [(LOSSES[1], (2, 3)), (LOSSES[2], (3, 3))]
    assert (found.scores, found.pairs) == (whole.scores, whole.pairs)
    again = Teller()
    assert metaloss.study(resume=found.folder, reporter=again).pairs == whole.pairs
    assert again.scores == []


@pytest.mark.parametrize("stop_after", [4, 5])
def test_the_tables_of_a_stopped_study_hold_every_training(stop_after):
    whole = metaloss.study(LOSSES, [TASKS, TRAIN], out="whole", **SMALL)
    teller = Teller(stop_after)
    with pytest.raises(Interrupted):
        metaloss.study(LOSSES, [TASKS, TRAIN], reporter=teller, stop=teller.stop, **SMALL)
    found = metaloss.study(resume="rank-0")
    (ours,) = found.folder.glob("scores/2-*/trainings/epochs.csv")
    (theirs,) = whole.folder.glob("scores/2-*/trainings/epochs.csv")
    assert ours.read_bytes() == theirs.read_bytes()
    assert len(ours.read_text().splitlines()) == 1 + 2 * len(LOSSES)


def test_each_loss_gets_the_best_of_the_rates():
    rates = [1e-6, 0.3]
    chosen = metaloss.study(
        ["ce", "mse"], [f"{TASKS},rates=[{rates[0]},{rates[1]}]", f"{TASKS},name=own"], **SMALL
    )
    one = metaloss.study(
        ["ce", "mse"], [f"{TASKS},rates={rates[0]}", f"{TASKS},rates={rates[1]}"], **SMALL
    )
    at = {(x["loss"], x["lr"]): x["accuracy"] for x in one.scores}
    for row in chosen.scores[:2]:
        assert row["accuracy"] == max(at[row["loss"], lr] for lr in rates)
        assert row["lr"] in rates
    assert {x["lr"] for x in chosen.scores[2:]} == {0.1}


def test_a_failed_training_counts_as_nothing_right():
    """A gradient that no weight survives; with a rate of its own a training does not clip it."""
    train = f"{TRAIN},lr=0.03,seeds=2"
    found = metaloss.study(["ce", "-1e38 * y * logp"], [TASKS, train], **SMALL)
    failed = [x for x in found.scores if x["loss"] != "ce"]
    assert [(x["accuracy"], x["failed"], x["n"]) for x in failed] == [(0.0, 3, 3), (0.0, 2, 2)]
    assert "seed 0: " in failed[1]["reason"]
    assert failed[0]["reason"] == ""
    assert found.summary["settings"][TASKS]["failed"] == 1
    assert found.pairs[0]["all"]["tau"] == pytest.approx(1.0)


def test_random_formulas_are_kept_by_their_text():
    found = metaloss.study(["ce", "random:2"], [TASKS, f"{TASKS},inner.lr=0.3"], **SMALL)
    labels = [x["loss"] for x in found.scores[:3]]
    assert len(set(labels)) == 3
    assert all("sum(" in x for x in labels[1:])
    again = metaloss.study(resume=found.folder)
    assert [x["loss"] for x in again.scores[:3]] == labels


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": "ce"}, "a study orders losses: give two or more, got 1"),
        ({"settings": ["tasks:nothing", "tasks:digits"]}, "unknown task family 'nothing'"),
        (
            {"settings": ["train:model=convnt", "tasks:digits"]},
            "unknown model 'convnt'. Did you mean 'convnet'?",
        ),
        (
            {"settings": ["tasks:fashionmnist,iner.steps=3", "train:"]},
            "unknown setting 'iner'. Did you mean 'inner'?",
        ),
        (
            {"settings": ["train:epoch=3", "train:"]},
            "train: unknown setting 'epoch'. Did you mean 'epochs'?",
        ),
        ({"resume": "x"}, "a resumed study keeps its losses and settings"),
    ],
)
def test_wrong_input_is_refused_and_leaves_no_folder(changes, message, tmp_path):
    with pytest.raises(SettingsError) as error:
        metaloss.study(
            **{"losses": ["ce", "mse"], "settings": ["train:", "tasks:digits"], **SMALL, **changes}
        )
    assert message in str(error.value)
    assert not (tmp_path / "studies").exists()


def test_without_lightning_full_size_training_is_refused(monkeypatch):
    from metaloss.training import fitting

    monkeypatch.setattr(fitting, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="full-size training needs Lightning"):
        metaloss.study(["ce", "mse"], [TASKS, TRAIN], **SMALL)
    assert metaloss.study(["ce", "mse"], [TASKS, f"{TASKS},inner.lr=1.0"], **SMALL).pairs


def test_a_study_of_other_versions_is_not_gone_on_with_unasked(monkeypatch):
    found = metaloss.study(["ce", "mse"], [TASKS, f"{TASKS},inner.lr=0.3"], **SMALL)
    monkeypatch.setattr(run, "describe_environment", lambda *args: {"torch": "0"})
    with pytest.raises(SettingsError, match=r"torch: was .*, is 0"):
        metaloss.study(resume=found.folder)
    assert metaloss.study(resume=found.folder, allow_changes=True).pairs == found.pairs


def test_scores_of_failures_are_means_with_zeros():
    found = regimes.as_score(0.1, [0.5, math.nan, 1.0], "why")
    assert (found.accuracy, found.n, found.failed, found.reason) == (0.5, 3, 1, "why")
    assert found.std == pytest.approx(0.5)
    assert regimes.as_score(0.1, [0.5]).std is None


def test_an_axis_names_its_setting_in_whole_words():
    from metaloss.experiments.rank_study.figures import _wrapped

    lines = (
        _wrapped("train:model=convnet,data=fashionmnist,subset=5-per-class,steps=4")
        .replace("\n", " ")
        .split()
    )
    assert lines == [
        "train:model=convnet,",
        "data=fashionmnist,",
        "subset=5-per-class,",
        "steps=4",
        "[%]",
    ]


def test_scores_are_by_the_family_s_metric_in_its_own_sign_with_accuracy_beside_it(capsys):
    by = {x: f"{TASKS},metric={x}" for x in ("nll", "worst_recall")}
    losses = ["ce", "mse", "-1e38 * y * logp"]
    with metaloss.Console() as talk:
        found = metaloss.study(losses, [TASKS, *by.values()], reporter=talk, **SMALL)
    plain, nll, recall = (found.scores[i : i + 3] for i in (0, 3, 6))
    assert [x["accuracy"] for x in nll] == pytest.approx([x["accuracy"] for x in plain], abs=1e-6)
    assert all(0 < x["nll"] < 15.9 for x in nll[:2])
    assert nll[2]["nll"] == pytest.approx(15.94, abs=0.01)  # of a training that failed
    assert [x["worst_recall"] <= x["accuracy"] for x in recall] == [True] * 3
    assert set(plain[0]) == {"setting", "loss", "lr", "accuracy", "std", "n", "failed", "reason"}
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith(f"setting {by['nll']}: negative log-likelihood, mean over")
    row = next(x for x in lines[lines.index(f"under   {by['nll']}") :] if x.endswith(" mse"))
    assert f"{nll[1]['nll']:.3f}  (accuracy {100 * nll[1]['accuracy']:5.1f} %)" in row
    assert any("points of worst recall below the best" in x for x in lines)
    assert any("a failed training counts as the worst value" in x for x in lines)
    # The lowest is the best.
    (first,) = [x for x in found.pairs if (x["a"], x["b"]) == (TASKS, by["nll"])]
    best = min(nll, key=lambda x: x["nll"])
    picked = next(x for x in nll if x["loss"] == first["pick"])
    assert first["loses"] == pytest.approx(picked["nll"] - best["nll"])
    assert metaloss.study(resume=found.folder).scores == found.scores
