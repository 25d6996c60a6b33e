"""What the classifiers of episodes are fed: pixels or features, normalised."""

import torch
from jaxtyping import Int64
from torch import Tensor

from metaloss.core.reporting import Reporter
from metaloss.data.datasets import Dataset, Table
from metaloss.data.episodes import Images
from metaloss.data.features import Features, RawFeatures, open_features, standardised
from metaloss.data.versions import check_size
from metaloss.data.views import PixelView
from metaloss.errors import SettingsError
from metaloss.tasks.episodic_family import TaskFamily


def features_of(
    family: TaskFamily,
    dataset: Dataset,
    place: str,
    spec: str,
    device: torch.device | str,
    reporter: Reporter | None = None,
) -> RawFeatures | None:
    """What takes the place of the pixels; None where nothing does.

    Args:
        family: the settings.
        dataset: its images, or its table.
        place: the data source, where it lies now.
        spec: what names the features, where they lie now.
        device: where a network computes.
        reporter: is told of the progress.

    Raises:
        SettingsError: its features cannot be, or it augments images and there are none, or none of
            that size.
    """
    _check_pixels(family, dataset, spec)
    if not spec and not isinstance(dataset, Table):
        return None
    return open_features(spec, dataset, place, family.image_options, device, reporter)


def _check_pixels(family: TaskFamily, dataset: Dataset, spec: str) -> None:
    for name in ("augment", "view"):
        if getattr(family, name) is not None and (spec or isinstance(dataset, Table)):
            raise SettingsError(
                f"{family.origin}: {name} changes pixels, and here classifiers are fed "
                f"{spec or 'a table of features'}: leave {name} out"
            )
    if family.augment is None:
        return
    try:
        check_size(family.augment, *dataset.pixels.shape[2:])
    except SettingsError as error:
        raise SettingsError(f"{family.origin}: {error}") from None


def inputs_of(
    dataset: Dataset,
    features: RawFeatures | None,
    rows: Int64[Tensor, " N"],
    device: torch.device | str,
    view: PixelView | None = None,
) -> Images | Features:
    """What classifiers are fed: pixels or features, normalised by the given rows alone.

    Where these are the images that may be learned from, all others stay unseen.

    Args:
        dataset: the images, or the table.
        features: what takes the place of the pixels; None: nothing does.
        rows: of the images that normalise all of them.
        device: where classifiers train.
        view: how pixels are shown; None: as they are.
    """
    if features is None:
        return normalised(dataset, rows, device, view)
    return standardised(features, rows, device)


def normalised(
    dataset: Dataset,
    rows: Int64[Tensor, " N"],
    device: torch.device | str,
    view: PixelView | None = None,
) -> Images:
    """All images on a device, with one mean and one standard deviation: those of the given rows'
    pixels.

    Where these are the images that may be learned from, all others stay unseen.
    """
    counts = torch.bincount(dataset.pixels[rows].flatten(), minlength=256).double()
    level = torch.arange(256, dtype=torch.float64)
    mean = (counts * level).sum() / counts.sum()
    std = ((counts * (level - mean) ** 2).sum() / counts.sum()).sqrt().clamp(min=1)
    return Images(dataset.pixels.to(device), float(mean), float(std), view)
