"""Images of a user that are made, so that it is known which loss is better on new ones.

Four classes of 6x6 pixels, each a pattern in noise; some kinds have images that mislead, wrong
labels, or fewer images of some classes. Fresh images of every class stand as an official test
split, always with their right labels.
"""

from dataclasses import dataclass
from typing import Any

import torch

from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset

CLASSES = 4
SIDE = 6
FRESH = 2000  # per class
# gray levels
CONTRAST = 30.0
NOISE = 40.0
EVEN = (1.0, 1.0, 1.0, 1.0)
LONG_TAIL = (1.0, 0.5, 0.22, 0.11)
PUBLISHED = ("mae", "mse", "gce", "focal", "label_smoothing")
SCALED = ("0.5 * -y * logp", "2 * -y * logp", "5 * -y * logp")


@dataclass(frozen=True)
class Kind:
    """What a user's images are like.

    Attributes:
        losses: that are tried on them.
        images: of the largest class, where nothing else is asked for.
        sizes: of the classes, as shares of that.
        contrast: of the patterns, in gray levels.
        odd: one of so many images shows the next class, three times as strong; 0: none does.
        wrong: share of the user's labels that are wrong.
        options: of the recommendation.
    """

    losses: tuple[str, ...] = PUBLISHED
    images: tuple[int, ...] = (40,)
    sizes: tuple[float, ...] = EVEN
    contrast: float = CONTRAST
    odd: int = 0
    wrong: float = 0.0
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def uneven(self) -> bool:
        """Whether classes are."""
        return self.sizes != EVEN

    @property
    def hopeless(self) -> bool:
        """Whether images tell nothing about their class: no loss gains anything on new ones."""
        return self.contrast == 0

    def counts(self, n: int) -> list[int]:
        """Images of each class where the largest has n."""
        return [round(n * share) for share in self.sizes]


# What is done to logits after training is a candidate, too.
RIVALS = (("rivals", True),)
KINDS = {
    "outliers": Kind(odd=4),
    "few_outliers": Kind(odd=12),
    "alike": Kind(SCALED),
    "plain": Kind(contrast=15.0),
    "noise": Kind(contrast=0.0),
    "worse": Kind(("c1_printed", "r1_printed", "focal(gamma=20)")),
    "long_tail": Kind(("usual",), (90,), LONG_TAIL, 15.0, options=RIVALS),
    "uneven_alike": Kind(SCALED, (90,), LONG_TAIL, 15.0),
    "uneven_noise": Kind(("usual",), (90,), LONG_TAIL, 0.0, options=RIVALS),
    "wrong_labels": Kind(images=(200,), wrong=0.4, options=(("shots", 30),)),
}


def images(name: str, n: int, key: Stream) -> Dataset:
    """A user's images, n of the largest class, and the fresh ones as an official test split."""
    kind = KINDS[name]
    each = [count + FRESH for count in kind.counts(n)]
    label = torch.arange(CLASSES).repeat_interleave(torch.tensor(each))
    fresh = torch.cat([torch.arange(e) >= e - FRESH for e in each])
    pattern = key.at("pattern").normal(CLASSES, 1, SIDE, SIDE)
    shown = label
    contrast = torch.full(label.shape, kind.contrast)
    if kind.odd:
        odd = torch.cat(
            [key.at("odd", c).permutation(e) < e // kind.odd for c, e in enumerate(each)]
        )
        shown = torch.where(odd, (label + 1) % CLASSES, label)
        contrast = contrast * (1 + 2 * odd)
    noise = NOISE * key.at("noise").normal(len(label), 1, SIDE, SIDE)
    pixels = (
        (128 + contrast[:, None, None, None] * pattern[shown] + noise).clamp(0, 255).to(torch.uint8)
    )
    given = with_wrong(label, fresh, kind.wrong, key)
    return Dataset(name, pixels, given, tuple("abcd"), torch.arange(len(label)), fresh, "simulated")


def with_wrong(label: torch.Tensor, fresh: torch.Tensor, share: float, key: Stream) -> torch.Tensor:
    """The labels, a share of the user's own wrong: each names one of the other classes."""
    own = torch.nonzero(~fresh)[:, 0]
    wrong = own[key.at("wrong").permutation(len(own))[: round(share * len(own))]]
    other = 1 + key.at("other").integers(CLASSES - 1, len(wrong))
    given = label.clone()
    given[wrong] = (given[wrong] + other) % CLASSES
    return given
