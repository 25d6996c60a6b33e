"""The losses that are tried, without those that have learned from the images."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from metaloss.criterion import loss_io
from metaloss.criterion.leakage import data_overlap
from metaloss.data.datasets import Dataset
from metaloss.errors import SettingsError
from metaloss.experiments.comparison import losses as compared_losses
from metaloss.experiments.comparison.losses import CE, ComparedLoss

# Tried, too, where classes are uneven; always with the best of their own parameters.
UNEVEN_LOSSES = ("class_weights", "logit_adjustment", "logit_adjustment_smoothed")
# Known to help where classes are uneven and these metrics count them alike: on long tails of
# Fashion-MNIST it gained so many points over cross-entropy (docs/results.md). It is judged as it
# is, beside those that are chosen among.
EXPECTED = "logit_adjustment_smoothed(tau=1, alpha=0.1)"
EXPECTED_GAINS = {"balanced_accuracy": 3.8, "macro_f1": 5.1}
USUAL = "usual"  # stands for these, beside which others may be named
# Evolved on many kinds of few-shot tasks. It is tried before all others where the package has it,
# and does not count where it is asked whether a search is worth it: that rule was measured without.
FEW_SHOT = "few-shot"
LOSSES = (
    "label_smoothing",
    "focal",
    "mse",
    "gce",
    "ngl",
    "a2",
    "baikal",
    "mln-fashionmnist",
    "tree-fashionmnist",
)


@dataclass(frozen=True)
class RequestedLosses:
    """The losses that were asked for.

    Attributes:
        losses: cross-entropy first.
        specs: how each was asked for, by its label.
        names: those that were given, in words; none where the usual losses are tried.
        usual: labels of the usual losses, where no one named them.
        expected: label of the one that is known to help on such images; "" where none is.
    """

    losses: list[ComparedLoss]
    specs: Mapping[str, Any]
    names: list[str]
    usual: set[str]
    expected: str = ""


def read_losses(
    losses: Sequence[Any] | None,
    runs: Path,
    own: bool = False,
    uneven: bool = False,
    metric: str = "",
) -> RequestedLosses:
    """The losses that are asked for, the usual ones where None, and cross-entropy, each once.

    Args:
        losses: as they were given.
        runs: where runs are looked for.
        own: whether published losses named without parameters have theirs tuned.
        uneven: whether tasks have more images of some classes than of others.
        metric: what they are scored by, where all images take part in their own proportions.

    Raises:
        SettingsError: one cannot be read, or cannot train episodes, or there is none but
            cross-entropy.
    """
    requested = [USUAL] if losses is None else list(losses)
    texts = {spec for spec in requested if isinstance(spec, str)}
    expected = uneven and metric in EXPECTED_GAINS and USUAL in texts and EXPECTED not in texts
    known = [*usual_losses(), *(UNEVEN_LOSSES if uneven else ())]
    known += [EXPECTED] if expected else []
    usual = [name for name in known if name not in texts] if USUAL in texts else []
    specs = [
        x
        for spec in requested
        for x in (usual if isinstance(spec, str) and spec == USUAL else [spec])
    ]
    read, _ = compared_losses.read_losses(specs, CE, runs, own)
    compared = [_with_own_parameters(x) if x.label in usual else x for x in read]
    if len(compared) < 2:
        raise SettingsError(
            "--losses ce alone leaves nothing to choose between, as ce is always tried: name "
            "another loss beside it, or none at all for the usual ones"
        )
    # Not strict: cross-entropy may stand behind those that were asked for.
    spec_of = {x.label: spec for x, spec in zip(compared, specs, strict=False)}
    # Cross-entropy first; the sort is stable, so the others stay in the order given.
    return RequestedLosses(
        sorted(compared, key=lambda x: x.label != CE),
        spec_of,
        [] if losses is None else _names(spec_of, usual),
        set(usual),
        EXPECTED if expected else "",
    )


def usual_losses() -> list[str]:
    """The losses that are tried where none is named, the one for few-shot tasks first."""
    return [*([FEW_SHOT] if FEW_SHOT in loss_io.shipped() else []), *LOSSES]


def _names(spec_of: Mapping[str, Any], usual: Collection[str]) -> list[str]:
    """What asks for the same losses on a command line; `usual` stands for the usual ones.

    Args:
        spec_of: how each was asked for, by its label.
        usual: labels of the usual ones, where they were asked for.
    """
    given = [
        os.fspath(spec) if isinstance(spec, str | os.PathLike) else label
        for label, spec in spec_of.items()
        if label not in usual
    ]
    return [*given, USUAL] if usual else given


def _with_own_parameters(usual: ComparedLoss) -> ComparedLoss:
    """A usual loss, its own parameters tuned where it is one for uneven classes."""
    if usual.label not in UNEVEN_LOSSES:
        return usual
    return replace(usual, published=compared_losses.tunable(usual.label))


def without_seen_images(
    requested: RequestedLosses,
    dataset: Dataset,
    rows: Int64[Tensor, " N"],
    allow: bool,
    warn: Callable[[str], None],
) -> list[ComparedLoss]:
    """The losses without those usual ones that have learned from the images.

    Args:
        requested: the losses.
        dataset: the images.
        rows: those that take part.
        allow: go on although a loss has.
        warn: is told of it.

    Raises:
        SettingsError: a loss that was named has, and that is not allowed.
    """
    kept = []
    for loss in requested.losses:
        seen = _seen(loss, dataset, rows)
        # A usual loss is left out with a warning; one that was named is refused.
        if seen and not allow and loss.label not in requested.usual:
            ways = "--images test takes the meta-test pool alone, --allow-seen goes on all the same"
            raise SettingsError(f"{loss.label} {seen}, which would flatter it  ({ways})")
        if seen:
            warn(f"{loss.label} {seen}" + ("" if allow else " and is left out"))
        if allow or not seen:
            kept.append(loss)
    return kept


def _seen(loss: ComparedLoss, dataset: Dataset, rows: Int64[Tensor, " N"]) -> str:
    """What a loss has learned from these images, in words; "" where it has not."""
    overlap = data_overlap(loss.origin, loss.criterion, dataset, rows)
    return f"has learned from {overlap.seen} of these images" if overlap.seen else overlap.doubt
