"""The answer of `recommend` in plain words: what it says of which numbers, on one screen."""

import shlex
from dataclasses import replace

import pytest

from metaloss.core import registry
from metaloss.core.metric_scale import ACCURACY, MetricScale
from metaloss.core.proportions import wilson
from metaloss.evaluation.rivals.fitting import FittedChoice
from metaloss.evaluation.rivals.logits import ChangeChoice
from metaloss.evaluation.rivals.methods import METHODS
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.recommendation import answer, plain_words, text
from metaloss.experiments.recommendation.answer import Evidence
from metaloss.experiments.recommendation.class_recalls import ClassRecall
from metaloss.experiments.recommendation.losses import FEW_SHOT
from metaloss.experiments.recommendation.verdict import ScoreGain, Verdict
from metaloss.losses import zoo

BALANCED = MetricScale("balanced_accuracy", "balanced accuracy", guess=1 / 3)
RECALLS = [
    ClassRecall("coat", 45, 0.61, 0.58),
    ClassRecall("pullover", 120, 0.87, 0.81),
    ClassRecall("shirt", 18, 0.20, 0.57),
]
COMMAND = (
    "metaloss train --data folder:scans --model mlp-128-64 --loss "
    "'logit_adjustment_smoothed(tau=1, alpha=0.1)' --lr 0.2 --batch 183 --steps 200 --metric "
    "balanced_accuracy --momentum 0 --schedule constant --set nesterov=false --set validation=0.0"
)
EVIDENCE = Evidence(
    (0.56, 0.653), RECALLS, 183, losses=10, methods=9, network="a small network (mlp)", search=False
)
SETTING = Setting(0.1, 200)


def verdict(low, mean, high, loss="ce", **others):
    """A verdict with this gain."""
    gain = ScoreGain(mean, low, high)
    return Verdict(loss, SETTING, "best", gain, None, {}, 0.95, BALANCED, **others)


BETTER = verdict(0.077, 0.13, 0.183, "logit_adjustment")
EXPECTED = replace(
    verdict(0.044, 0.098, 0.152, "logit_adjustment_smoothed(tau=1, alpha=0.1)"), expected=True
)
UNKNOWN = verdict(-0.004, 0.057, 0.117)
NOTHING = verdict(-0.012, 0.0, 0.008)
SLIGHT = verdict(0.001, 0.009, 0.017, "mse")


def said(found, evidence=EVIDENCE):
    return {part["label"]: part["text"] for part in answer.parts(found, evidence)}


def screen(found, evidence=EVIDENCE, width=None):
    """All lines of the answer."""
    summary = {
        "answer": answer.parts(found, evidence),
        "recognised": answer.recall_rows(evidence.recalls, found.evidence),
        "train": COMMAND,
        "code": [],
    }
    return text.answer_lines(summary, width)


def test_a_gain_says_what_to_use_by_how_much_and_how_sure_it_is():
    parts = said(BETTER)
    assert list(parts) == ["answer", "gain", "certain", "unknown", "search"]
    assert parts["answer"].startswith("Train with the loss logit_adjustment in place of the usual")
    assert "tried at learning rate 0.1 with 200 training steps" in parts["answer"]
    assert "how frequent each class is, so that rare ones are not given up" in parts["answer"]
    assert parts["gain"].endswith(
        "65.3 % instead of 56.0 %, 13.0 points more. The price: pullover is recognised less often."
    )
    assert "averaged over the classes" in parts["gain"]
    assert "between +7.7 and +18.3 points, with 95 % certainty" in parts["certain"]
    assert "With 18 images of shirt to test on" in parts["unknown"]
    assert "one that does better than the loss above" in parts["search"]
    assert "known losses gain nothing" in said(UNKNOWN)["search"]


def test_of_100_images_of_each_class_so_many_are_recognised():
    shown = answer.recall_rows(RECALLS, True)
    low, high = wilson(0.57, 18)
    assert shown[2] == {
        "of 100 images of": "shirt (18 tested)",
        "recognised by the usual loss": "20",
        "by this": "57",
        "95 % certain: between": f"{100 * low:.0f} and {100 * high:.0f}",
    }
    assert [row["by this"] for row in answer.recall_rows(RECALLS, False)] == [""] * 3
    many = [ClassRecall(f"class {n}", n + 1, 0.5, 0.5) for n in range(40)]
    assert len(answer.recall_rows(many, True)) == answer.CLASSES
    assert answer.recall_rows(many, True)[0]["of 100 images of"] == "class 0 (1 tested)"


def test_no_gain_is_said_plainly_with_what_can_be_excluded_and_what_would_help():
    parts = said(UNKNOWN)
    assert list(parts) == ["answer", "reached", "certain", "unknown", "helps", "search"]
    assert parts["answer"].startswith("Keep the usual loss, cross-entropy (the measure of error")
    assert "Of 10 other losses and 9 other methods none helped on new images" in parts["answer"]
    assert "by -0.4 to +11.7 points" in parts["certain"]
    assert "a gain is possible, but 183 images cannot tell it from chance" in parts["certain"]
    assert "of shirt first (72 in place of 18 would halve" in parts["helps"]
    assert "--features" in parts["helps"]
    assert "--features" not in said(UNKNOWN, replace(EVIDENCE, features=True))["helps"]
    assert "little or nothing is missed by keeping it" in said(NOTHING)["certain"]
    assert "it chose cross-entropy" in said(verdict(0.0, 0.0, 0.0))["certain"]
    assert "made answers on new images worse" in said(verdict(-0.09, -0.05, -0.01))["answer"]
    assert "best on all images together" in said(verdict(0.01, 0.05, 0.09))["answer"]


def test_where_images_have_groups_new_ones_are_asked_for():
    parts = said(UNKNOWN, replace(EVIDENCE, groups=31))
    assert "but 183 images of 31 groups cannot tell it from chance" in parts["certain"]
    assert "about 100, one of each group, would tell it" in parts["unknown"]
    assert "More images of new groups, of shirt first (72 in place" in parts["helps"]
    assert "group" not in " ".join(said(UNKNOWN).values())


@pytest.mark.parametrize(
    ("reached", "words"),
    [
        (0.97, "Of 100 images 97 are recognised, averaged over the classes: little is left"),
        (0.36, "Answers are hardly better than guesses. See whether the labels are right"),
        (0.7, "More images: four times as many would halve the uncertainty above."),
    ],
)
def test_what_helps_depends_on_what_is_reached(reached, words):
    recalls = [ClassRecall(name, 60, reached, reached) for name in "abc"]
    assert words in said(NOTHING, replace(EVIDENCE, recalls=recalls))["helps"]


def test_what_is_no_loss_is_recommended_as_what_it_is():
    change = ChangeChoice("ce, prior correction", "τ", 1.5, 0.6, lambda x: x)
    parts = said(verdict(0.02, 0.05, 0.08, change.name, rival=change))
    assert parts["answer"] == (
        "Train with cross-entropy, the usual loss, and afterwards shift the answers towards the "
        "rare classes (prior correction, τ = 1.5)."
    )
    method = FittedChoice(METHODS[0], 10.0, 0.6)
    parts = said(verdict(0.02, 0.05, 0.08, method.name, rival=method))
    assert parts["answer"].startswith("Use logistic regression (C = 10), a classical method,")
    assert "A larger network, which was not tried, may do better still." in parts["unknown"]


def test_a_gain_that_hardly_matters_is_called_so_with_what_would_help():
    parts = said(SLIGHT)
    assert parts["answer"].startswith("It matters little here what is used. Train with the loss")
    assert "More images" in parts["helps"]
    assert "helps" not in said(BETTER)


def test_a_loss_that_is_only_faster_is_not_recommended_without_that():
    faster = replace(BETTER, late=ScoreGain(0.0, -0.02, 0.02))
    parts = said(faster, replace(EVIDENCE, longer=Setting(0.05, 800)))
    assert parts["answer"].startswith("Train for longer rather than differently: with 800 steps")
    assert "Only where training must end after 200 steps, use logit_adjustment" in parts["answer"]


def test_a_search_is_spoken_of_where_it_was_asked_for():
    assert "search" not in said(BETTER, replace(EVIDENCE, search=None))
    assert "may be worth it" in said(BETTER, replace(EVIDENCE, search=True))["search"]
    assert "as far as can be told" in said(UNKNOWN, replace(EVIDENCE, search=True))["search"]
    unusual = replace(EVIDENCE, unusual=True)
    assert "--losses usual" in said(UNKNOWN, unusual)["search"]
    assert "may be worth it" in said(BETTER, replace(unusual, search=True))["search"]


def test_enough_images_leave_nothing_unknown_and_rankings_show_no_recalls():
    recalls = [ClassRecall(name, 100, 0.5, 0.5) for name in "ab"]
    assert "unknown" not in said(NOTHING, replace(EVIDENCE, recalls=recalls, network=""))
    assert plain_words.answers_decide(BALANCED)
    assert not plain_words.answers_decide(MetricScale("auroc", "AUROC"))
    assert "More images" in said(NOTHING, replace(EVIDENCE, recalls=[]))["helps"]


@pytest.mark.parametrize("found", [BETTER, EXPECTED, SLIGHT, UNKNOWN, NOTHING], ids="abcde")
@pytest.mark.parametrize("search", [None, False, True])
@pytest.mark.parametrize("classes", [3, 40])
def test_the_answer_is_one_screen(found, search, classes):
    recalls = [ClassRecall(f"class number {n}", 20 + n, 0.6, 0.7) for n in range(classes)]
    lines = screen(found, replace(EVIDENCE, search=search, recalls=recalls))
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("command metaloss train ") for line in lines)
    assert max(map(len, screen(found, EVIDENCE, 80))) <= 80


@pytest.mark.parametrize("kind", registry.names("metrics"))
def test_every_metric_is_said_in_plain_words(kind):
    assert plain_words.metric_in_plain_words(replace(ACCURACY, kind=kind))


def test_a_command_on_several_lines_is_one_for_the_shell():
    command = "metaloss train --data 'folder:my scans' --loss 'mln(a = 1)' --set validation=0.0"
    lines = text.command_lines(command, 40)
    assert len(lines) == 3
    assert max(map(len, lines)) <= 40
    joined = "\n        ".join(lines).replace("\\\n", "")  # as a shell does
    assert shlex.split(joined) == shlex.split(command)
    assert text.command_lines(command, 100) == [command]


def test_losses_with_words_have_a_name_and_names_stay_printable():
    assert set(plain_words.LOSSES) <= {*zoo.names(), FEW_SHOT}
    assert plain_words.loss_in_plain_words("anything else") == plain_words.ANY_LOSS
    (line,) = text.labelled("answer", "a\x1b[2Jb", 100)
    assert line == "answer  a\\x1b[2Jb"
