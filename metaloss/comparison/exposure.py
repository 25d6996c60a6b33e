"""Whether a loss has seen the images that it is to be tested on."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from metaloss import catalogue, zoo
from metaloss.comparison.contestants import Contestant
from metaloss.datasets import Dataset, load
from metaloss.errors import DamagedFile, MetalossError
from metaloss.families import Episodes
from metaloss.pools import pools
from metaloss.run import Run, digest_of

PUBLISHED = "none here: a published formula"
LEARNED_FROM = ("train", "validation")  # evolution and the choice of the winner; the test pool feeds nothing back


@dataclass(frozen=True)
class Exposure:
    """What a family's data is to a loss.

    Attributes:
        data: "same" or "new" data set, "none" for a published formula, "unknown" where nothing tells.
        classes: "same", "some new" or "new" classes, or "unknown".
        seen: how many of the family's test images the run has learned from.
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


def exposed(one: Contestant, episodes: Episodes) -> Exposure:
    """What a family's data is to a loss."""
    if one.run is not None:
        recorded = _provenance(one.run)
        return _worst([_one(recorded, f.name, f.dataset, episodes) for f in one.run.settings.families])
    if zoo.published(one.name):
        return Exposure("none")
    if one.name:
        shipped: Any = catalogue.load(one.name)  # what a file says of itself is not to be trusted
        return _worst([_shipped(name, episodes) for name in shipped.about["data sets"].split(", ")])
    return Exposure()


def _shipped(dataset: str, episodes: Episodes) -> Exposure:
    """What a family's data is to a loss that comes with the package, as the package cuts its data sets."""
    try:
        data = episodes.dataset if dataset == episodes.family.dataset else _loaded(dataset)
    except MetalossError:
        return Exposure()
    return _known(data, episodes)


def _one(recorded: dict[str, Any], name: str, dataset: str, episodes: Episodes) -> Exposure:
    """The same for one family of a run."""
    test, here = episodes.dataset, dataset == episodes.family.dataset
    try:
        data = test if here else _loaded(dataset)
    except MetalossError:
        return Exposure("unknown")
    if recorded["conditions"].get(f"data {name}") != data.fingerprint():
        # An official test split is never learned from, in whatever version of the data.
        doubt = "" if not here or data.test.any() else "learned from another version of these images"
        return Exposure("same" if here else "unknown", _classes(data, test), doubt=doubt)
    rows = {pool: torch.cat(part.rows) for pool, part in pools(data).items()}
    if any(recorded["data"][name]["pools"][pool]["sha256"] != digest_of(rows[pool]) for pool in LEARNED_FROM):
        return Exposure("same" if here else "new", _classes(data, test), doubt="learned from pools cut another way")
    return _known(data, episodes)


def _known(data: Dataset, episodes: Episodes) -> Exposure:
    """What a family's data is to a loss that has learned from a data set's pools as they are cut here."""
    test, cut = episodes.dataset, pools(data)
    learned = torch.cat([torch.cat(cut[pool].rows) for pool in LEARNED_FROM])
    same = data.fingerprint() == test.fingerprint()
    return Exposure("same" if same else "new", _classes(data, test), _seen(data, learned, episodes, same))


def _seen(data: Dataset, learned: Int[Tensor, " N"], episodes: Episodes, same: bool) -> int:
    """How many test images were learned from: by their place in the same data set, by their pixels in another one."""
    tested, known = torch.cat(episodes.pools["test"]), set(learned.tolist())
    if same:
        return len(known & set(tested.tolist()))
    test = episodes.dataset
    # A picture that the family's own pools hold twice is not the run's doing.
    own = _pictures(test, torch.cat([torch.cat(episodes.pools[pool]) for pool in LEARNED_FROM]))
    return len((_pictures(data, learned) & _pictures(test, tested)) - own)


def _pictures(data: Dataset, rows: Int[Tensor, " N"]) -> set[bytes]:
    shape = repr(tuple(data.pixels.shape[1:])).encode()
    return {hashlib.blake2b(x.tobytes(), key=shape, digest_size=16).digest() for x in data.pixels[rows].numpy()}


def _classes(data: Dataset, test: Dataset) -> str:
    """What the test's classes are beside those learned from, by their names."""
    if data.name != test.name and not set(data.classes) & set(test.classes):
        return "new"
    return "same" if set(test.classes) <= set(data.classes) else "some new"


def _worst(found: Sequence[Exposure]) -> Exposure:
    """What several families come to: refused where one is, and as familiar as the most familiar one."""
    order = ("same", "unknown", "new", "none")
    return min(found, key=lambda x: (not x.refusal, order.index(x.data)))


def _provenance(run: Run) -> dict[str, Any]:
    path = run.folder / "provenance.json"
    try:
        table: dict[str, Any] = json.loads(path.read_bytes())
        for family in run.settings.families:
            [table["data"][family.name]["pools"][pool]["sha256"] for pool in LEARNED_FROM]
        table["conditions"].keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(f"{path}: not the provenance of a run: {error}") from None
    return table


@lru_cache(maxsize=4)
def _loaded(dataset: str) -> Dataset:
    return load(dataset)
