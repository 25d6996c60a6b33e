"""Task sets in both directions: metaloss's episodes for learn2learn, and the other way round."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from metaloss.data.datasets import Dataset
from metaloss.data.episodes import Images, TaskImages, Tasks
from metaloss.tasks import episodic_family
from metaloss.tasks.episodic import Episodes


class Normalised(Images):
    """Images that come as they are to be used, not as bytes."""

    def __init__(self, pixels: Tensor) -> None:
        for name, value in (("pixels", pixels), ("mean", 0.0), ("std", 1.0)):
            object.__setattr__(self, name, value)  # the class is frozen


def to_learn2learn(episodes: Episodes, pool: str, number: int = -1, val: int | None = None) -> Any:
    """A `learn2learn.data.Taskset` of a family: each task has `ways` classes with `shots + val`
    images each.

    Args:
        episodes: the family, opened with `metaloss.tasks.episodic.open_episodes`.
        pool: "train" (meta-training), "validation" or "test": no image lies in two of them.
        number: of different tasks; -1: no limit.
        val: images per class beside the `shots`; the family's own number where None.
    """
    import learn2learn as l2l
    from learn2learn.data.transforms import ConsecutiveLabels, KShots, LoadData, NWays, RemapLabels

    family = episodes.family
    rows = episodes.pools[pool]
    x = episodes.images.at(torch.cat(rows)[None])[0]
    y = torch.cat([torch.full((len(each),), label) for label, each in enumerate(rows)])
    data = l2l.data.MetaDataset(torch.utils.data.TensorDataset(x, y))
    each = KShots(data, family.shots + (family.val if val is None else val))
    steps = [
        NWays(data, family.ways),
        each,
        LoadData(data),
        RemapLabels(data),
        ConsecutiveLabels(data),
    ]
    return l2l.data.Taskset(data, steps, num_tasks=number)


def halves(
    task: tuple[Tensor, Tensor], shots: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A learn2learn task's images and labels, cut into `shots` images per class to train on and the
    rest.

    Raises:
        ValueError: labels are not 0 to C-1, or classes have different numbers of images, or too
            few.
    """
    x, y = task
    counts = y.bincount()
    if counts.min() != counts.max() or counts.min() <= shots:
        raise ValueError(
            f"expected classes 0 to C-1 with equally many images, more than {shots}, got "
            f"{counts.tolist()}"
        )
    order = y.argsort(stable=True).view(len(counts), -1)  # [ways shots+val]
    train = order[:, :shots].flatten()
    val = order[:, shots:].flatten()
    return (x[train], y[train]), (x[val], y[val])


def from_learn2learn(
    tasks: Iterable[tuple[Tensor, Tensor]], shots: int, **settings: Any
) -> tuple[Episodes, Tasks]:
    """Tasks that `metaloss.engines.local.Local.score` takes, and the family that they are of.

    Args:
        tasks: images [N K H W] and labels [N] each, as a `Taskset` gives them, all of one shape.
        shots: training images per class; the rest is for validation.
        settings: of the family: its `classifier` and how it trains, `inner`.
    """
    pairs = [halves(task, shots) for task in tasks]
    train, val = (
        [torch.stack(z) for z in zip(*half, strict=True)] for half in zip(*pairs, strict=True)
    )
    ways = int(train[1].max()) + 1
    few = train[1].shape[1]
    many = val[1].shape[1]
    # One store for all tasks, their training images first.
    images = Normalised(torch.cat([train[0].flatten(0, 1), val[0].flatten(0, 1)]))
    rows = torch.arange(len(images.pixels)).split([len(pairs) * few, len(pairs) * many])
    splits = [
        TaskImages(images, r.view(len(pairs), -1), y, ways)
        for r, (_, y) in zip(rows, (train, val), strict=True)
    ]
    table = {
        "dataset": "learn2learn",
        "ways": ways,
        "shots": shots,
        "val": many // ways,
        **settings,
    }
    family = episodic_family.of(table, "learn2learn", "a learn2learn taskset")
    return Episodes(family, _nothing(images.pixels), images, {}), Tasks(*splits)


def _nothing(like: Tensor) -> Dataset:
    """A data set without an image: no further tasks can be drawn from it."""
    none = torch.zeros(0, dtype=torch.int64)
    pixels = torch.zeros(0, *like.shape[1:], dtype=torch.uint8)
    return Dataset("learn2learn", pixels, none, (), none, none.bool(), "a learn2learn taskset")
