"""Episodes: T small training sets, each with a large validation set, from one pool of images."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.data.features import Features
from metaloss.losses.base import one_hot

Pool = tuple[Int64[Tensor, " _"], ...]  # for each class, rows of the images


@dataclass(frozen=True)
class Images:
    """A data set's pixels, resident on the device, and how to normalise them."""

    pixels: UInt8[Tensor, "N K H W"]
    mean: float
    std: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """Where the pixels are."""
        return self.pixels.device

    def at(self, rows: Int64[Tensor, "T N"]) -> Float[Tensor, "T N K H W"]:
        """The images of these rows, normalised."""
        flat = self.pixels.index_select(0, rows.flatten()).float()
        # In place: `float` made a copy.
        images: Tensor = flat.sub_(self.mean).div_(self.std).unflatten(0, rows.shape)
        return images


@dataclass(frozen=True)
class TaskImages:
    """The training or the validation half of T tasks, as rows of the images."""

    images: Images | Features
    rows: Int64[Tensor, "T N"]
    label: Int64[Tensor, "T N"]
    classes: int

    def x(self) -> Float[Tensor, "T N K H W"]:
        """The images of these rows, normalised."""
        return self.images.at(self.rows)

    @property
    def target(self) -> Float[Tensor, "T N C"]:
        """The labels as distributions."""
        return one_hot(self.label, self.classes)

    def __getitem__(self, tasks: slice) -> "TaskImages":
        return TaskImages(self.images, self.rows[tasks], self.label[tasks], self.classes)


@dataclass(frozen=True)
class Tasks:
    """T episodes: few images to train on, many to validate on."""

    train: TaskImages
    val: TaskImages

    @property
    def ways(self) -> int:
        """The number of classes."""
        return self.train.classes

    def __len__(self) -> int:
        return len(self.train.rows)

    def __getitem__(self, tasks: slice) -> "Tasks":
        return Tasks(self.train[tasks], self.val[tasks])


@dataclass(frozen=True)
class EpisodeShape:
    """The size of an episode.

    Attributes:
        ways: classes.
        shots: training images of each class.
        val: validation images of each class.
        label_noise: share of the training labels that are wrong.
    """

    ways: int
    shots: int
    val: int
    label_noise: float = 0.0


def draw(
    images: Images | Features,
    pool: Pool,
    shape: EpisodeShape,
    keys: list[Stream],
    held_out: Pool | None = None,
) -> Tasks:
    """One task per key: `ways` classes of the pool, relabelled, each with disjoint training and
    validation images.

    Args:
        images: the data set.
        pool: for each class, the rows that may be drawn.
        shape: ways, shots, val and label noise; the pool must hold `shots + val` rows of every
            class.
        keys: a task depends on its own key alone, so not on T nor on the other tasks.
        held_out: for each class, the rows that validation images are drawn from, where that is not
            the pool; it must hold `val` rows of every class, and the pool `shots`.
    """
    # --- images: rows [T ways n], the training images first ---
    n = shape.shots + (shape.val if held_out is None else 0)
    rows = torch.stack([_choose(pool, shape.ways, n, key) for key in keys])
    # Parts of one permutation: drawn from one pool, they share no image.
    train = rows[:, :, : shape.shots]
    val = rows[:, :, shape.shots :]
    if held_out is not None:
        val = torch.stack(
            [_choose(held_out, shape.ways, shape.val, key, "held out") for key in keys]
        )
    # --- labels, of the training images with noise ---
    device = images.device
    train, val = (x.flatten(1).to(device) for x in (train, val))
    clean = torch.arange(shape.ways).repeat_interleave(shape.shots)
    noisy = torch.stack(
        [_corrupt(clean, shape.ways, shape.label_noise, key.at("noise")) for key in keys]
    )
    label = (
        torch.arange(shape.ways, device=device).repeat_interleave(shape.val).expand(len(keys), -1)
    )
    return Tasks(
        TaskImages(images, train, noisy.to(device), shape.ways),
        TaskImages(images, val, label, shape.ways),
    )


def _choose(
    pool: Pool, ways: int, n: int, key: Stream, role: str = "images"
) -> Int64[Tensor, "ways n"]:
    """`n` rows of each of `ways` classes of a pool."""
    classes = key.at("classes").permutation(len(pool))[:ways].tolist()
    # A stream for each class: its images do not depend on the other classes drawn.
    return torch.stack([pool[c][key.at(role, c).permutation(len(pool[c]))[:n]] for c in classes])


def _corrupt(
    label: Int64[Tensor, " B"], ways: int, share: float, key: Stream
) -> Int64[Tensor, " B"]:
    """A share of the labels, rounded to whole images, each replaced by another class."""
    wrong = key.at("which").permutation(len(label))[: round(share * len(label))]
    label = label.clone()
    # Adding 1 ... ways-1 modulo the number of classes never gives the same class again.
    label[wrong] = (label[wrong] + 1 + key.at("class").integers(ways - 1, len(wrong))) % ways
    return label
