"""What is added to trained networks' logits: a prior correction, or thresholds for every class."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.criterion.base import Criterion
from metaloss.errors import SettingsError
from metaloss.losses.prior import class_terminals
from metaloss.training.images import TrainingImages
from metaloss.training.losses import NamedLoss
from metaloss.training.settings import Training

CORRECTIONS = ("thresholds", "prior_correction")  # by their settings' names
SMALL = 0.1  # logits that are moved by less hardly change an answer


def prior_offsets(counts: Int64[Tensor, " C"], tau: float) -> Float[Tensor, " C"]:
    """-τ · log(C · share) of every class (Menon 2021, section 4.1): 0 where classes are even.

    Args:
        counts: training images of every class.
        tau: the strength; 1 makes a classifier that learned the shares one for even classes.
    """
    offsets: Tensor = -tau * class_terminals(counts.float())["logprior"]
    return offsets


def offsets_of(settings: Training, images: TrainingImages) -> Float[Tensor, " C"] | None:
    """The prior correction of networks that learn from these images; None where there is none."""
    if settings.prior_correction is None:
        return None
    # As many images of a class for every seed, so any of them will do.
    counts = images.class_counts(settings.per_class, Stream(settings.seed))
    return prior_offsets(torch.tensor(list(counts.values())), settings.prior_correction)


def check_prior_correction(losses: Sequence[NamedLoss], settings: Training) -> None:
    """Say which losses' networks need no prior correction.

    Raises:
        SettingsError: a loss makes up for uneven classes itself.
    """
    if settings.prior_correction is None:
        return
    for loss in losses:
        if isinstance(loss.module, Criterion) and loss.module.reads_prior:
            raise SettingsError(
                f"prior_correction: {loss.label} makes up for uneven classes itself, and would do "
                "it twice: leave one of them out"
            )


def cautions_of_correction(losses: Sequence[NamedLoss], offsets: Tensor | None) -> list[str]:
    """What a user should know of a prior correction, a sentence each.

    Args:
        losses: that networks are trained with.
        offsets: the correction; None where there is none.
    """
    if offsets is None:
        return []
    texts = []
    largest = float(offsets.abs().max())
    if largest == 0:
        texts.append("prior_correction changes nothing: every class has as many images to train on")
    elif largest < SMALL:
        texts.append(
            f"prior_correction changes hardly anything: it moves logits by {largest:.2g} at most, "
            "as the classes have nearly as many images to train on"
        )
    weighed = [x.label for x in losses if getattr(x.module, "weight", None) is not None]
    if weighed:
        texts.append(
            f"{', '.join(weighed)} has weights of its own: where they make up for uneven classes, "
            "prior_correction does it twice"
        )
    return texts


def in_use(
    by_loss: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, list[Mapping[str, Any]]]:
    """What each seed of every loss came to as its network is used: with a prior correction where
    there is one.
    """
    name = "prior_correction"
    result: dict[str, list[Mapping[str, Any]]] = {}
    for label, runs in by_loss.items():
        corrected = any(name in run for run in runs)
        key = row_name({"loss": label, name: corrected})
        result[key] = [{**run, **run.get(f"with_{name}", {})} for run in runs]
    return result


def is_corrected(row: Mapping[str, Any]) -> bool:
    """Whether a row of the table is of networks whose logits were changed after training."""
    return any(row.get(name) for name in CORRECTIONS)


def row_name(row: Mapping[str, Any]) -> str:
    """What a row of the table is called."""
    after = [name.replace("_", " ") for name in CORRECTIONS if row.get(name)]
    return ", ".join([str(row["loss"]), *after])
