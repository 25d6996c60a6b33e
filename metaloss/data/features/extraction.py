"""Features of all images of a data set by a pretrained network, kept in the user's cache.

An entry of the cache belongs to one network, its preprocessing and one list of images. Its parts
are written as they are done, so that an extraction that was stopped goes on where it was.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss import storage
from metaloss.core.reporting import Reporter
from metaloss.data.datasets import Dataset, files
from metaloss.data.datasets._files import DEFAULT_SIZE, Files
from metaloss.data.datasets._images import ImageOptions, to_eight_bits
from metaloss.data.datasets._remarks import warn_of
from metaloss.data.features.networks import PretrainedNetwork, open_network
from metaloss.errors import DamagedFile, DataError, DiskError
from metaloss.kernels import cache

PART = 512  # images whose features are kept together
BATCH = 32  # images that the network sees at once
ENTRIES = 32  # kept
LIMIT = 8 << 30  # bytes of all of them together

ReadImage = Callable[[int], Any]  # a Pillow image in RGB, by its row


def extract(
    spec: str,
    dataset: Dataset,
    place: str,
    options: ImageOptions,
    device: torch.device | str,
    reporter: Reporter,
) -> Float[Tensor, "N D"]:
    """The features of all images, from the cache as far as they are there.

    Args:
        spec: torchvision:NAME or timm:NAME.
        dataset: the images.
        place: the data source, where the images lie now.
        options: how its image files are read.
        device: where the network computes.
        reporter: is told of the progress.

    Raises:
        SettingsError: there is no such network.
        DataError: its weights are not here, or an image cannot be read.
    """
    network = open_network(spec)
    device = torch.device(device)
    name = entry_name(network, dataset, options, device)
    folder = _folder(name)
    read = rgb_reader(dataset, place, options)
    rows = len(dataset.labels)
    parts = []
    module = network.module.to(device)
    for start in range(0, rows, PART):
        stop = min(start + PART, rows)
        path = folder / f"{start:08}.safetensors" if folder else None
        values = _kept(path, stop - start)
        if values is None:
            reporter.on_features(spec, start, rows)
            values = _computed(module, network.transform, read, range(start, stop), device)
            _keep(path, values)
        parts.append(values)
    reporter.on_features(spec, rows, rows)
    if folder:
        cache.make_room(folder.parent, folder, ENTRIES, LIMIT)
    return torch.cat(parts)


def entry_name(
    network: PretrainedNetwork, dataset: Dataset, options: ImageOptions, device: torch.device
) -> str:
    """The digest of all that decides features: weights, preprocessing, images, torch, device."""
    about = (network.identity, options.background, torch.__version__, device.type)
    digest = hashlib.sha256(repr(about).encode())
    digest.update(dataset.digests.numpy().astype("<i8").tobytes())
    return digest.hexdigest()[:32]


def image_files(place: str, options: ImageOptions) -> Files | None:
    """The image files of a data source, in the order of its data set; None where it has none."""
    # With a size: without one, sources give a data set in memory, and no files.
    listed: Files | None = files(place, replace(options, size=options.size or DEFAULT_SIZE))
    return listed


def rgb_reader(dataset: Dataset, place: str, options: ImageOptions) -> ReadImage:
    """Gives an image by its row, from its file at full size where it has one.

    Raises:
        DataError: the images have neither one nor three channels.
    """
    from PIL import Image

    listed = image_files(place, options)
    if listed is not None:
        return lambda row: to_eight_bits(
            listed.open_upright(row), listed.paths[row], options, listed.levels, False
        )
    channels = dataset.pixels.shape[1]
    if channels not in (1, 3):
        raise DataError(
            f"{dataset.name}: images: found {channels} channels, expected 1 or 3 for a pretrained "
            "network"
        )
    return lambda row: Image.fromarray(
        dataset.pixels[row].expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    )


@torch.inference_mode()
def _computed(
    module: torch.nn.Module,
    transform: Callable[[Any], Tensor],
    read: ReadImage,
    rows: range,
    device: torch.device,
) -> Float[Tensor, "N D"]:
    batches = []
    for start in range(rows.start, rows.stop, BATCH):
        images = [transform(read(row)) for row in range(start, min(start + BATCH, rows.stop))]
        values = module(torch.stack(images).to(device))
        if not isinstance(values, Tensor) or values.ndim != 2:
            raise DataError("features: the network gives no vector for every image")
        batches.append(values.float().cpu())
    result = torch.cat(batches)
    if not result.isfinite().all():
        raise DataError("features: the network gives values that are not finite")
    return result.clone()  # a tensor outside of inference mode


def _folder(name: str) -> Path | None:
    """The folder of an entry; None where nothing can be kept, which is said."""
    try:
        folder = cache.folder("features") / name
        folder.mkdir(parents=True, exist_ok=True)
    except (cache.Unusable, OSError) as error:
        warn_of(f"features are not kept, and computed anew by every command: {error}")
        return None
    return folder


def _kept(path: Path | None, rows: int) -> Float[Tensor, "N D"] | None:
    """A part of an entry; None where it is not there or does not check out."""
    if path is None or not storage.is_file(path):
        return None
    try:
        values = storage.read_tensors(path).get("features")
    except (DamagedFile, DiskError, OSError):
        return None
    return values if values is not None and len(values) == rows else None


def _keep(path: Path | None, values: Float[Tensor, "N D"]) -> None:
    if path is None:
        return
    try:
        storage.write_tensors(path, {"features": values})
    except DiskError as error:
        warn_of(f"features are not kept: {error}")
