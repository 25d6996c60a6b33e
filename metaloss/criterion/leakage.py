"""Whether a loss has seen the images that it is to be tested on.

Every command that tests losses asks here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from metaloss import storage
from metaloss.criterion import loss_io
from metaloss.criterion.base import Criterion
from metaloss.data import image_record
from metaloss.data.datasets import Dataset, load
from metaloss.data.image_record import LEARNED_FROM, ImageRecord, LearnedSource, Rows
from metaloss.data.pools import pools
from metaloss.errors import DamagedFile, MetalossError, SettingsError
from metaloss.losses import zoo
from metaloss.storage.environment import Provenance, digest_of_rows
from metaloss.storage.folders import find_folder, require_families

PUBLISHED = "none here: a published formula"


@dataclass(frozen=True)
class Origin:
    """Where a loss comes from.

    Attributes:
        name: the published or shipped loss that it is; "" for all others.
        folder: of the run that found it; None where none is to be found here.
    """

    name: str = ""
    folder: Path | None = None


def origin_of(spec: Any, loss: Criterion, runs: Path) -> Origin:
    """Where a loss comes from, by what it was asked for as and by what it says of itself.

    Args:
        spec: a name, a path or an object: what the user gave.
        loss: what it was read as.
        runs: where runs are looked for by name.
    """
    name = _name(spec, loss)
    # A run here may have the name of a shipped loss's.
    return Origin(name, None if name else _folder(spec, loss, runs))


def _name(spec: Any, loss: Criterion) -> str:
    """The published or shipped loss that this one is; a file may call itself what it likes."""
    name = spec if isinstance(spec, str | Path) else loss.about.get("name")
    return (
        name.strip().lower()
        if isinstance(name, str) and loss_io.named(name) and is_named(loss, name)
        else ""
    )


def is_named(loss: Criterion, name: str) -> bool:
    """Whether a loss is the one that goes by a name."""
    try:
        named = loss_io.load(name)
    except SettingsError:
        return False
    return isinstance(named, Criterion) and loss.identity == named.identity is not None


def _folder(spec: Any, loss: Criterion, runs: Path) -> Path | None:
    """The folder of the run that a loss came from; None where none is to be found here."""
    for name in ([spec, Path(spec).parent] if isinstance(spec, str | Path) else []) + [
        loss.about.get("run")
    ]:
        try:
            if (
                isinstance(name, str | Path)
                and str(name) not in ("", ".")
                and (folder_and_kind := find_folder(name, runs, require_families))
            ):
                return folder_and_kind[0]
        except (SettingsError, OSError, ValueError):
            continue
    return None


@dataclass(frozen=True)
class DataOverlap:
    """What a data set is to a loss.

    Attributes:
        data: "same" or "new" data set, "none" for a published formula, "unknown" where nothing
            tells.
        classes: "same", "some new" or "new" classes, or "unknown".
        seen: how many of the test images the loss has learned from.
        doubt: why they may be more than is known; "" where that is sure.
    """

    data: str = "unknown"
    classes: str = "unknown"
    seen: int = 0
    doubt: str = ""

    @property
    def text(self) -> str:
        """The overlap in a few words, as tables show it."""
        words = {"unknown": "unknown", "none": PUBLISHED}
        return words.get(self.data, f"{self.data} data, {self.classes} classes")

    @property
    def refusal(self) -> str:
        """Why the comparison would not be fair; "" where it is."""
        return f"has learned from {self.seen} of the test images" if self.seen else self.doubt


def data_overlap(origin: Origin, loss: Criterion, test: Dataset, tested: Rows) -> DataOverlap:
    """What a data set is to a loss that is to be tested on these of its images.

    Args:
        origin: where the loss comes from.
        loss: the loss itself.
        test: the data set.
        tested: the rows of the images that it is to be tested on.
    """
    if zoo.published(origin.name):
        return DataOverlap("none")
    record = _record(origin, loss, test)
    if record is None:
        return DataOverlap()
    seen = record.count_seen(test, tested)
    # Most of what was learned from lies here: the same images, of which some came or went.
    same = 2 * int(torch.isin(record.digests, test.digests).sum()) > len(record.digests)
    return worst_overlap([_known(source, test, seen, same) for source in record.sources])


def _known(source: LearnedSource, test: Dataset, seen: int, same: bool) -> DataOverlap:
    """What a data set is to a loss that has learned from another one."""
    same = same or source.fingerprint == test.fingerprint()
    data = ("same" if same else "new") if source.classes else "unknown"
    # An official test split is never learned from, in whatever version of the data.
    unsure = not source.listed and source.name == test.name and not test.test.any()
    doubt = (
        "may have learned from the test images, which are not on record one by one"
        if unsure
        else ""
    )
    return DataOverlap(data, _classes(source, test), seen, doubt)


def _record(origin: Origin, loss: Criterion, test: Dataset) -> ImageRecord | None:
    """The images that a loss has learned from; None where nothing tells."""
    if origin.name:
        shipped: Any = loss_io.load(origin.name)  # what a file says of itself is not to be trusted
        names = shipped.about["data sets"].split(", ")
        return image_record.join_records(
            image_record.record_of(test) if x == test.name else _of_source(x) for x in names
        )
    record = loss_io.images_of(loss)
    if record is None and origin.folder is not None:
        record = image_record.read(origin.folder) or _of_old_run(origin.folder)
    return record


def _of_old_run(folder: Path) -> ImageRecord:
    """The images of a run that kept no record of them.

    Its data sets are split again, where they are here unchanged.
    """
    recorded: dict[str, Any] = storage.read_record(
        folder / "provenance.json", Provenance, storage.RESTORE_COPY
    )
    sources = storage.read_toml(folder / "config.toml").get("families", [])
    for family in sources:
        if family["name"] not in recorded["data"]:
            raise DamagedFile(
                f"{folder / 'provenance.json'} is damaged: "
                f"data: nothing is said of {family['name']}"
            )
    return image_record.join_records(
        _of_family(recorded, family["name"], family["dataset"]) for family in sources
    )


def _of_family(recorded: dict[str, Any], name: str, dataset: str) -> ImageRecord:
    try:
        data = _loaded(dataset)
    except MetalossError:
        return _unknown(dataset)
    rows = {pool: digest_of_rows(torch.cat(part.rows)) for pool, part in pools(data).items()}
    known = recorded["data"][name]["pools"]
    same = recorded["conditions"].get(f"data {name}") == data.fingerprint()
    if same and all(known[pool]["sha256"] == rows[pool] for pool in LEARNED_FROM):
        return image_record.record_of(data)
    return _unknown(data.name, tuple(data.classes))


def _of_source(dataset: str) -> ImageRecord:
    try:
        return image_record.record_of(_loaded(dataset))
    except MetalossError:
        return _unknown(dataset)


def _unknown(name: str, classes: tuple[str, ...] = ()) -> ImageRecord:
    """What is known of a loss that learned from images that are not here, or have changed since."""
    return ImageRecord((LearnedSource(name, "", classes, listed=False),))


def _classes(source: LearnedSource, test: Dataset) -> str:
    """What the test's classes are beside those learned from, by their names."""
    if source.name != test.name and not set(source.classes) & set(test.classes):
        return "new"
    return "same" if set(test.classes) <= set(source.classes) else "some new"


def worst_overlap(overlaps: Sequence[DataOverlap]) -> DataOverlap:
    """The verdict on several data sets together.

    Refused where one is refused; else as familiar as the most familiar one.
    """
    order = ("same", "unknown", "new", "none")
    return min(overlaps, key=lambda x: (not x.refusal, order.index(x.data)), default=DataOverlap())


@lru_cache(maxsize=4)
def _loaded(dataset: str) -> Dataset:
    return load(dataset)
