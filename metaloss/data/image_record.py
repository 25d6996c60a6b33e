"""The record of the images that a loss has learned from, so that it is never tested on one of them.

The file `images.json` lies in a run's folder and in the folder of its loss. It holds digests, and
no pixels, names of files or paths. Whoever has an image can tell whether it was used; from the file
alone one learns only the number of images and the names of their classes.
"""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from metaloss import storage
from metaloss.data.datasets import Dataset
from metaloss.data.datasets._files import Files
from metaloss.data.pools import pools
from metaloss.errors import DamagedFile

FILE = "images.json"
# Digests that a record keeps: of more, the smallest, which are a random sample. A file has at most
# 1.4 MB.
KEPT = 1 << 17
ALL = (1 << 63) - 1  # no digest is higher
# The pools for evolution and for the choice of the winner; a test pool changes no loss.
LEARNED_FROM = ("train", "validation")
Digests = Int64[Tensor, " _"]
Rows = Int64[Tensor, " _"]  # of a data set


@dataclass(frozen=True)
class LearnedSource:
    """A data set that a loss has learned from.

    Attributes:
        name: the data set's.
        fingerprint: of the whole set.
        classes: their names.
        listed: whether the digests of its images are on record; not for a set that is too large for
            memory.
    """

    name: str
    fingerprint: str
    classes: tuple[str, ...]
    listed: bool = True


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """The images that a loss has learned from.

    Attributes:
        sources: the data sets that they belong to.
        digests: of the images, ascending.
        highest: digests above this one are left out.
    """

    sources: tuple[LearnedSource, ...] = ()
    digests: Digests = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    highest: int = ALL

    def count_seen(self, dataset: Dataset, rows: Rows) -> int:
        """How many images of a data set the loss learned from.

        A lower bound where the record leaves digests out. An image of one colour does not count: it
        occurs in many sets, and there is nothing to learn from it.
        """
        known = rows[torch.isin(dataset.digests[rows], self.digests)]
        return int(dataset.informative(known).sum())

    def table(self) -> dict[str, Any]:
        """The record as values for JSON."""
        # Little-endian whatever the machine is, because the file may go to another.
        data = base64.b64encode(self.digests.numpy().astype("<i8").tobytes()).decode()
        return {
            "sources": [asdict(x) for x in self.sources],
            "highest": self.highest,
            "digests": data,
        }


def record_of(dataset: Dataset | Files) -> ImageRecord:
    """The record of a loss that learned from the training and validation pools of a data set.

    An image of which the test pool has a copy is left out: otherwise no loss could ever be tested
    on such data.
    """
    listed = isinstance(dataset, Dataset)
    source = LearnedSource(dataset.name, dataset.fingerprint(), tuple(dataset.classes), listed)
    if not isinstance(dataset, Dataset):
        return ImageRecord((source,))
    digests = {name: dataset.digests[torch.cat(pool.rows)] for name, pool in pools(dataset).items()}
    learned = torch.cat([digests[name] for name in LEARNED_FROM])
    return _kept((source,), learned[~torch.isin(learned, digests["test"])], ALL)


def join_records(records: Iterable[ImageRecord]) -> ImageRecord:
    """One record of all images in several records."""
    records = list(records)
    sources = tuple(dict.fromkeys(source for record in records for source in record.sources))
    digests = torch.cat([ImageRecord().digests, *(record.digests for record in records)])
    return _kept(sources, digests, min((record.highest for record in records), default=ALL))


def _kept(sources: Sequence[LearnedSource], digests: Digests, highest: int) -> ImageRecord:
    """A record of these digests, or of the smallest ones where they are too many."""
    # Below the lowest limit of several records each of them is complete.
    ascending = digests[digests <= highest].unique()
    if len(ascending) > KEPT:
        ascending = ascending[:KEPT]
        highest = int(ascending[-1])
    return ImageRecord(tuple(sources), ascending, highest)


def read(folder: Path) -> ImageRecord | None:
    """The record in a folder; None where it has none.

    Raises:
        DamagedFile: it is damaged.
    """
    path = folder / FILE
    if not storage.is_file(path):
        return None
    table: _Written = storage.read_record(path, _Written, storage.RESTORE_COPY)
    try:
        # `validate`: otherwise foreign characters would be skipped in silence.
        digests = np.frombuffer(base64.b64decode(table.digests, validate=True), "<i8").astype(
            np.int64
        )
    except ValueError as error:
        raise DamagedFile(f"{path} is damaged: digests: {error}") from None
    return ImageRecord(table.sources, torch.from_numpy(digests), table.highest)


@dataclass(frozen=True)
class _Written:
    """The content of the file."""

    sources: tuple[LearnedSource, ...]
    highest: int
    digests: str


def write(folder: Path, record: ImageRecord) -> None:
    """Write a record into a folder, whole or not at all."""
    storage.write_record(folder / FILE, record.table())
