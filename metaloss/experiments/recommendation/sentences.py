"""What the numbers of a recommendation allow one to say."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from metaloss.core.formatting import counted, near_chance, printable
from metaloss.core.metric_scale import ACCURACY, MetricScale
from metaloss.evaluation.rivals import FITTED
from metaloss.experiments.comparison.losses import CE
from metaloss.experiments.comparison.sentences import name_in_sentence
from metaloss.experiments.recommendation.fold_results import FoldResults
from metaloss.experiments.recommendation.losses import EXPECTED_GAINS
from metaloss.experiments.recommendation.rivals import setting_in_words
from metaloss.experiments.recommendation.selection import ChoiceEvaluation, LossChoice
from metaloss.experiments.recommendation.verdict import (
    SEARCH_CERTAINTY,
    ScoreGain,
    Verdict,
    worth_searching,
)


def search_in_words(gain: ScoreGain, scale: MetricScale, loss: str) -> str:
    """Whether a search for a loss is worth its time, by what the losses tried could do.

    Args:
        gain: of choosing among the losses alone, over cross-entropy at its best, on new images.
        scale: how scores are shown.
        loss: the best of those tried.
    """
    mean, low, high = map(scale.signed, (gain.mean, gain.low, gain.high))
    seen = f"{mean}{scale.unit} ({100 * SEARCH_CERTAINTY:g} % interval {low} to {high})"
    if worth_searching(gain, scale):
        return (
            f"A search (metaloss evolve) may be worth it: the losses tried gain {seen} over "
            f"cross-entropy at its best number of steps, so the loss matters here, and an evolved "
            f"one could gain about as much. {loss} gives most of that without one."
        )
    return (
        "A search (metaloss evolve) is not worth it: by these images the losses tried gain "
        f"{seen} over cross-entropy at its best number of steps, and an evolved one can hardly be "
        "expected to do better."
    )


def fold_in_words(choice: LossChoice, judged: ChoiceEvaluation) -> str:
    """What a fold's images say of what was chosen without them."""
    scale = judged.scale

    def reached(name: str) -> str:
        score = float(judged.measures[name].score.double().nan_to_num(nan=0.0).mean())
        return scale.text(scale.value(score))

    name = choice.winner
    chosen = choice.settings[name].spec if name in choice.settings else ""
    if name == CE:
        return f"chosen without it: cross-entropy; on it {scale.title} {reached(CE)}"
    return (
        f"chosen without it: {chosen or name}; on it {scale.title} {reached(name)}, "
        f"cross-entropy {reached(CE)}"
    )


def stopped(folds: FoldResults, of: int) -> str:
    """What the folds say that were judged before the user stopped; it is no recommendation."""
    scale = folds.scale
    gain = scale.interval(scale.difference(asdict(folds.whole())))
    return (
        f"Stopped after {counted(len(folds.choices), 'fold')} of {of}: this is part of an answer "
        f"and no recommendation. On {'it' if len(folds.choices) == 1 else 'them'} the losses "
        f"chosen gained {gain}{scale.unit} over cross-entropy; settings in the table are those of "
        "the last of them."
    )


def small(
    classes: int,
    images: str,
    steps: int,
    classifier: str,
    reached: float,
    scale: MetricScale = ACCURACY,
) -> str:
    """That the numbers are of small trainings, and how far those come.

    Args:
        classes: of a task.
        images: how many a class has to train with, in words.
        steps: how long a classifier trains.
        classifier: its name.
        reached: what cross-entropy reaches in the folds.
        scale: how that is shown.
    """
    chance = near_chance(reached, classes) if scale.is_accuracy else ""
    return (
        f"All of this is of small trainings: {classes} classes{chance}, "
        f"{images}, {classifier}, {steps} steps, in which cross-entropy reaches "
        f"{scale.named(reached)}. A real training on all images reaches another level, where "
        "another loss may be best."
    )


def sentences(verdict: Verdict, final: LossChoice, images: int) -> list[str]:
    """What the numbers allow one to say.

    Args:
        verdict: the recommendation.
        final: the choice on all images.
        images: how many there are.
    """
    if verdict.expected:
        first = _expected(verdict)
    else:
        first = _for(verdict) if verdict.evidence else _against(verdict, images)
    return [*first, _folds(verdict), *_late(verdict, final)]


def beside_losses(final: LossChoice, folds: FoldResults) -> list[str]:
    """What the strongest of what is no loss is beside the best loss; nothing where it is worse.

    Args:
        final: the choice on all images, for the losses' own parameters.
        folds: what came of the folds.
    """
    if not folds.rivals:
        return []
    scale = folds.scale
    rival = folds.best(folds.rivals)
    label = folds.best(list(final.settings))
    gain = folds.gain(rival, label)
    ours, theirs = (scale.text(folds.value(folds.of_loss(x))) for x in (rival, label))
    reached = f"{ours} beside {theirs}"
    loss = final.settings[label].spec or name_in_sentence(label)
    other = f"the best loss here, {loss}"
    name = f"{rival}, which is no loss,"
    if gain.low > 0:
        return [f"{name} is better than {other}: {reached}."]
    if gain.high < 0:
        return []
    if max(abs(gain.low), abs(gain.high)) <= scale.negligible:
        return [f"{name} does as well as {other}: {reached}."]
    if gain.mean >= 0:
        return [f"{name} reaches at least what {other}, does: {reached}; too few images to tell."]
    return []


def rarest(classes: Sequence[str], counts: Sequence[int], scale: MetricScale) -> str:
    """What the images of the smallest class can tell.

    Args:
        classes: their names.
        counts: how many images each has.
        scale: how scores are shown.
    """
    least = min(counts)
    name = printable(classes[counts.index(least)])
    worth = f"one of them is {100 / least:.1f} points of its recall"
    if scale.kind == "balanced_accuracy":
        worth += f" and {100 / least / len(counts):.1f} of balanced accuracy"
    return (
        f"The rarest class, {name}, has {counted(least, 'image')}, each held out once: {worth}. "
        "What its own recall is cannot be told more closely; the table's differences are over all "
        "classes."
    )


def _for(verdict: Verdict) -> list[str]:
    change = _change(verdict.gain, verdict)
    return [f"{_use(verdict)}: choosing so {change} over cross-entropy on new images."]


def _expected(verdict: Verdict) -> list[str]:
    change = _change(verdict.gain, verdict)
    alone = "" if verdict.evidence else "; these images alone are no evidence for it"
    return [
        f"{_use(verdict)}: that {change} over cross-entropy on new images{alone}. It was expected "
        "to help before they were looked at, because classes are uneven and the metric counts "
        "them alike: on long tails of other images, in small trainings, it gained "
        f"{EXPECTED_GAINS[verdict.scale.kind]:g} points."
    ]


def _use(verdict: Verdict) -> str:
    """What to use, and at which settings."""
    setting = verdict.setting
    rate = f"at learning rate {setting.lr:g}"
    rival = verdict.rival
    if rival is not None:
        chosen = setting_in_words(rival)
        own = f" ({chosen})" if chosen else ""
        if rival.kind == FITTED:
            return f"Use {rival.name}{own}, which is no loss"
        change = rival.name.removeprefix(f"{CE}, ")
        return f"Train with cross-entropy {rate} with {setting.steps} steps, then {change}{own}"
    if verdict.faster:  # then the advice holds for so short a training alone
        return f"Where training takes {setting.steps} steps, use {verdict.name} {rate}"
    return f"Use {verdict.name} {rate} with {setting.steps} steps"


def _against(verdict: Verdict, images: int) -> list[str]:
    rate = f"(learning rate {verdict.setting.lr:g}, {verdict.setting.steps} steps)"
    begin = f"No evidence for anything but cross-entropy {rate}"
    if not any(n for name, n in verdict.chosen.items() if name != CE):
        return [f"{begin}: no fold found a better one."]
    if verdict.gain.low > 0:  # and yet cross-entropy is best on all images together
        change = _change(verdict.gain, verdict)
        return [
            f"{begin}: it is the best on all images, though choosing another, as folds did, "
            f"{change}."
        ]
    lines = [f"{begin}: choosing another {_change(verdict.gain, verdict)} on new images."]
    # Where the whole interval lies below 0 there is nothing that more images could show.
    if verdict.gain.high < 0:
        return lines
    # How wide the interval is, not where it lies: a number of images from the gain seen would be
    # read off its noise.
    width = _amount((verdict.gain.high - verdict.gain.low) / 2, verdict.scale)
    about = f"With these {images} images gains below about {width} cannot be told from none"
    return [*lines, f"{about}; four times as many images would halve that."]


def _folds(verdict: Verdict) -> str:
    listed = ", ".join(
        f"{name_in_sentence(name)} {n}" for name, n in Counter(verdict.chosen).most_common()
    )
    folds = sum(verdict.chosen.values())
    best = name_in_sentence(verdict.best)
    return f"Chosen by the {folds} folds: {listed}; on all images: {best}."


def _late(verdict: Verdict, final: LossChoice) -> list[str]:
    """What becomes of a gain where cross-entropy may train for longer."""
    gain = verdict.late
    if not verdict.evidence or gain is None or final.late is None:
        return []
    steps = final.late.steps
    own_steps = verdict.setting.steps
    ce = f"With {steps} steps (learning rate {final.late.lr:g}) cross-entropy"
    if steps == own_steps:
        ce = "At its best number of steps, the same one, cross-entropy"
    again = f"; --set inner.steps={steps} asks what is best there" if steps != own_steps else ""
    if gain.high < 0:
        return [
            f"{ce} is better still, by {_amount(-gain.mean, verdict.scale)}: train for longer "
            f"rather than differently{again}."
        ]
    if gain.low <= 0:
        return [f"{ce} reaches the same: {verdict.name} is faster, not better{again}."]
    return [f"{ce} does not reach it: {verdict.name} generalises better here."]


def _change(gain: ScoreGain, verdict: Verdict) -> str:
    """What is gained or lost, with its interval; more is better, whatever the metric."""
    scale = verdict.scale
    better = "" if scale.maximise else "less "
    of_what = "" if scale.is_accuracy else f" of {better}{scale.title}"
    low, high = map(scale.signed, (gain.low, gain.high))
    interval = f"({100 * verdict.certainty:g} % interval {low} to {high})"
    return f"{scale.change(gain.mean)}{of_what} {interval}"


def _amount(gain: float, scale: MetricScale) -> str:
    return f"{scale.number(gain):.{scale.digits}f}{scale.unit}"
