"""A user's images cut into folds: what a choice of loss may see, and the images that judge it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset, load
from metaloss.data.episodes import Pool
from metaloss.data.features import RawFeatures
from metaloss.data.pools import lacking_classes, pools
from metaloss.data.sizes import mean_val
from metaloss.errors import DataError
from metaloss.experiments.recommendation import task_sizes
from metaloss.experiments.recommendation.task_sizes import FoldSizes
from metaloss.search.settings import changed
from metaloss.tasks.classifier_inputs import features_of, inputs_of
from metaloss.tasks.episodic import Episodes
from metaloss.tasks.episodic_family import TaskFamily

FOLDS = 5  # where there are images enough
FEWEST = 3  # folds, where a class has few images
LEAST = 2  # images of every class in every fold; 1 where tasks are as uneven as the data


@dataclass(frozen=True)
class FoldedImages:
    """The images that take part, per class, and the folds that they are cut into.

    Attributes:
        family: how classifiers train; its `val` is what a choice validates on.
        dataset: where the images come from.
        parts: of every fold, for each class its images.
        copies: images left out because their pixels are those of another one.
        features: what takes the place of the pixels; None: nothing does.
        usual_metric: whether the metric is ours, because classes are uneven and none was named.
        usual_steps: whether the number of steps is ours to choose, because nobody said it.
    """

    family: TaskFamily
    dataset: Dataset
    parts: tuple[Pool, ...]
    copies: int
    features: RawFeatures | None = None
    usual_metric: bool = False
    usual_steps: bool = False

    @property
    def folds(self) -> int:
        """How many."""
        return len(self.parts)

    @property
    def rows(self) -> Pool:
        """For each class its images."""
        return tuple(torch.cat(x).sort().values for x in zip(*self.parts, strict=True))

    @property
    def counts(self) -> list[int]:
        """How many images each class has."""
        return list(map(len, self.rows))

    @property
    def scarcest(self) -> int:
        """How many images the smallest class has."""
        return min(self.counts)

    @property
    def judged(self) -> TaskFamily:
        """The family that judges a choice: a fold may hold fewer images than it validates on."""
        return task_sizes.judging(self.family, _sizes(self.parts))

    @property
    def val(self) -> int:
        """Held-out images per class, on average, that a task of a fold validates on."""
        return mean_val(self.judged.val)

    def whole(self, device: torch.device) -> Episodes:
        """Tasks of all images, for the choice that is recommended."""
        return self._episodes(self.family, {"validation": self.rows}, self.rows, device)

    def fold(self, number: int, device: torch.device) -> tuple[Episodes, Episodes]:
        """The tasks that choose a loss, without the fold's images, and those that judge the choice.

        The latter train on images that the choice could see, as its user will, and validate on the
        fold's.
        """
        held_out = self.parts[number]
        seen = _outside(self.parts, number)
        # By the images that are seen: the fold's own must not leak through their mean.
        choosing = self._episodes(self.family, {"validation": seen}, seen, device)
        return choosing, replace(
            choosing, family=self.judged, pools={"test": seen}, held_out={"test": held_out}
        )

    def _episodes(
        self, family: TaskFamily, pools: dict[str, Pool], seen: Pool, device: torch.device
    ) -> Episodes:
        """Tasks of these pools, their images normalised by what may be seen."""
        images = inputs_of(self.dataset, self.features, torch.cat(seen), device)
        return Episodes(family, self.dataset, images, pools, features=self.features)


def make_folds(
    spec: str,
    changes: Mapping[str, Any],
    key: Stream,
    images: Literal["all", "test"] = "all",
    folds: int | None = None,
    device: torch.device | str = "cpu",
    reporter: Reporter | None = None,
) -> FoldedImages:
    """The images that a name means, and tasks that fit into its folds.

    Args:
        spec: folder:PATH, file:PATH, or a task family or data set by name.
        changes: settings of the family that replace its own.
        key: of the cut.
        images: "all" but those of an official test split; or "test": the meta-test pool, which no
            search learns from.
        folds: how many; where None, five or as many as leave enough images of every class in each.
        device: where a network computes features.
        reporter: is told of the progress.

    Raises:
        SettingsError: an unknown name or setting.
        DataError: too few images or classes; the message names the least.
    """
    own = None if task_sizes.without_family(spec) else task_sizes.named_family(spec)
    family = None if own is None else changed(own, changes)
    dataset = (
        load(spec, task_sizes.image_options(changes))
        if family is None
        else load(family.dataset, family.image_options)
    )
    rows, copies = _without_copies(dataset, _taking_part(dataset, images))
    counts = list(map(len, rows))
    as_is = family is None and "shots" not in changes and task_sizes.is_uneven(counts)
    least = 1 if as_is else LEAST
    folds = folds or max(FEWEST, min(FOLDS, min(counts) // LEAST))
    why = f" for {least} in each of {folds} folds"
    if few := lacking_classes(dataset.classes, counts, folds * least, why, "different image"):
        raise DataError(f"{spec}: {'of the meta-test pool, ' if images == 'test' else ''}{few}")
    parts = _cut(rows, folds, key)
    if family is None:
        # Of the smallest class, without its largest fold.
        rest = min(counts) - -(-min(counts) // folds)
        usual = (
            task_sizes.uneven_family(spec, len(rows), folds)
            if as_is
            else task_sizes.even_family(spec, len(rows), rest)
        )
        family = changed(usual, changes)
    words = task_sizes.counts_in_words(dataset, counts)
    family = task_sizes.fitted(family, _sizes(parts), spec, words)
    features = features_of(family, dataset, family.dataset, family.features, device, reporter)
    usual_metric = as_is and "metric" not in changes
    usual_steps = own is None and "steps" not in changes.get("inner", {})
    return FoldedImages(family, dataset, parts, copies, features, usual_metric, usual_steps)


def _cut(rows: Pool, folds: int, key: Stream) -> tuple[Pool, ...]:
    """The images of every fold: cut per class, so that every fold holds images of every class."""
    of_classes = [
        x[key.at("fold", c).permutation(len(x))].tensor_split(folds) for c, x in enumerate(rows)
    ]
    return tuple(zip(*of_classes, strict=True))


def _outside(parts: tuple[Pool, ...], number: int) -> Pool:
    """For each class the images of all folds but one."""
    others = [part for i, part in enumerate(parts) if i != number]
    return tuple(torch.cat(of_class) for of_class in zip(*others, strict=True))


def _sizes(parts: tuple[Pool, ...]) -> FoldSizes:
    return [
        (list(map(len, part)), list(map(len, _outside(parts, number))))
        for number, part in enumerate(parts)
    ]


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
