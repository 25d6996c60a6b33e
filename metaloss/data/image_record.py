"""Which images a loss has learned from: their digests, kept beside it, so that it is never judged
on one of them.

The file `images.json` lies in a run's folder and in the folder of its loss. It holds no pixels,
names of files or paths: whoever has the very image can tell that it was there, and nobody else can
tell anything but how many there were and the names of their classes."""

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
KEPT = 1 << 17  # digests: the smallest of more, which are a fair sample; a file has 1.4 MB at most
ALL = (1 << 63) - 1  # no digest is higher
# Evolution and the choice of the winner; the test pool feeds nothing back.
LEARNED_FROM = ("train", "validation")
Digests = Int64[Tensor, " _"]
Rows = Int64[Tensor, " _"]  # of a data set


@dataclass(frozen=True)
class LearnedSource:
    """A data set that a loss has learned from.

    Attributes:
        name: the data set's.
        fingerprint: of all of it.
        classes: their names.
        listed: whether its images are on record one by one; not where they are too many to be held
            in memory.
    """

    name: str
    fingerprint: str
    classes: tuple[str, ...]
    listed: bool = True


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """The images that a loss has learned from.

    Attributes:
        sources: where they come from.
        digests: of the images, ascending.
        highest: digests above this one are not kept.
    """

    sources: tuple[LearnedSource, ...] = ()
    digests: Digests = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    highest: int = ALL

    def count_seen(self, dataset: Dataset, rows: Rows) -> int:
        """How many images of a data set were learned from; where more were than are kept, the least
        it can be.

        An image of one colour does not count: it is the same in many sets, and nothing is to be
        learned from it."""
        known = dataset.pixels[rows[torch.isin(dataset.digests[rows], self.digests)]].flatten(1)
        return int((known != known[:, :1]).any(1).sum())

    def table(self) -> dict[str, Any]:
        """As values for JSON."""
        data = base64.b64encode(self.digests.numpy().astype("<i8").tobytes()).decode()
        return {
            "sources": [asdict(x) for x in self.sources],
            "highest": self.highest,
            "digests": data,
        }


def record_of(dataset: Dataset | Files) -> ImageRecord:
    """The record of a loss that learned from a data set's pools of training and validation.

    An image of which the test pool has a copy is left out: that is the data's doing, and no loss
    could be tested there."""
    listed = isinstance(dataset, Dataset)
    source = LearnedSource(dataset.name, dataset.fingerprint(), tuple(dataset.classes), listed)
    if not isinstance(dataset, Dataset):
        return ImageRecord((source,))
    cut = {name: dataset.digests[torch.cat(pool.rows)] for name, pool in pools(dataset).items()}
    learned = torch.cat([cut[name] for name in LEARNED_FROM])
    return _kept((source,), learned[~torch.isin(learned, cut["test"])], ALL)


def join_records(records: Iterable[ImageRecord]) -> ImageRecord:
    """One record of all that these hold."""
    found = list(records)
    sources = tuple(dict.fromkeys(source for record in found for source in record.sources))
    digests = torch.cat([ImageRecord().digests, *(record.digests for record in found)])
    return _kept(sources, digests, min((record.highest for record in found), default=ALL))


def _kept(sources: Sequence[LearnedSource], digests: Digests, highest: int) -> ImageRecord:
    """A record of so many digests as are kept."""
    ascending = digests[digests <= highest].unique()
    if len(ascending) > KEPT:
        ascending, highest = ascending[:KEPT], int(ascending[KEPT - 1])
    return ImageRecord(tuple(sources), ascending, highest)


def read(folder: Path) -> ImageRecord | None:
    """The record that lies in a folder; None: there is none.

    Raises:
        DamagedFile: it does not check out.
    """
    path = folder / FILE
    if not storage.is_file(path):
        return None
    table: _Written = storage.read_record(path, _Written, storage.RESTORE_COPY)
    try:
        digests = np.frombuffer(base64.b64decode(table.digests, validate=True), "<i8").astype(
            np.int64
        )
    except ValueError as error:
        raise DamagedFile(f"{path} is damaged: digests: {error}") from None
    return ImageRecord(table.sources, torch.from_numpy(digests), table.highest)


@dataclass(frozen=True)
class _Written:
    """What the file holds."""

    sources: tuple[LearnedSource, ...]
    highest: int
    digests: str


def write(folder: Path, record: ImageRecord) -> None:
    """Put a record into a folder, whole or not at all."""
    storage.write_record(folder / FILE, record.table())
