"""Images that a data set has twice: the same pixels, or nearly the same picture.

Two images are nearly the same where their grey thumbnails of 16x16 pixels correlate by 0.995 or
more. That finds what was encoded anew, resized as a whole, made brighter or given more contrast;
what was cropped, turned or taken again a moment later it does not. Only pairs that mislead are
looked for: with labels of two classes, or on the two sides of the split into training and test.
"""

from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

SIDE = 16  # pixels of a thumbnail
ALIKE = 0.995  # correlation from which two thumbnails show the same
FLAT = 1.0  # grey levels of deviation below which a thumbnail shows nothing to compare
LUMA = (0.299, 0.587, 0.114)  # of ITU-R BT.601, as Pillow makes colours grey
BLOCK = 1024  # thumbnails that are compared with all others at once
KEPT = 1000  # pairs


@dataclass(frozen=True)
class ImagePair:
    """Two rows of the same image.

    Attributes:
        first, second: the rows.
        exact: whether all pixels are the same.
        classes: whether they have labels of two classes.
        split: whether one is to train on and the other to test on.
    """

    first: int
    second: int
    exact: bool
    classes: bool
    split: bool


@dataclass(frozen=True)
class Copies:
    """Pairs of images that should not be there, and of how many images there is such a copy.

    Attributes:
        pairs: exact ones first; no more than some.
        in_classes: images with a copy in another class.
        in_split: images with a copy on the other side of the split.
    """

    pairs: tuple[ImagePair, ...] = ()
    in_classes: int = 0
    in_split: int = 0


def thumbnails(pixels: UInt8[Tensor, "N K H W"]) -> Float[Tensor, "N D"]:
    """Grey thumbnails of images, one row each."""
    grey = pixels.float()
    if pixels.shape[1] == len(LUMA):
        grey = (grey * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    small: Tensor = interpolate(
        grey.mean(1, keepdim=True), (SIDE, SIDE), mode="bilinear", antialias=True
    )
    return small.flatten(1)


def find_copies(
    digests: Int64[Tensor, " N"],
    small: Float[Tensor, "N D"] | None,
    labels: Int64[Tensor, " N"],
    test: Bool[Tensor, " N"],
    informative: Bool[Tensor, " N"],
) -> Copies:
    """Copies among images, as this file's head says.

    Args:
        digests: of the images.
        small: their thumbnails; None: nearly the same is not looked for.
        labels: their classes.
        test: which are to test on.
        informative: which can be told from others; those of one colour are no copies.
    """
    rows = informative.nonzero()[:, 0]
    kinds = torch.zeros(2, len(labels), dtype=torch.bool)  # across classes, across the split
    pairs = _exact(digests, labels, test, rows)
    for pair in pairs:
        # It stands for all images of a class and a side.
        same = rows[digests[rows] == digests[pair.first]]
        kinds[0, same] |= pair.classes
        kinds[1, same] |= pair.split
    if small is not None:
        pairs += _near(small, digests, labels, test, rows, kinds)
    return Copies(tuple(pairs[:KEPT]), *kinds.sum(1).tolist())


def _exact(digests: Tensor, labels: Tensor, test: Tensor, rows: Tensor) -> list[ImagePair]:
    """A pair for every two combinations of class and side that have the same image."""
    values, place, counts = digests[rows].unique(return_inverse=True, return_counts=True)
    pairs: list[ImagePair] = []
    if len(values) == len(rows):
        return pairs
    several = (counts > 1).nonzero()[:, 0]
    order = place.argsort(stable=True)
    ends = counts.cumsum(0)
    for group in several.tolist():
        members = rows[order[int(ends[group] - counts[group]) : int(ends[group])]].tolist()
        first: dict[tuple[int, bool], int] = {}
        for row in members:
            first.setdefault((int(labels[row]), bool(test[row])), row)
        pairs += [
            ImagePair(a, b, True, x[0] != y[0], x[1] != y[1])
            for (x, a), (y, b) in combinations(first.items(), 2)
        ]
    return pairs


def _near(
    small: Tensor, digests: Tensor, labels: Tensor, test: Tensor, rows: Tensor, kinds: Tensor
) -> list[ImagePair]:
    """Some pairs whose thumbnails correlate and whose pixels are not the same; all are marked.

    Args:
        small: thumbnails.
        digests: of the images.
        labels: their classes.
        test: which are to test on.
        rows: those that are compared.
        kinds: marks of images with a copy in another class, and on the other side [2 N].
    """
    centred = small[rows] - small[rows].mean(1, keepdim=True)
    shows = centred.square().mean(1).sqrt() >= FLAT
    rows = rows[shows]
    unit = torch.nn.functional.normalize(centred[shows])
    label, side, digest = labels[rows], test[rows], digests[rows]
    pairs: list[ImagePair] = []
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        alike = (unit[part] @ unit.T >= ALIKE) & (digest[part, None] != digest)
        apart = torch.stack([label[part, None] != label, side[part, None] != side])
        kinds[:, rows[part]] |= (alike & apart).any(2)
        for i, j in (alike & apart.any(0)).triu(start + 1).nonzero()[:KEPT].tolist():
            classes, split = apart[:, i, j].tolist()
            pairs.append(ImagePair(int(rows[start + i]), int(rows[j]), False, classes, split))
    return pairs
