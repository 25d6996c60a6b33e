"""A loss that is known to help is judged as it is, and used unless the images speak against it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from test_uneven_recommendation import BALANCED, FAST, UNEVEN, pictures, surroundings  # noqa: F401

import metaloss
from metaloss.core.metric_scale import MetricScale
from metaloss.evaluation.rivals.logits import TAU, ChangeChoice
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.recommendation import question, sentences
from metaloss.experiments.recommendation.losses import EXPECTED, read_losses
from metaloss.experiments.recommendation.selection import LossChoice
from metaloss.experiments.recommendation.verdict import ScoreGain, decide

CORRECTION = ChangeChoice("ce, prior correction", TAU, 1.5, 0.9, lambda x: x)
FINAL = LossChoice(
    {"ce": Setting(0.1, 20, 0.5), "mse": Setting(0.3, 20, 0.7), EXPECTED: Setting(0.2, 20, 0.8)},
    None,
    shown=frozenset({EXPECTED}),
)


@dataclass(frozen=True)
class Folds:
    """What folds say of choosing, and of the loss that is expected to help."""

    chosen: ScoreGain
    own: ScoreGain
    fixed: str = ""
    certainty: float = 0.95
    scale: MetricScale = BALANCED
    choice_counts: Mapping[str, int] = field(default_factory=lambda: Counter({"mse": 3}))

    def whole(self):
        return self.own if self.fixed else self.chosen

    def late(self):
        return None

    def fixed_to(self, name):
        assert name == EXPECTED
        return replace(self, fixed=name)


def folds_of(chosen, own):
    return Folds(*(ScoreGain((low + high) / 2, low, high) for low, high in (chosen, own)))


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
        question, "decide", lambda final, folds, expected: replace(
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
    page = (advice.folder / "report.html").read_text()
    assert f"decides beside {EXPECTED}, which was named before" in page
    assert advice.summary["choice"]["mean"] != advice.gain.mean == 0.03
