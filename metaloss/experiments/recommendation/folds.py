"""A user's images cut into folds: what a choice of loss may see, and the images that judge it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from metaloss.core.formatting import counted
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset, load
from metaloss.data.datasets._files import Files
from metaloss.data.episodes import Pool
from metaloss.data.features import RawFeatures
from metaloss.data.group_cuts import parts_of_groups
from metaloss.data.groups import with_groups
from metaloss.data.pools import lacking_classes, pools
from metaloss.data.sizes import mean_val
from metaloss.data.thumbnails import image_name
from metaloss.errors import DataError
from metaloss.experiments.recommendation import task_sizes
from metaloss.experiments.recommendation.task_sizes import FoldSizes
from metaloss.search.settings import changed
from metaloss.tasks.classifier_inputs import features_of, inputs_of
from metaloss.tasks.episodic import Episodes
from metaloss.tasks.episodic_family import TaskFamily, counts_in_words
from metaloss.tasks.uneven import is_uneven

FOLDS = 5  # where there are images enough
FEWEST = 3  # folds, where a class has few images
NAMED = 3  # copies that a message names
LEAST = 2  # images of every class in every fold; 1 where tasks are as uneven as the data


@dataclass(frozen=True)
class FoldedImages:
    """The images that take part, per class, and the folds that they are cut into.

    Attributes:
        family: how classifiers train; its `val` is what a choice validates on.
        dataset: where the images come from.
        parts: of every fold, for each class its images.
        copied: images left out because their pixels are those of another one, each with that one.
        features: what takes the place of the pixels; None: nothing does.
        usual_metric: whether the metric is ours, because classes are uneven and none was named.
        usual_steps: whether the number of steps is ours to choose, because nobody said it.
    """

    family: TaskFamily
    dataset: Dataset
    parts: tuple[Pool, ...]
    copied: Sequence[str]
    features: RawFeatures | None = None
    usual_metric: bool = False
    usual_steps: bool = False

    @property
    def copies(self) -> int:
        """How many images are left out."""
        return len(self.copied)

    @property
    def copies_in_words(self) -> str:
        """Some of them."""
        return _some(self.copied)

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
    def group_count(self) -> int:
        """Of how many groups the images are; 0 where they stand for themselves."""
        groups = self.dataset.groups
        return 0 if groups is None else len(groups[torch.cat(self.rows)].unique())

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
        images = inputs_of(self.dataset, self.features, torch.cat(seen), device, self.family.view)
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
    dataset = with_groups(dataset, changes.get("groups", "") if family is None else family.groups)
    rows, copied = without_copies(dataset, taking_part(dataset, images))
    counts = list(map(len, rows))
    as_is = family is None and "shots" not in changes and is_uneven(counts)
    least = 1 if as_is else LEAST
    most = min(min(counts) // LEAST, *group_counts(dataset, rows))
    folds = folds or max(FEWEST, min(FOLDS, most))
    why = f" for {least} in each of {folds} folds"
    if few := lacking_classes(dataset.classes, counts, folds * least, why, "different image"):
        raise DataError(f"{spec}: {'of the meta-test pool, ' if images == 'test' else ''}{few}")
    parts = cut(dataset, rows, folds, key)
    if family is None:
        # Of the smallest class, without its largest fold.
        rest = min(counts) - -(-min(counts) // folds)
        usual = (
            task_sizes.uneven_family(spec, len(rows), folds)
            if as_is
            else task_sizes.even_family(spec, len(rows), rest)
        )
        family = changed(usual, changes)
    words = counts_in_words(dataset.classes, counts)
    family = task_sizes.fitted(family, _sizes(parts), spec, words)
    features = features_of(family, dataset, family.dataset, family.features, device, reporter)
    usual_metric = as_is and "metric" not in changes
    usual_steps = own is None and "steps" not in changes.get("inner", {})
    return FoldedImages(family, dataset, parts, copied, features, usual_metric, usual_steps)


def cut(dataset: Dataset | Files, rows: Pool, folds: int, key: Stream) -> tuple[Pool, ...]:
    """The images of every fold: cut per class, so that every fold holds images of every class.

    Raises:
        DataError: groups, which are whole in one fold, leave a fold without a class.
    """
    if dataset.groups is not None:
        return _cut_groups(dataset, rows, folds, key)
    of_classes = [
        x[key.at("fold", c).permutation(len(x))].tensor_split(folds) for c, x in enumerate(rows)
    ]
    return tuple(zip(*of_classes, strict=True))


def group_counts(dataset: Dataset | Files, rows: Pool) -> list[int]:
    """Of how many groups the images of each class are; of so many images where there are none."""
    if dataset.groups is None:
        return list(map(len, rows))
    return [len(dataset.groups[x].unique()) for x in rows]


def _cut_groups(dataset: Dataset | Files, rows: Pool, folds: int, key: Stream) -> tuple[Pool, ...]:
    """The images of every fold, every group whole in one of them.

    Raises:
        DataError: a fold would lack a class.
    """
    assert dataset.groups is not None
    counts = group_counts(dataset, rows)
    few = [(n, name) for n, name in zip(counts, dataset.classes, strict=True) if n < folds]
    if few:
        n, name = min(few)
        raise DataError(
            f"{dataset.name}: the images of {name} are of {counted(n, 'group')}, and {folds} "
            f"folds need {folds}, one in each: add images of {folds - n} more, or leave it out"
        )
    parts = parts_of_groups(rows, dataset.groups, [1] * folds, repr((key.seed, key.path)))
    for number, part in enumerate(parts, 1):
        for name, of_class in zip(dataset.classes, part, strict=True):
            if not len(of_class):
                raise DataError(
                    f"{dataset.name}: groups leave fold {number} of {folds} without an image of "
                    f"{name}: its groups also hold many images of other classes; smaller groups, "
                    f"or fewer folds (--folds {max(2, folds - 1)}), may do"
                )
    return tuple(parts)


def _outside(parts: tuple[Pool, ...], number: int) -> Pool:
    """For each class the images of all folds but one."""
    others = [part for i, part in enumerate(parts) if i != number]
    return tuple(torch.cat(of_class) for of_class in zip(*others, strict=True))


def _sizes(parts: tuple[Pool, ...]) -> FoldSizes:
    return [
        (list(map(len, part)), list(map(len, _outside(parts, number))))
        for number, part in enumerate(parts)
    ]


def taking_part(dataset: Dataset | Files, images: str) -> Pool:
    """For each class the images that take part.

    Args:
        dataset: all images.
        images: "all" but those of an official test split; or "test": the meta-test pool.
    """
    if images == "test":
        return pools(dataset)["test"].rows
    return tuple(
        torch.nonzero((dataset.labels == c) & ~dataset.test)[:, 0]
        for c in range(len(dataset.classes))
    )


def without_copies(dataset: Dataset, pool: Pool) -> tuple[Pool, list[str]]:
    """The rows of a pool without copies of earlier ones, and those left out with what they copy.

    A copy in a fold would be no new image.

    Raises:
        DataError: a file is in two classes.
    """
    first: dict[bytes, int] = {}
    copy_of: dict[int, int] = {}
    for row in torch.cat(pool).tolist():
        # A digest takes 16 bytes, however large the image is.
        content = dataset.contents(torch.tensor([row])).numpy().tobytes()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        earlier = first.setdefault(digest, row)
        if earlier != row:
            copy_of[row] = earlier
    pairs = [
        f"{image_name(dataset, row)} of {image_name(dataset, of)}" for row, of in copy_of.items()
    ]
    # Rows of a table may agree by chance; an image is of one class.
    torn = [
        pair
        for pair, (row, of) in zip(pairs, copy_of.items(), strict=True)
        if dataset.files and dataset.labels[row] != dataset.labels[of]
    ]
    if torn:
        raise DataError(
            f"{dataset.name}: {counted(len(torn), 'image')} copied into another class "
            f"({_some(torn)}): which class is right cannot be told; remove one of each pair"
        )
    kept = tuple(
        rows[torch.tensor([row not in copy_of for row in rows.tolist()], dtype=torch.bool)]
        for rows in pool
    )
    return kept, pairs


def _some(texts: Sequence[str]) -> str:
    return ", ".join(texts[:NAMED]) + (", …" if len(texts) > NAMED else "")
