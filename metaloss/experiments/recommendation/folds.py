"""A user's images cut into folds: what a choice of loss may see, and the images that judge it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from metaloss.core import registry
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.data import datasets
from metaloss.data.datasets import Dataset, load
from metaloss.data.datasets._images import ImageOptions
from metaloss.data.episodes import Pool
from metaloss.data.features import RawFeatures
from metaloss.data.pools import lacking_classes, pools
from metaloss.data.shapes import as_toml, of_ways
from metaloss.data.sizes import (
    EpisodeShape,
    fits,
    mean_val,
    most_val,
    nearest,
    needed,
    reduced,
)
from metaloss.errors import DataError, SettingsError
from metaloss.search.settings import changed
from metaloss.tasks import episodic_family, family_files
from metaloss.tasks.classifier_inputs import features_of, inputs_of
from metaloss.tasks.episodic import Episodes
from metaloss.tasks.episodic_family import TaskFamily

FOLDS = 5  # where there are images enough
LEAST = 2  # images of every class in every fold
# Of a task, at most, where no family says it: all ours, so that it takes minutes.
WAYS = 10
SHOTS = 10
VAL = 100


@dataclass(frozen=True)
class FoldedImages:
    """The images that take part, per class, and into how many folds they are cut.

    Attributes:
        family: how classifiers train; its `val` is what a choice validates on.
        dataset: where the images come from.
        rows: for each class its images.
        folds: how many.
        copies: images left out because their pixels are those of another one.
        features: what takes the place of the pixels; None: nothing does.
    """

    family: TaskFamily
    dataset: Dataset
    rows: Pool
    folds: int
    copies: int
    features: RawFeatures | None = None

    @property
    def scarcest(self) -> int:
        """How many images the smallest class has."""
        return min(map(len, self.rows))

    @property
    def judged(self) -> TaskFamily:
        """The family that judges a choice: a fold may hold fewer images than it validates on."""
        sizes = [len(rows) // self.folds for rows in self.rows]
        shape = _shape(self.family, self.rows, self.folds)
        slack = _slack(shape)
        held_out = reduced(
            shape, lambda s: all(n + slack <= m for n, m in zip(most_val(s), sizes, strict=True))
        )
        return replace(self.family, val=held_out.val)

    @property
    def val(self) -> int:
        """Held-out images per class, on average, that a task of a fold validates on."""
        return mean_val(self.judged.val)

    def whole(self, device: torch.device) -> Episodes:
        """Tasks of all images, for the choice that is recommended."""
        return self._episodes(self.family, {"validation": self.rows}, self.rows, device)

    def fold(self, number: int, key: Stream, device: torch.device) -> tuple[Episodes, Episodes]:
        """The tasks that choose a loss, without the fold's images, and those that judge the choice.

        The latter train on images that the choice could see, as its user will, and validate on the
        fold's.
        """
        # Cut per class, so that every fold holds images of every class.
        parts = [_parts(rows, self.folds, key.at("fold", c)) for c, rows in enumerate(self.rows)]
        held_out = tuple(each[number] for each in parts)
        seen = tuple(torch.cat([x for i, x in enumerate(each) if i != number]) for each in parts)
        # By the images that are seen: the fold's own must not leak through their mean.
        tuning = self._episodes(self.family, {"validation": seen}, seen, device)
        return tuning, replace(
            tuning, family=self.judged, pools={"test": seen}, held_out={"test": held_out}
        )

    def _episodes(
        self, family: TaskFamily, pools: dict[str, Pool], seen: Pool, device: torch.device
    ) -> Episodes:
        """Tasks of these pools, their images normalised by what may be seen."""
        images = inputs_of(self.dataset, self.features, torch.cat(seen), device)
        return Episodes(family, self.dataset, images, pools, features=self.features)


def _parts(rows: Int64[Tensor, " N"], folds: int, key: Stream) -> tuple[Int64[Tensor, " _"], ...]:
    return rows[key.permutation(len(rows))].tensor_split(folds)


def make_folds(
    spec: str,
    changes: Mapping[str, Any],
    images: Literal["all", "test"] = "all",
    folds: int | None = None,
    device: torch.device | str = "cpu",
    reporter: Reporter | None = None,
) -> FoldedImages:
    """The images that a name means, and tasks that fit into its folds.

    Args:
        spec: folder:PATH, file:PATH, or a task family or data set by name.
        changes: settings of the family that replace its own.
        images: "all" but those of an official test split; or "test": the meta-test pool, which no
            search learns from.
        folds: how many; where None, five or as many as leave two images of every class in each.
        device: where a network computes features.
        reporter: is told of the progress.

    Raises:
        SettingsError: an unknown name or setting.
        DataError: too few images or classes; the message names the least.
    """
    family = None if _plain(spec) else changed(_family(spec), changes)
    dataset = (
        load(spec, _options(changes))
        if family is None
        else load(family.dataset, family.image_options)
    )
    rows, copies = _without_copies(dataset, _taking_part(dataset, images))
    smallest = min(map(len, rows))
    folds = folds or max(3, min(FOLDS, smallest // LEAST))
    why = f" for {LEAST} in each of {folds} folds"
    if few := lacking_classes(
        dataset.classes, list(map(len, rows)), folds * LEAST, why, "different image"
    ):
        raise DataError(f"{spec}: {'of the meta-test pool, ' if images == 'test' else ''}{few}")
    rest = smallest - -(-smallest // folds)  # of the smallest class, without its largest fold
    family = family or changed(_family_of_size(spec, len(rows), rest), changes)
    shape = _shape(family, rows, folds)
    slack = _slack(shape)
    shape = reduced(
        shape,
        lambda s: all(n + slack <= m for n, m in zip(needed(s), s.available, strict=True)),
    )
    if not fits(shape):
        proposal = nearest(shape)
        raise DataError(
            f"{spec}: {of_ways(family.ways, family.shots)} tasks do not fit: "
            f"{len(rows)} classes, and {rest} images of the smallest one outside a fold "
            f"({_counts(dataset, rows)}). This fits: ways = {proposal.ways}, "
            f"shots = {as_toml(proposal.shots)}"
        )
    features = features_of(family, dataset, family.dataset, family.features, device, reporter)
    return FoldedImages(replace(family, val=shape.val), dataset, rows, folds, copies, features)


def _family_of_size(spec: str, classes: int, images: int) -> TaskFamily:
    """A family for data without one, of so many classes and images of the smallest."""
    # A third at most to train on, so that enough are left to validate.
    shots = min(SHOTS, max(1, images // 3))
    sizes = {"ways": min(WAYS, classes), "shots": shots, "val": min(VAL, images - shots)}
    return episodic_family.of({"dataset": spec, **sizes}, _name(spec), spec)


def _name(spec: str) -> str:
    """What a family is called that is made to fit some data."""
    kind, _, path = spec.partition(":")
    if not path:
        return spec
    return Path(path).resolve().stem if kind == "file" else Path(path).resolve().name


def _shape(family: TaskFamily, rows: Pool, folds: int) -> EpisodeShape:
    """The size of a task of images outside a fold, even a class's largest."""
    return family.shape([n - -(-n // folds) for n in map(len, rows)])


def _slack(shape: EpisodeShape) -> int:
    """Images that a class must have to spare.

    Where sizes follow the data, they may follow one fold's a little differently than another's.
    """
    return int(not isinstance(shape.val, int))


def _options(changes: Mapping[str, Any]) -> ImageOptions:
    """How images are read for which no family is written."""
    named = {name: changes[name] for name in ImageOptions.__dataclass_fields__ if name in changes}
    options: ImageOptions = registry.from_table(ImageOptions, named, "recommend")
    return options


def _family(spec: str) -> TaskFamily:
    known = {*family_files.names(), *datasets.names()} - {"file", "folder"}
    if spec not in known and not any(x in spec for x in "/:."):
        raise SettingsError(
            registry.unknown_message(
                "data", spec, sorted(known), "metaloss list data, tasks; or folder:PATH"
            )
        )
    return episodic_family.read(spec)


def _plain(spec: str) -> bool:
    """Whether a name is a folder's, a file's or a data set's for which no family is written."""
    return spec.startswith(episodic_family.FROM_DATA) or (
        spec in datasets.names() and spec not in family_files.names()
    )


def _taking_part(dataset: Dataset, images: str) -> Pool:
    if images == "test":
        return pools(dataset)["test"].rows
    return tuple(
        torch.nonzero((dataset.labels == c) & ~dataset.test)[:, 0]
        for c in range(len(dataset.classes))
    )


def _without_copies(dataset: Dataset, pool: Pool) -> tuple[Pool, int]:
    """The rows of a pool without copies of earlier ones, and how many were left out.

    A copy in a fold would be no new image.
    """
    seen: set[bytes] = set()

    def new(row: int) -> bool:
        # A digest takes 16 bytes, however large the image is.
        content = dataset.contents(torch.tensor([row])).numpy().tobytes()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        before = len(seen)
        seen.add(digest)
        return len(seen) > before

    kept = tuple(
        rows[torch.tensor([new(row) for row in rows.tolist()], dtype=torch.bool)] for rows in pool
    )
    return kept, sum(map(len, pool)) - sum(map(len, kept))


def _counts(dataset: Dataset, rows: Pool, most: int = 5) -> str:
    pairs = sorted(zip(map(len, rows), dataset.classes, strict=True))
    listed = ", ".join(f"{name} {n}" for n, name in pairs[:most])
    return f"{listed}{', …' if len(pairs) > most else ''} images"
