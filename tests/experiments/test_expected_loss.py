"""A loss that is known to help is judged as it is, and used unless the images speak against it."""

from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch
from test_uneven_recommendation import BALANCED, FAST, UNEVEN, pictures, surroundings  # noqa: F401

import metaloss
from metaloss.core.streams import Stream
from metaloss.evaluation.rivals.logits import TAU, ChangeChoice
from metaloss.evaluation.statistics import Draws
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.recommendation import run, sentences
from metaloss.experiments.recommendation.losses import EXPECTED, read_losses
from metaloss.experiments.recommendation.selection import LossChoice
from metaloss.experiments.recommendation.verdict import FoldResults, ScoreGain, decide

CORRECTION = ChangeChoice("ce, prior correction", TAU, 1.5, 0.9, lambda x: x)
FINAL = LossChoice(
    {"ce": Setting(0.1, 20, 0.5), "mse": Setting(0.3, 20, 0.7), EXPECTED: Setting(0.2, 20, 0.8)},
    None,
    shown=frozenset({EXPECTED}),
)


@dataclass(frozen=True)
class Folds(FoldResults):
    """What folds say of choosing, and of the loss that is expected to help."""

    chosen: ScoreGain | None = None
    own: ScoreGain | None = None

    @property
    def choice_counts(self):
        return Counter({"mse": 3})

    def whole(self):
        return self.chosen

    def gain(self, name, other="ce"):
        assert (name, other) == (EXPECTED, "ce")
        return self.own

    def late(self):
        return None


def folds_of(chosen, own):
    gains = [ScoreGain((low + high) / 2, low, high) for low, high in (chosen, own)]
    rows = torch.arange(4)[None]
    draws = Draws.of(rows, rows // 2, Stream(0), 2)
    return Folds((), (), draws, 0.95, BALANCED, "", *gains)


@pytest.mark.parametrize(
    ("chosen", "own", "loss", "evidence"),
    [
        ((-0.02, 0.05), (-0.01, 0.07), EXPECTED, False),
        ((-0.02, 0.05), (0.01, 0.07), EXPECTED, True),
        ((0.01, 0.05), (0.02, 0.07), EXPECTED, True),
        ((0.01, 0.09), (0.02, 0.07), "mse", True),
        ((-0.02, 0.05), (-0.05, 0.02), "ce", False),
        ((0.01, 0.05), (-0.05, 0.02), "mse", True),
    ],
)
def test_it_is_used_unless_it_loses_or_what_was_chosen_gains_more(chosen, own, loss, evidence):
    verdict = decide(FINAL, folds_of(chosen, own), EXPECTED)
    assert (verdict.loss, verdict.evidence) == (loss, evidence)
    assert verdict.expected == (loss == EXPECTED)
    assert verdict.setting == FINAL.settings[loss]
    text = " ".join(sentences.sentences(verdict, FINAL, 183))
    assert ("It was expected to help" in text) == verdict.expected
    assert ("no evidence for it" in text) == (verdict.expected and not evidence)


def test_without_one_the_choice_alone_decides():
    assert decide(FINAL, folds_of((-0.02, 0.05), (0.01, 0.07))).loss == "ce"


def test_it_is_never_chosen_among_the_others():
    assert FINAL.winner == "mse"
    assert FINAL.best_loss == "mse"
    assert replace(FINAL, rivals={CORRECTION.name: CORRECTION}).winner == CORRECTION.name


def test_it_is_named_only_beside_the_usual_losses_and_where_classes_count_alike(tmp_path):
    def expected(losses, **options):
        return read_losses(losses, tmp_path, uneven=True, **options).expected

    assert expected(None, metric="balanced_accuracy") == EXPECTED
    assert expected(["usual", "mae"], metric="macro_f1") == EXPECTED
    assert expected(None, metric="cost") == ""
    assert expected(["mae"], metric="macro_f1") == ""
    assert expected(["usual", EXPECTED], metric="macro_f1") == "", "then it is chosen like others"
    assert read_losses(None, tmp_path, metric="macro_f1").expected == "", "classes are even"


def test_what_is_said_and_printed_is_of_that_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(
        run, "decide", lambda final, folds, expected: replace(
            decide(final, folds), loss=expected, setting=final.settings[expected], expected=True,
            gain=ScoreGain(0.03, -0.01, 0.07), rival=None,
        )
    )  # fmt: skip
    data = pictures(tmp_path / "scans", **UNEVEN)
    fast = FAST | {"rates": (0.1,), "rivals": False}
    advice = metaloss.recommend(data, ["usual"], **fast)
    assert advice.name == EXPECTED
    assert not advice.evidence
    assert f"--loss '{EXPECTED}'" in advice.summary["train"]
    answer = " ".join(part["text"] for part in advice.summary["answer"])
    assert "too few to confirm it: the gain lies between -1.0 and +7.0 points" in answer
    assert "tells the training how frequent each class is" in answer
    assert EXPECTED not in {x["chosen"] for x in advice.summary["folds"]}
    (row,) = (row for row in advice.table if row["loss"] == EXPECTED)
    assert row["chosen"] == 0
    assert f'loss = metaloss.load("{EXPECTED}", prior=[24, 9, 4])' in advice.code
    records = {x["loss"]: x for x in advice.summary["held_out"]}
    assert records[EXPECTED]["about"].startswith("recommended; here in every fold")
    recall = records[EXPECTED]["recall"]
    recall = list(recall.values()) if isinstance(recall, dict) else recall
    assert sum(recall) / 3 == pytest.approx(row["balanced_accuracy"])
    assert set(records) - {"ce", EXPECTED} <= {"chosen by the folds"}
