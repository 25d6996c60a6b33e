"""The answer to "what should I use?", in plain words and on one screen.

It says what to use, by how much and with what certainty that is better, what these images cannot
tell, what would help, and whether a search is worth it: each a part with a label of one word.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from metaloss.core.formatting import counted, printable
from metaloss.evaluation.rivals import FITTED
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.recommendation.class_recalls import ClassRecall
from metaloss.experiments.recommendation.losses import EXPECTED_GAINS
from metaloss.experiments.recommendation.plain_words import (
    loss_in_plain_words,
    method_in_plain_words,
    metric_in_plain_words,
)
from metaloss.experiments.recommendation.rivals import setting_in_words
from metaloss.experiments.recommendation.verdict import Verdict

LOSS = "the measure of error that training reduces"
CLASSES = 4  # that the answer shows, the rarest of them
PRICE = 0.05  # of a class's share that is lost: what is said
ENOUGH = 0.95  # of recognised images: more than that leaves little to gain
# Of a class: as many tell its recognised share to within a tenth (1.96² / 4 / 0.1²).
ENOUGH_IMAGES = 100


@dataclass(frozen=True)
class Evidence:
    """What an answer is made of, beside the verdict.

    Attributes:
        values: the metric's value with cross-entropy, and with what the folds chose.
        recalls: of the classes.
        images: how many there are.
        losses: how many were tried beside cross-entropy.
        methods: how many were tried that are no loss.
        longer: cross-entropy's best rate and number of steps; None where it has that.
        network: what was trained, in words; "" where there is no larger one to ask about.
        features: whether features took the place of the pixels.
        search: whether a search may be worth it; None where that was not asked.
        groups: of how many groups, such as patients, the images are; 0: each stands for itself.
        unusual: whether none of the usual losses was tried, so that little is known of a search.
    """

    values: tuple[float, float]
    recalls: Sequence[ClassRecall]
    images: int
    losses: int
    methods: int = 0
    longer: Setting | None = None
    network: str = ""
    features: bool = False
    search: bool | None = None
    groups: int = 0
    unusual: bool = False


def parts(verdict: Verdict, evidence: Evidence) -> list[dict[str, str]]:
    """The parts of the answer, each with its label and its text.

    Args:
        verdict: the recommendation.
        evidence: what it rests on.
    """
    slight = _is_slight(verdict)
    little = "It matters little here what is used. " if slight else ""
    texts = {
        "answer": f"{little}{_use(verdict, evidence)}",
        "gain" if verdict.changes else "reached": _level(verdict, evidence),
        "certain": _certainty(verdict, evidence),
        "unknown": _unknown(verdict, evidence),
        "helps": "" if verdict.evidence and not slight else _what_helps(evidence),
        "search": _search(verdict, evidence),
    }
    return [{"label": label, "text": text} for label, text in texts.items() if text]


def _is_slight(verdict: Verdict) -> bool:
    """Whether something is better than cross-entropy, and yet hardly worth the change."""
    return verdict.evidence and verdict.gain.mean < verdict.scale.negligible / 2


def _use(verdict: Verdict, evidence: Evidence) -> str:
    """What to use, at which settings."""
    setting = verdict.setting
    # The command may train for longer, at a rate that falls.
    settings = f"tried at learning rate {setting.lr:g} with {setting.steps} training steps"
    if verdict.faster and evidence.longer is not None:
        return (
            f"Train for longer rather than differently: with {evidence.longer.steps} steps "
            f"(learning rate {evidence.longer.lr:g}) the usual loss, cross-entropy ({LOSS}), does "
            f"as well. Only where training must end after {setting.steps} steps, use "
            f"{verdict.name} (learning rate {setting.lr:g})."
        )
    if not verdict.changes:
        return f"{_keep(verdict, evidence)} ({settings[0].upper()}{settings[1:]}.)"
    if verdict.rival is not None:
        own = setting_in_words(verdict.rival)
        return method_in_plain_words(verdict.rival, own)
    return (
        f"Train with the loss {verdict.name} in place of the usual one, cross-entropy "
        f"({settings}). A loss is {LOSS}. {loss_in_plain_words(verdict.loss.partition('(')[0])}"
    )


def _keep(verdict: Verdict, evidence: Evidence) -> str:
    """That cross-entropy stays, and why."""
    others = counted(evidence.losses, "other loss")
    if evidence.methods:
        others += f" and {counted(evidence.methods, 'other method')}"
    keep = f"Keep the usual loss, cross-entropy ({LOSS})."
    if verdict.gain.low > 0:
        return f"{keep} It is best on all images together, though parts of them favour another."
    if verdict.gain.high < 0:
        return f"{keep} Choosing among {others} made answers on new images worse."
    return f"{keep} Of {others} none helped on new images by more than chance does."


def _level(verdict: Verdict, evidence: Evidence) -> str:
    """What is reached, and what is gained, in the metric's value."""
    scale = verdict.scale
    ce, chosen = evidence.values
    meaning = metric_in_plain_words(scale)
    name = scale.title[0].upper() + scale.title[1:]
    of_what = f"{name} ({meaning})" if meaning else name
    if not verdict.changes:
        return f"{of_what}: {scale.text(ce)}."
    amount = f"{abs(scale.number(verdict.gain.mean)):.{scale.digits}f}{scale.unit}"
    more = "more" if scale.maximise else "less"
    gained = f"{of_what}: {scale.text(chosen)} instead of {scale.text(ce)}, {amount} {more}."
    return gained + _price(evidence.recalls)


def _price(recalls: Sequence[ClassRecall]) -> str:
    """The class that is recognised less often than before, where that is no small thing."""
    worst = max(recalls, key=lambda x: x.ce - x.chosen, default=None)
    if worst is None or worst.ce - worst.chosen < PRICE:
        return ""
    return f" The price: {printable(worst.name)} is recognised less often."


def _certainty(verdict: Verdict, evidence: Evidence) -> str:
    """How sure the gain is, or what gain cannot be excluded."""
    scale, gain = verdict.scale, verdict.gain
    sure = f"{100 * verdict.certainty:g} % certainty"
    low, high = map(scale.signed, (gain.low, gain.high))
    if verdict.expected:
        return _expected(verdict, low, high, sure)
    if verdict.evidence:
        return (
            f"On new images of this kind the gain lies between {low} and {high}{scale.unit}, with "
            f"{sure}. It was measured on images that neither the choice nor the training had seen."
        )
    if gain.low == gain.high == 0:
        return "Whatever part of the images chose, it chose cross-entropy."
    change = f"To choose another changes that by {low} to {high}{scale.unit}, with {sure}"
    if gain.high <= scale.negligible:
        return f"{change}: little or nothing is missed by keeping it."
    images = f"{evidence.images} images{_of_groups(evidence)}"
    return f"{change}: a gain is possible, but {images} cannot tell it from chance."


def _of_groups(evidence: Evidence) -> str:
    """Of how many groups the images are, where they have some."""
    return f" of {counted(evidence.groups, 'group')}" if evidence.groups else ""


def _expected(verdict: Verdict, low: str, high: str, sure: str) -> str:
    """How sure the gain is of a loss that was known to help before."""
    scale = verdict.scale
    known = (
        "It was known beforehand to help where classes are uneven and should count alike: on other "
        f"images it gained {EXPECTED_GAINS[scale.kind]:g} points."
    )
    between = f"between {low} and {high}{scale.unit}, with {sure}"
    if verdict.evidence:
        return f"{known} These images confirm it: on new ones the gain lies {between}."
    return f"{known} These images are too few to confirm it: the gain lies {between}."


def _unknown(verdict: Verdict, evidence: Evidence) -> str:
    """What these images cannot tell."""
    texts = []
    if evidence.recalls:
        rarest = min(evidence.recalls, key=lambda x: x.images)
        if rarest.images < ENOUGH_IMAGES:
            images = counted(rarest.images, "image")
            single = ", one of each group," if evidence.groups else ""
            texts.append(
                f"With {images} of {printable(rarest.name)} to test on, its recognised share is "
                f"known no better than the last column says; about {ENOUGH_IMAGES}{single} would "
                "tell it to within 10 of 100."
            )
    if verdict.rival is not None and verdict.rival.kind == FITTED:
        texts.append("A larger network, which was not tried, may do better still.")
    elif evidence.network:
        texts.append(
            f"All of this is of {evidence.network}; of a larger one, recommend --train MODEL tells."
        )
    return " ".join(texts)


def _what_helps(evidence: Evidence) -> str:
    """What may make the classifier better where no other loss does."""
    mean = sum(x.ce for x in evidence.recalls) / len(evidence.recalls) if evidence.recalls else None
    if mean is not None and mean >= ENOUGH:
        return (
            f"Of 100 images {100 * mean:.0f} are recognised, averaged over the classes: little is "
            "left to gain."
        )
    chance = 1 / len(evidence.recalls) if evidence.recalls else 0.0
    if mean is not None and mean < chance + (1 - chance) / 10:
        begin = (
            "Answers are hardly better than guesses. See whether the labels are right and the "
            "classes can be told apart by eye (metaloss data show)."
        )
    else:
        begin = _more_images(evidence)
    network = (
        ""
        if evidence.features
        else " Features of a network that was trained on many other images (metaloss train "
        "--features) often help more than any loss."
    )
    return begin + network


def _more_images(evidence: Evidence) -> str:
    """How many more images would tell more."""
    new = " of new groups" if evidence.groups else ""
    text = f"More images{new}: four times as many would halve the uncertainty above."
    if not evidence.recalls:
        return text
    rarest = min(evidence.recalls, key=lambda x: x.images)
    most = max(x.images for x in evidence.recalls)
    if most < 2 * rarest.images:
        return text
    return (
        f"More images{new}, of {printable(rarest.name)} first ({4 * rarest.images} in place of "
        f"{rarest.images} would halve the uncertainty about it)."
    )


def _search(verdict: Verdict, evidence: Evidence) -> str:
    """Whether a search is worth it."""
    if evidence.search is None:
        return ""
    if not evidence.search and evidence.unusual:
        return (
            "Whether letting the computer look for a new loss (metaloss evolve) is worth it the "
            "losses tried do not tell: they make no difference here beyond chance, and none of the "
            "usual ones is among them (--losses usual … tries these, too)."
        )
    if not evidence.search and verdict.changes and verdict.rival is None:
        return (
            "Letting the computer look for a new loss (metaloss evolve) is not worth it: it can "
            "hardly be expected to find one that does better than the loss above."
        )
    if not evidence.search:
        return (
            "Letting the computer look for a new loss (metaloss evolve) is not worth it: known "
            "losses gain nothing here beyond chance, or too little."
        )
    also = "" if verdict.evidence else ", as far as can be told"
    return (
        "Letting the computer look for a new loss (metaloss evolve) may be worth it: which loss is "
        f"used makes a difference here{also}."
    )


def recall_rows(recalls: Sequence[ClassRecall], changed: bool) -> list[dict[str, str]]:
    """Of 100 images of each class, how many are recognised, as the cells of a table.

    Args:
        recalls: of the classes.
        changed: whether what the folds chose is recommended, and so stands beside cross-entropy.
    """
    # The rarest, of which most is unknown.
    kept = sorted(recalls, key=lambda x: x.images)[:CLASSES]
    return [
        {
            "of 100 images of": f"{printable(x.name)} ({x.images} tested)",
            "recognised by the usual loss": f"{100 * x.ce:.0f}",
            "by this": f"{100 * x.chosen:.0f}" if changed else "",
            "95 % certain: between": _between(x.chosen_interval if changed else x.ce_interval),
        }
        for x in recalls
        if x in kept
    ]


def _between(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{100 * low:.0f} and {100 * high:.0f}"
