"""The images that a family of full trainings holds out, in two: for fitness, and for the winner."""

from dataclasses import replace
from importlib.util import find_spec

import torch

from metaloss.core import installation
from metaloss.core.formatting import counted
from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset
from metaloss.data.datasets._files import Files
from metaloss.data.datasets.voc import Scenes
from metaloss.data.group_cuts import two_sides
from metaloss.errors import DataError, SettingsError
from metaloss.tasks.training_family import TrainingFamily
from metaloss.training.defaults import decided
from metaloss.training.images import TrainingImages, open_images
from metaloss.training.models import check_model
from metaloss.training.sources import Rows


def open_halved_images(
    family: TrainingFamily, device: torch.device, place: str
) -> tuple[TrainingFamily, TrainingImages, Rows]:
    """The family with its defaults decided, its images, and the half that chooses the winner.

    The images' validation share is the other half, for fitness.

    Raises:
        SettingsError: no such network, images of another kind, or Lightning is not installed.
        DataError: images are missing, or too few.
    """
    if find_spec("lightning") is None:
        install = installation.command("train")
        raise SettingsError(f"{family.origin}: full-size training needs Lightning: {install}")
    settings = family.training
    check_model(settings.model)
    material = open_images(replace(settings, data=place or settings.data), device)
    if isinstance(material.dataset, Scenes):
        raise SettingsError(
            f"{family.origin}: {settings.data} has a class for every pixel; a family has one for "
            "every image"
        )
    rows = material.training_rows(settings.per_class, Stream(0))
    settings = decided(settings, len(rows))
    fitness, winner = halve(
        material.shares.validation, material.dataset, Stream(settings.seed).at("halves")
    )
    material = replace(material, shares=replace(material.shares, validation=fitness))
    return replace(family, training=settings), material, winner


def halve(held: Rows, dataset: Dataset | Files, key: Stream) -> tuple[Rows, Rows]:
    """The held-out rows in two, of every class as many in each as can be, groups whole.

    Raises:
        DataError: fewer than two images of a class are held out, or two groups.
    """
    if dataset.groups is not None:
        return _halves_of_groups(held, dataset, dataset.groups, key)
    first = []
    second = []
    for label, name in enumerate(dataset.classes):
        rows = held[dataset.labels[held] == label]
        if len(rows) < 2:
            raise DataError(
                f"class '{name}': {len(rows)} images are held out, and fitness and the choice of "
                "the winner need one each: raise training.validation"
            )
        rows = rows[key.at(label).permutation(len(rows))]
        first.append(rows[: len(rows) // 2])
        second.append(rows[len(rows) // 2 :])
    return torch.cat(first).sort().values, torch.cat(second).sort().values


def _halves_of_groups(
    held: Rows, dataset: Dataset | Files, groups: Rows, key: Stream
) -> tuple[Rows, Rows]:
    """The held-out rows in two, no group on both sides.

    Raises:
        DataError: groups leave a half without images of a class.
    """
    rows = [held[dataset.labels[held] == label] for label in range(len(dataset.classes))]
    sides = two_sides(rows, groups, [len(x) // 2 for x in rows], key)
    if sides is None:
        numbers = [len(groups[x].unique()) for x in rows]
        label = numbers.index(min(numbers))
        raise DataError(
            f"class '{dataset.classes[label]}': images of {counted(numbers[label], 'group')} are "
            "held out, and fitness and the choice of the winner need one each: raise "
            "training.validation, or give smaller groups"
        )
    first, second = (torch.cat(x).sort().values for x in sides)
    return first, second
