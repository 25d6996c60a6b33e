"""What a user should know of a training that is about to mislead: a line of text each, or none."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from metaloss.core.formatting import counted

VALIDATION = 30  # images below which a validation share says little
THRESHOLD = 10  # the same of a class, for its threshold
GROUPS = 10  # below which the same holds of groups, whose images are alike
MORE = 0.3  # the share to validate on that is advised
STEPS = 50  # below which hardly any network has learned
NAMED = 5  # classes that a sentence names
UNEVEN = 1.5  # times as many images in the largest class as in the smallest
# What to try where a network gives up small classes, and where something is done already.
REMEDIES = (
    "Try --class-weights balanced, --sampling balanced or --loss 'logit_adjustment(tau=1)'; judge "
    "by --metric balanced_accuracy"
)
FURTHER_REMEDIES = (
    "Try more --epochs, --features of a pretrained network, or more images of the small classes"
)
FAR = 10.0  # times the first step's loss, from which a validation loss has exploded


def few_images(images: int, share: float) -> str | None:
    """That few images are held out for validation; nothing where none are.

    Args:
        images: how many are.
        share: of the images that may be trained on.
    """
    if not images or images >= VALIDATION:
        return None
    return (
        f"{images} images to validate: one answer is {100 / images:.1f} points of accuracy, so a "
        f"choice among rates or losses by them is mostly chance; {_held_out_more(share)}"
    )


def few_groups(groups: int, images: int, share: float) -> str | None:
    """That the images to validate on are of few groups; nothing where they have none.

    Args:
        groups: of which they are; 0: each stands for itself.
        images: how many are held out.
        share: of the images that may be trained on.
    """
    if not groups or groups >= GROUPS:
        return None
    return (
        f"the {images} images to validate on are of {counted(groups, 'group')}: a choice among "
        f"rates, losses or thresholds by them is mostly chance; {_held_out_more(share)}"
    )


def few_for_thresholds(counts: Mapping[str, int], share: float) -> str | None:
    """That thresholds are chosen on few images of a class.

    Args:
        counts: images of every class to validate on.
        share: of the images that may be trained on.
    """
    name = min(counts, key=lambda x: counts[x])
    if counts[name] >= THRESHOLD:
        return None
    return (
        f"thresholds are chosen on {counts[name]} images of '{name}': that is mostly chance; "
        f"{_held_out_more(share)}, and --prior-correction 1 needs none"
    )


def _held_out_more(share: float) -> str:
    """How more images are held out; beyond a share, more images are what helps."""
    if share < MORE:
        return f"--set validation={MORE:g} holds out more"
    return "more images are what helps"


def few_steps(steps: int) -> str | None:
    """That a training is short."""
    if steps >= STEPS:
        return None
    return (
        f"{steps} steps are few: the network may not have learned yet; more --epochs or --steps, "
        "or a smaller --batch"
    )


def exploded(record: Mapping[str, Any], classes: int, rate: float) -> str | None:
    """That the validation loss of an epoch is no number, or far above the loss of the training's
    first step; the training loss where no images are held out.

    Args:
        record: the epoch's.
        classes: whose logarithm, the cross-entropy of a guess, bounds "far" where the first loss is
            near 0.
        rate: the highest learning rate.
    """
    share, value = "validation", record.get("val_loss")
    if value is None:
        share, value = "training", record["train_loss"]
    first = record["first_loss"]
    if math.isfinite(value) and value - first <= FAR * max(abs(first), math.log(classes)):
        return None
    return (
        f"the {share} loss is {value:.3g} after epoch {record['epoch']}, and the loss of the "
        "first step was "
        f"{first:.3g}: the rate {rate:g} is probably too high; a smaller --lr, or several --rates"
    )


def of_results(
    by_loss: Mapping[str, Sequence[Mapping[str, Any]]],
    counts: Mapping[str, int],
    balanced: bool = False,
) -> list[str]:
    """What the results on the test images hide, a sentence each.

    Args:
        by_loss: of every loss what each seed came to.
        counts: images of every class to train on; nothing where pixels have classes.
        balanced: whether the training makes up for uneven classes already.
    """
    remedies = FURTHER_REMEDIES if balanced else REMEDIES
    texts = []
    for label, runs in by_loss.items():
        sound = [x for x in runs if not x["failed"]]
        several = [x for x in sound if x["only_answer"] is None and "recall" in x]
        found = (
            one_answer([x["only_answer"] for x in sound]),
            never_found([x["recall"] for x in several], counts),
        )
        advice = f". {remedies}" if uneven(counts) else ""
        texts += [f"{label}: {text}{advice}" for text in found if text is not None]
    return texts


def never_found(recalls: Sequence[Mapping[str, float]], counts: Mapping[str, int]) -> str | None:
    """That networks find no image of a class at all.

    Args:
        recalls: of every training the recall of each class.
        counts: images of every class to train on.
    """
    never = [x for x in counts if any(recall[x] == 0 for recall in recalls)]
    if not never:
        return None
    times = sum(any(recall[x] == 0 for x in never) for recall in recalls)
    names = ", ".join(f"'{x}' ({counts[x]} to train on)" for x in never[:NAMED])
    more = f" and {len(never) - NAMED} more" if len(never) > NAMED else ""
    return (
        f"in {times} of {len(recalls)} trainings a class is never found, its recall is 0: {names}"
        f"{more}; accuracy hides that"
    )


def one_answer(answers: Sequence[str | None]) -> str | None:
    """That networks answer the same to every test image.

    Args:
        answers: of every training the class that is its only answer; None where there are several.
    """
    only = [x for x in answers if x is not None]
    if not only:
        return None
    names = ", ".join(f"'{x}'" for x in dict.fromkeys(only))
    return (
        f"in {len(only)} of {len(answers)} trainings the answer to every test image is the same "
        f"class ({names}): the "
        "network has learned nothing of the others; another --lr, or more --epochs"
    )


def uneven(counts: Mapping[str, int]) -> bool:
    """Whether classes differ so much in images that a network may give up the small ones."""
    return bool(counts) and max(counts.values()) > UNEVEN * min(counts.values())
