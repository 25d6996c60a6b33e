"""Whether a loss has seen the images that it is to be tested on: every command that judges losses asks here."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from metaloss import catalogue, image_record, zoo
from metaloss.comparison.contestants import Contestant
from metaloss.datasets import Dataset, load
from metaloss.errors import DamagedFile, MetalossError
from metaloss.image_record import LEARNED_FROM, ImageRecord, Rows, Source
from metaloss.pools import pools
from metaloss.run import Run, digest_of

PUBLISHED = "none here: a published formula"


@dataclass(frozen=True)
class Exposure:
    """What a data set is to a loss.

    Attributes:
        data: "same" or "new" data set, "none" for a published formula, "unknown" where nothing tells.
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
        """In words."""
        words = {"unknown": "unknown", "none": PUBLISHED}
        return words.get(self.data, f"{self.data} data, {self.classes} classes")

    @property
    def refusal(self) -> str:
        """Why the comparison would not be fair; "" where it is."""
        return f"has learned from {self.seen} of the test images" if self.seen else self.doubt


def exposed(one: Contestant, test: Dataset, tested: Rows) -> Exposure:
    """What a data set is to a loss that is to be tested on these of its images."""
    if zoo.published(one.name):
        return Exposure("none")
    record = _record(one, test)
    if record is None:
        return Exposure()
    seen = record.seen(test, tested)
    # Most of what was learned from lies here: the same images, of which some came or went.
    same = 2 * int(torch.isin(record.digests, test.digests).sum()) > len(record.digests)
    return _worst([_known(source, test, seen, same) for source in record.sources])


def _known(source: Source, test: Dataset, seen: int, same: bool) -> Exposure:
    """What a data set is to a loss that has learned from another one."""
    same = same or source.fingerprint == test.fingerprint()
    data = ("same" if same else "new") if source.classes else "unknown"
    # An official test split is never learned from, in whatever version of the data.
    unsure = not source.listed and source.name == test.name and not test.test.any()
    doubt = "may have learned from the test images, which are not on record one by one" if unsure else ""
    return Exposure(data, _classes(source, test), seen, doubt)


def _record(one: Contestant, test: Dataset) -> ImageRecord | None:
    """The images that a loss has learned from; None where nothing tells."""
    if one.name:
        shipped: Any = catalogue.load(one.name)  # what a file says of itself is not to be trusted
        names = shipped.about["data sets"].split(", ")
        return image_record.joined(image_record.of(test) if x == test.name else _of_source(x) for x in names)
    record = catalogue.images_of(one.criterion)
    if record is None and one.run is not None:
        record = image_record.read(one.run.folder) or _of_old_run(one.run)
    return record


def _of_old_run(run: Run) -> ImageRecord:
    """The images of a run that kept no record of them: as its data sets are cut, where they are here unchanged."""
    recorded = _provenance(run)
    return image_record.joined(_of_family(recorded, family.name, family.dataset) for family in run.settings.families)


def _of_family(recorded: dict[str, Any], name: str, dataset: str) -> ImageRecord:
    try:
        data = _loaded(dataset)
    except MetalossError:
        return _unknown(dataset)
    rows = {pool: digest_of(torch.cat(part.rows)) for pool, part in pools(data).items()}
    known = recorded["data"][name]["pools"]
    same = recorded["conditions"].get(f"data {name}") == data.fingerprint()
    if same and all(known[pool]["sha256"] == rows[pool] for pool in LEARNED_FROM):
        return image_record.of(data)
    return _unknown(data.name, tuple(data.classes))


def _of_source(dataset: str) -> ImageRecord:
    try:
        return image_record.of(_loaded(dataset))
    except MetalossError:
        return _unknown(dataset)


def _unknown(name: str, classes: tuple[str, ...] = ()) -> ImageRecord:
    """What is known of a loss that learned from images that are not here, or are not those of then."""
    return ImageRecord((Source(name, "", classes, listed=False),))


def _classes(source: Source, test: Dataset) -> str:
    """What the test's classes are beside those learned from, by their names."""
    if source.name != test.name and not set(source.classes) & set(test.classes):
        return "new"
    return "same" if set(test.classes) <= set(source.classes) else "some new"


def _worst(found: Sequence[Exposure]) -> Exposure:
    """What several data sets come to: refused where one is, and as familiar as the most familiar one."""
    order = ("same", "unknown", "new", "none")
    return min(found, key=lambda x: (not x.refusal, order.index(x.data)), default=Exposure())


def _provenance(run: Run) -> dict[str, Any]:
    table = run.provenance()
    for family in run.settings.families:
        if family.name not in table["data"]:
            path = run.folder / "provenance.json"
            raise DamagedFile(f"{path} is damaged: data: nothing is said of {family.name}")
    return table


@lru_cache(maxsize=4)
def _loaded(dataset: str) -> Dataset:
    return load(dataset)
