"""Where the images of a training are: on the device, or in files that are read batch by batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from metaloss.data.datasets._files import Files
from metaloss.data.datasets.voc import Scenes

Rows = Int64[Tensor, " _"]
Labels = Int64[Tensor, " N"] | UInt8[Tensor, "N H W"]  # of images, or of their pixels
Batch = tuple[Shaped[Tensor, "B K H W"], Int64[Tensor, " B"] | UInt8[Tensor, "B H W"]]


@dataclass(frozen=True, eq=False)
class Resident:
    """Images that all live on the device."""

    pixels: Shaped[Tensor, "N K H W"]  # bytes, or features
    labels: Labels

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, order: Rows, batch: int) -> Iterator[Batch]:
        """Batches of the images at these rows; the last one may be smaller."""
        for rows in order.to(self.pixels.device).split(batch):
            yield self.pixels[rows], self.labels[rows]


@dataclass(frozen=True, eq=False)
class Streamed:
    """Images that are read from their files batch by batch, by other processes."""

    files: Files | Scenes
    size: int
    workers: int
    device: torch.device

    def __len__(self) -> int:
        return len(self.files.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.files.pair(row, self.size)

    def batches(self, order: Rows, batch: int) -> Iterator[Batch]:
        """Batches of the images at these rows, on the device; the last one may be smaller."""
        groups = [rows.tolist() for rows in order.split(batch)]
        pin = self.device.type == "cuda"
        # Give the DataLoader its own generator: otherwise it draws its base seed from torch's
        # global one and shifts every later draw.
        loader: Any = DataLoader(
            self,  # type: ignore[arg-type]
            batch_sampler=groups,
            num_workers=self.workers,
            pin_memory=pin,
            generator=torch.Generator(),
        )
        for images, labels in loader:
            yield (
                images.to(self.device, non_blocking=True),
                labels.to(self.device, non_blocking=True),
            )
