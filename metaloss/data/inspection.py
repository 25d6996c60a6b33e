"""What there is to know of a data set before anything is trained: counts, sizes, copies, damage."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metaloss.core.formatting import counted, percent
from metaloss.core.streams import Stream
from metaloss.data import datasets
from metaloss.data.copies import SIDE, Copies, find_copies, thumbnails
from metaloss.data.datasets import Dataset, Table, _remarks
from metaloss.data.datasets._digests import of_image
from metaloss.data.datasets._files import DEFAULT_SIZE, Files
from metaloss.data.datasets._images import DEFAULT_OPTIONS, ImageOptions, is_wide, to_eight_bits
from metaloss.data.pools import pools
from metaloss.errors import DataError, SettingsError

MOST = 5000  # images that are looked at; of more, a sample
NAMED = 3  # images or pairs that a line names
CLASSES = 8  # whose counts a line gives


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """What is known of some images of a data set, one entry each.

    Attributes:
        rows: which they are.
        digests: of the images.
        small: their thumbnails; None of rows of features.
        constant: which of them are of one colour.
        sizes: width and height.
    """

    rows: Int64[Tensor, " n"]
    digests: Int64[Tensor, " n"]
    small: Float[Tensor, "n D"] | None
    constant: Bool[Tensor, " n"]
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Inspection:
    """A data set, and what was found in it.

    Attributes:
        dataset: the images, or their files.
        source: what they were asked for by, as folder:PATH.
        names: of each image what it is called.
        test: which images are to test on: the official test split, or else the test pool.
        facts: of the images that were looked at.
        copies: by the place of an image in `facts`.
        damaged: files that are no readable images, and why.
    """

    dataset: Dataset | Files
    source: str
    names: tuple[str, ...]
    test: Bool[Tensor, " N"]
    facts: ImageFacts
    copies: Copies
    damaged: tuple[tuple[str, str], ...] = ()

    @property
    def counts(self) -> list[tuple[int, int]]:
        """Images of every class, and those of them to test on."""
        classes = len(self.dataset.classes)
        labels = self.dataset.labels
        both = (labels.bincount(minlength=classes), labels[self.test].bincount(minlength=classes))
        return list(zip(*(x.tolist() for x in both), strict=True))

    @property
    def official(self) -> bool:
        """Whether the data set has a test split of its own."""
        return bool(self.dataset.test.any())

    @property
    def sizes(self) -> list[tuple[tuple[int, int], int]]:
        """Widths and heights, and how many images have them; the most frequent first."""
        return Counter(self.facts.sizes).most_common()

    def name(self, place: int) -> str:
        """What an image is called.

        Args:
            place: its place in `facts`.
        """
        return self.names[int(self.facts.rows[place])]


def inspect(name: str, options: ImageOptions = DEFAULT_OPTIONS) -> Inspection:
    """What there is to know of a data set.

    Args:
        name: a data source, as for `datasets.load`.
        options: how its image files are read.

    Raises:
        SettingsError: the name is unknown, or it is pixels that have classes.
        DataError: there is no image, or too few classes.
    """
    if datasets.scenes(name, options) is not None:
        raise SettingsError(
            f"{name} has classes of pixels; its images and masks are counted by: metaloss data "
            f"verify {name}"
        )
    source, path = datasets.source_and_path(name)
    if hasattr(source, "listed"):
        files = source.listed(*path, options)
    else:
        sized = options if options.size else ImageOptions(DEFAULT_SIZE, options.background)
        files = datasets.files(name, sized)
    if files is None:
        return inspect_dataset(datasets.load(name, options), name)
    return _of_files(files, name)


def inspect_dataset(dataset: Dataset, source: str) -> Inspection:
    """What there is to know of a data set in memory.

    Args:
        dataset: the images.
        source: what they were asked for by.
    """
    rows = _sample(len(dataset.labels))
    table = isinstance(dataset, Table)
    pixels = dataset.pixels[rows]
    height, width = dataset.pixels.shape[2:]
    facts = ImageFacts(
        rows,
        dataset.digests_of(rows),
        None if table else torch.cat([thumbnails(x) for x in pixels.split(1024)]),
        torch.zeros(len(rows), dtype=torch.bool) if table else _remarks.is_constant(pixels),
        () if table else ((width, height),) * len(rows),
    )
    return _inspection(dataset, source, facts)


def _of_files(files: Files, source: str) -> Inspection:
    """What there is to know of image files; those that cannot be read are named."""
    seen: list[tuple[int, Any]] = []
    damaged: list[tuple[str, str]] = []
    for row in _sample(len(files.labels)).tolist():
        try:
            image = files.open_upright(row)
            seen.append(
                (row, (of_image(image), _small(image, files, row), _constant(image), image.size))
            )
        except DataError as error:
            damaged.append((files.file_names[row], str(error).partition(": ")[2]))
    if not seen:
        raise DataError(
            f"{files.origin}: found no file that can be read as an image ({damaged[0][0]}: "
            f"{damaged[0][1]}), expected images"
        )
    digests, small, constant, sizes = zip(*(facts for _, facts in seen), strict=True)
    facts = ImageFacts(
        torch.tensor([row for row, _ in seen]),
        torch.tensor(digests),
        torch.from_numpy(np.stack(small)),
        torch.tensor(constant),
        tuple(sizes),
    )
    return _inspection(files, source, facts, tuple(damaged))


def _small(image: Any, files: Files, row: int) -> np.ndarray:
    """The thumbnail of a Pillow image."""
    from PIL import Image

    if is_wide(image):
        # Its scale does not matter: thumbnails are compared by their correlation.
        grey = Image.fromarray(np.asarray(image, dtype=np.float32))
    else:
        grey = to_eight_bits(image, files.paths[row], files.options, None, gray=True)
    small = grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.float32).ravel()


def _constant(image: Any) -> bool:
    """Whether a Pillow image has one value in each channel."""
    extremes = image.getextrema()
    bands = [extremes] if isinstance(extremes[0], int | float) else extremes
    return all(low == high for low, high in bands)


def _sample(images: int) -> Tensor:
    """The rows that are looked at, ascending."""
    if images <= MOST:
        return torch.arange(images)
    return Stream(0).at("inspection").permutation(images)[:MOST].sort().values


def _inspection(
    dataset: Dataset | Files,
    source: str,
    facts: ImageFacts,
    damaged: tuple[tuple[str, str], ...] = (),
) -> Inspection:
    test = torch.zeros(len(dataset.labels), dtype=torch.bool)
    test[torch.cat(pools(dataset)["test"].rows)] = True
    rows = facts.rows
    copies = find_copies(
        facts.digests, facts.small, dataset.labels[rows], test[rows], ~facts.constant
    )
    return Inspection(dataset, source, _names(dataset), test, facts, copies, damaged)


def _names(dataset: Dataset | Files) -> tuple[str, ...]:
    """What each image is called."""
    names = dataset.file_names if isinstance(dataset, Files) else dataset.files
    if names:
        return names
    what = "row" if isinstance(dataset, Table) else "image"
    pairs = zip(dataset.test.tolist(), dataset.index.tolist(), strict=True)
    return tuple(f"{'test' if test else 'training'} {what} {index}" for test, index in pairs)


# --- in words ---


def first_lines(dataset: Dataset | Files, source: str) -> list[str]:
    """Three lines at most of what a user should know before anything is trained on these images.

    Args:
        dataset: the images.
        source: the name that they were read by.
    """
    training = dataset.labels[~dataset.test]
    sizes = training.bincount(minlength=len(dataset.classes)).tolist()
    tested = int(dataset.test.sum())
    split = f" to train on; {tested} in the official test split" if tested else ""
    lines = [f"images  {source}: {class_counts(dataset.classes, sizes)}{split}"]
    if isinstance(dataset, Dataset):
        found = inspect_dataset(dataset, source)
        lines += [f"        {'; '.join(copies)}"] if (copies := copy_sentences(found)) else []
    largest = max(sizes)
    more = f"metaloss data show {source}"
    uneven = largest > 1.5 * min(sizes)
    answer = f"'{dataset.classes[sizes.index(largest)]}' as every answer is right for "
    means = f"{answer}{percent(largest / sum(sizes))} of them; " if uneven else ""
    return [*lines, f"        {means}more: {more}"]


def class_counts(classes: Sequence[str], sizes: Sequence[int]) -> str:
    """How many images each class has; of many classes the largest and the smallest.

    >>> class_counts(("coat", "shirt"), (45, 18))
    '63 of 2 classes (coat 45, shirt 18)'
    """
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    texts = [f"{classes[i]} {sizes[i]}" for i in order]
    if len(texts) > CLASSES:
        half = CLASSES // 2
        texts = [*texts[:half], "…", *texts[-half:]]
    return f"{sum(sizes)} of {counted(len(sizes), 'class')} ({', '.join(texts)})"


def copy_sentences(found: Inspection) -> list[str]:
    """What copies there are, and what to do; nothing where there are none."""
    kinds = (
        ("classes", found.copies.in_classes, "in another class", "correct or remove one of each"),
        (
            "split",
            found.copies.in_split,
            "on both sides of the split into training and test",
            "keep one of each",
        ),
    )
    return [
        f"{counted(count, 'image')} {'has' if count == 1 else 'have'} a copy {where} "
        f"({_pairs(found, kind)}): {remedy}"
        for kind, count, where, remedy in kinds
        if count
    ]


def _pairs(found: Inspection, kind: str) -> str:
    pairs = [pair for pair in found.copies.pairs if getattr(pair, kind)]
    named = ", ".join(
        f"{found.name(pair.first)} {'=' if pair.exact else '≈'} {found.name(pair.second)}"
        for pair in pairs[:NAMED]
    )
    return f"{named}{', …' if len(pairs) > NAMED else ''}"
