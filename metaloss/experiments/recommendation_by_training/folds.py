"""A user's images in folds for real trainings: what may choose a loss, and what judges the choice.

Inside a fold's rest the images are cut again, into inner parts that take turns to be held out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset
from metaloss.data.datasets._files import Files
from metaloss.data.datasets.voc import Scenes
from metaloss.data.episodes import Pool
from metaloss.data.group_cuts import parts_of_groups
from metaloss.data.groups import with_groups
from metaloss.data.pools import lacking_classes
from metaloss.errors import DataError
from metaloss.experiments.recommendation.folds import (
    FEWEST,
    FOLDS,
    LEAST,
    cut,
    group_counts,
    taking_part,
    without_copies,
)
from metaloss.experiments.recommendation_by_training.settings import TrainingRecommendation
from metaloss.tasks.uneven import is_uneven
from metaloss.training.defaults import decided, epoch_length
from metaloss.training.images import TrainingImages, feature_moments, moments, open_images
from metaloss.training.schedule import make_schedule
from metaloss.training.settings import Training
from metaloss.training.shares import Shares
from metaloss.training.sources import Rows


@dataclass(frozen=True)
class Part:
    """Which images are looked at; a training learns from what is left.

    Attributes:
        fold: is judged, or left out of a choice; None: none is, all images choose.
        split: the inner part of the others that is looked at; None: the fold itself.
        repeat: of the cut into inner parts.
    """

    fold: int | None
    split: int | None = None
    repeat: int = 0

    @property
    def path(self) -> tuple[str | int, ...]:
        """For random streams."""
        all_ = "all" if self.fold is None else self.fold
        return (all_, "judged") if self.split is None else (all_, self.repeat, self.split)


@dataclass(frozen=True, eq=False)
class TrainingFolds:
    """The images that take part, and how they are cut.

    Attributes:
        settings: of the real training; nothing is left open.
        images: all of them; their shares are those of each training.
        parts: of every fold, for each class its images.
        splits: inner parts of the images that choose.
        copies: images left out because their pixels are those of another one, which is named, too.
        key: of the inner cuts.
    """

    settings: Training
    images: TrainingImages
    parts: tuple[Pool, ...]
    splits: int
    copies: list[str]
    key: Stream

    @property
    def dataset(self) -> Dataset | Files:
        """The labels, classes, splits and origin."""
        assert not isinstance(self.images.dataset, Scenes)  # refused when they are opened
        return self.images.dataset

    @property
    def steps(self) -> int:
        """Of the real training."""
        return self.settings.steps or 0

    @property
    def folds(self) -> int:
        """How many."""
        return len(self.parts)

    @property
    def counts(self) -> list[int]:
        """How many images each class has."""
        return [sum(map(len, of_class)) for of_class in zip(*self.parts, strict=True)]

    @property
    def group_count(self) -> int:
        """Of how many groups the images are; 0 where they stand for themselves."""
        groups = self.dataset.groups
        return 0 if groups is None else len(groups[self.everything].unique())

    @property
    def uneven(self) -> bool:
        """Whether classes are."""
        return is_uneven(self.counts)

    @property
    def everything(self) -> Rows:
        """All images that take part, in ascending order."""
        return _joined(self.parts)

    def held_out(self, fold: int) -> Rows:
        """A fold's images."""
        return _joined(self.parts[fold : fold + 1])

    def cut(self, part: Part) -> tuple[Rows, Rows]:
        """The images that a training learns from, and those that are looked at in the end."""
        seen = [x for number, x in enumerate(self.parts) if number != part.fold]
        if part.split is None:
            assert part.fold is not None
            return _joined(seen), self.held_out(part.fold)
        rows = tuple(torch.cat(x).sort().values for x in zip(*seen, strict=True))
        inner = self._inner(rows, self.key.at("inner", *part.path[:2]))
        rest = [x for number, x in enumerate(inner) if number != part.split]
        return _joined(rest), _joined(inner[part.split : part.split + 1])

    def _inner(self, rows: Pool, key: Stream) -> tuple[Pool, ...]:
        """Inner parts; one may lack a class whose groups are few."""
        groups = self.dataset.groups
        if groups is None:
            return cut(self.dataset, rows, self.splits, key)
        return tuple(parts_of_groups(rows, groups, [1] * self.splits, repr((key.seed, key.path))))

    def seen_by(self, train: Rows) -> TrainingImages:
        """The images as a training on some of them sees them: normalised by these alone."""
        images = self.images
        # The loop looks at validation images once, at its end; nothing is chosen by them.
        shares = Shares(train, train[:1], train[:0])
        if images.features is not None:
            mean, std = feature_moments(images.features.values, train)
        elif self.settings.pretrained or not isinstance(images.dataset, Dataset):
            return replace(images, shares=shares)
        else:
            mean, std = moments(images.dataset.pixels, train)
        return replace(images, shares=shares, mean=mean, std=std)

    def training(self, steps: int) -> Training:
        """The settings of a training of so many steps, its course that of the real one."""
        settings = self.settings
        each = settings.epoch_steps or steps
        if settings.schedule != "step":  # epochs mean nothing to the rate
            each = self.steps
        share = steps / self.steps
        warmup = settings.warmup and int(settings.warmup * share)
        return replace(
            settings, steps=steps, epoch_steps=max(1, round(each * share)), warmup=warmup
        )


def open_folds(
    asked: TrainingRecommendation, training: Training, device: torch.device
) -> TrainingFolds:
    """The images of the recommendation's data, in folds, with the training's defaults decided.

    Raises:
        SettingsError: no such data source, or a warm-up that is too long.
        DataError: images are missing or damaged, or too few; the message names the least.
    """
    images = open_images(training, device)
    dataset = images.dataset
    if isinstance(dataset, Scenes):
        raise DataError(f"{asked.data} has classes of pixels; recommend takes those of images")
    dataset = with_groups(dataset, asked.groups)
    images = replace(images, dataset=dataset)
    rows: Pool = taking_part(dataset, asked.images)
    copies: list[str] = []
    if isinstance(dataset, Dataset):
        rows, copies = without_copies(dataset, rows)
    counts = list(map(len, rows))
    least = 1 if is_uneven(counts) else LEAST
    most = min(min(counts) // LEAST, *group_counts(dataset, rows))
    folds = asked.folds or max(FEWEST, min(FOLDS, most))
    why = f" for {least} in each of {folds} folds"
    if few := lacking_classes(dataset.classes, counts, folds * least, why, "different image"):
        pool = "of the meta-test pool, " if asked.images == "test" else ""
        raise DataError(f"{asked.data}: {pool}{few}")
    count = sum(counts)
    settings = decided(training, count, images.feature_count)
    # In steps from here on, so that trainings on fewer images are as long.
    steps = make_schedule(settings, count).steps
    settings = replace(
        settings, steps=steps, epochs=None, epoch_steps=epoch_length(settings, count)
    )
    key = Stream(asked.seed).at("folds")
    return TrainingFolds(
        settings, images, cut(dataset, rows, folds, key), asked.splits, copies, key
    )


def _joined(parts: Sequence[Pool]) -> Rows:
    """All images of some parts, in ascending order."""
    return torch.cat([rows for part in parts for rows in part]).sort().values
