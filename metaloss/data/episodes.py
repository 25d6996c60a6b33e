"""Episodes: T small training sets, each with a large validation set, from one pool of images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64, Real, Shaped, UInt8
from torch import Tensor

from metaloss import kernels
from metaloss.core.streams import Stream
from metaloss.data.features import Features
from metaloss.data.group_cuts import first_rows, repeated_rows, two_sides
from metaloss.data.noise import corrupt
from metaloss.data.sizes import EpisodeShape, sizes_vary, train_sizes, val_sizes
from metaloss.data.versions import Versions
from metaloss.data.views import PixelView
from metaloss.errors import DataError
from metaloss.losses.base import one_hot

__all__ = ["EpisodeShape", "Images", "Pool", "TaskImages", "Tasks", "draw"]

Pool = tuple[Int64[Tensor, " _"], ...]  # for each class, rows of the images


@dataclass(frozen=True)
class Images:
    """A data set's pixels, resident on the device, and how they are shown.

    Attributes:
        pixels: as they are stored.
        mean, std: what normalises them.
        view: how the normalised images are shown; None: as they are.
    """

    pixels: UInt8[Tensor, "N K H W"]
    mean: float
    std: float
    view: PixelView | None = None

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
        """The images of these rows, normalised, in the view."""
        if kernels.available() and self.pixels.device.type == "cpu" and self.pixels.is_contiguous():
            flat = self._in_view(self._normalised_rows(rows.flatten()))
        else:
            flat = self.normalised(self.pixels.index_select(0, rows.flatten()))
        images: Tensor = flat.unflatten(0, rows.shape)
        return images

    def _normalised_rows(self, rows: Int64[Tensor, " M"]) -> Float[Tensor, "M K H W"]:
        """The same numbers as by `normalised`, in one pass over the pixels."""
        from metaloss.kernels.pixels import normalise_rows

        images = torch.empty(len(rows), *self.shape)
        mean, std = torch.tensor([self.mean, self.std]).numpy()
        normalise_rows(
            self.pixels.flatten(1).numpy(), rows.numpy(), mean, std, images.flatten(1).numpy()
        )
        return images

    def normalised(self, pixels: Real[Tensor, "N K H W"]) -> Float[Tensor, "N K H W"]:
        """Pixels, normalised, in the view; those that are floats already are overwritten."""
        return self._in_view(pixels.float().sub_(self.mean).div_(self.std))

    def _in_view(self, images: Float[Tensor, "N K H W"]) -> Float[Tensor, "N K H W"]:
        return images if self.view is None else self.view.of(images)


def padded_size(rows: int) -> int:
    """The number of rows that a task of so many has in memory, from a fixed ladder.

    Every number up to 16; from there on eight to a doubling: 18, 20 … 32, 36, 40 … 64, 72 and so
    on.
    """
    step = 1 << max(0, (rows - 1).bit_length() - 4)
    return -(-rows // step) * step


@dataclass(frozen=True)
class TaskImages:
    """The training or the validation half of T tasks, as rows of the images.

    Attributes:
        images: the data set.
        rows: of every task; where tasks are of unlike sizes, the last ones of the smaller repeat
            their first image.
        label: of every row.
        classes: how many.
        count: how many rows of each task are its own, the first ones; None: all of them.
        versions: how the rows of one image, which lie side by side, are made of it; None: every
            image has one row.
    """

    images: Images | Features
    rows: Int64[Tensor, "T N"]
    label: Int64[Tensor, "T N"]
    classes: int
    count: Int64[Tensor, " T"] | None = None
    versions: Versions | None = None

    def x(self) -> Float[Tensor, "T N K H W"]:
        """The images of these rows, normalised."""
        x = self.images.at(self.rows)
        if self.versions is None:
            return x
        assert isinstance(self.images, Images), "features have no augmented versions"
        for t, rows in enumerate(self._own(self.rows)):
            pixels = self.images.pixels[rows[:: self.copies]]
            x[t, : len(rows)] = self.versions.images(t, pixels, self.images.normalised)
        return x

    @property
    def target(self) -> Float[Tensor, "T N C"]:
        """The labels as distributions."""
        target = one_hot(self.label, self.classes)
        if self.versions is None:
            return target
        for t, rows in enumerate(self._own(target)):
            rows.copy_(self.versions.targets(t, rows[:: self.copies]))
        return target

    def _own(self, x: Shaped[Tensor, "T N *A"]) -> list[Shaped[Tensor, "_ *A"]]:
        """What belongs to the rows of each task that are its own."""
        sizes = [x.shape[1]] * len(x) if self.count is None else self.count.tolist()
        return [rows[:size] for rows, size in zip(x, sizes, strict=True)]

    @property
    def copies(self) -> int:
        """How many rows every image has."""
        return 1 if self.versions is None else self.versions.copies

    @property
    def choices(self) -> int:
        """Of how many rows side by side a step of a training takes one."""
        return 1 if self.versions is None or self.versions.augment.all else self.copies

    @property
    def originals(self) -> "TaskImages":
        """The images as they are, a row each."""
        if self.versions is None:
            return self
        rows, label = (x[:, :: self.copies] for x in (self.rows, self.label))
        count = None if self.count is None else self.count // self.copies
        return TaskImages(self.images, rows, label, self.classes, count)

    @property
    def weight(self) -> Float[Tensor, "T N"] | None:
        """1 for a task's own rows, and 0 for those that pad it; None where none does."""
        if self.count is None:
            return None
        place = torch.arange(self.rows.shape[1], device=self.rows.device)
        return (place < self.count[:, None]).float()

    @property
    def class_counts(self) -> Float[Tensor, "T C"]:
        """How many of each task's own images have each label; versions of an image count once."""
        images = self.originals
        target = one_hot(images.label, images.classes)
        if images.weight is not None:
            target = target * images.weight[..., None]
        return target.sum(1)

    def __getitem__(self, tasks: slice | Int64[Tensor, " t"]) -> "TaskImages":
        return replace(
            self,
            rows=self.rows[tasks],
            label=self.label[tasks],
            count=None if self.count is None else self.count[tasks],
            versions=None if self.versions is None else self.versions[tasks],
        )

    def cut(self, size: int) -> "TaskImages":
        """The first rows of every task."""
        full = self.count is None or bool((self.count == size).all())
        count = None if full else self.count
        return replace(self, rows=self.rows[:, :size], label=self.label[:, :size], count=count)


@dataclass(frozen=True)
class Tasks:
    """T episodes: few images to train on, many to validate on.

    Attributes:
        train: the training images.
        val: the validation images, equally many in all tasks.
        classes: the number in the data set of the class that each label means; None: unknown.
        costs: what losses see of what each mistake costs, as `TrainingTargets.costs`.
    """

    train: TaskImages
    val: TaskImages
    classes: Int64[Tensor, "T C"] | None = None
    costs: Float[Tensor, "T C C"] | None = None

    @property
    def ways(self) -> int:
        """The number of classes."""
        return self.train.classes

    @property
    def val_classes(self) -> Int64[Tensor, "T N"]:
        """The class in the data set of every validation image; its label where that is unknown."""
        label = self.val.label
        return label if self.classes is None else self.classes.gather(1, label)

    def __len__(self) -> int:
        return len(self.train.rows)

    def __getitem__(self, tasks: slice | Int64[Tensor, " t"]) -> "Tasks":
        classes = None if self.classes is None else self.classes[tasks]
        costs = None if self.costs is None else self.costs[tasks]
        return Tasks(self.train[tasks], self.val[tasks], classes, costs)

    def by_size(self) -> list[tuple[Int64[Tensor, " t"], "Tasks"]]:
        """Tasks of one size in memory together, with their places among all."""
        everyone = torch.arange(len(self))
        if self.train.count is None:
            return [(everyone, self)]
        copies = self.train.copies
        size = torch.tensor([copies * padded_size(n // copies) for n in self.train.count.tolist()])
        groups = []
        for n in size.unique().tolist():
            places = everyone[size == n]
            some = self[places]
            groups.append((places, replace(some, train=some.train.cut(n))))
        return groups


def draw(
    images: Images | Features,
    pool: Pool,
    shape: EpisodeShape,
    keys: list[Stream],
    held_out: Pool | None = None,
    groups: Int64[Tensor, " K"] | None = None,
) -> Tasks:
    """One task per key: `ways` classes of the pool, relabelled, each with disjoint training and
    validation images.

    Args:
        images: the data set.
        pool: for each class, the rows that may be drawn.
        shape: ways, shots, val, noise and augment; the pool must hold as many rows of every class
            (`metaloss.data.sizes.needed`).
        keys: a task depends on its own key alone, so not on T nor on the other tasks.
        held_out: for each class, the rows that validation images are drawn from, where that is not
            the pool.
        groups: of every image of the data set; none is on both sides of a task. Where they leave
            fewer images of a class on a side than a task takes, some of them count twice.

    Raises:
        DataError: groups cannot be so.
    """
    drawn = [_draw_one(pool, shape, key, held_out, groups) for key in keys]
    device = images.device
    train_rows, train_label, val_rows, val_label, classes = zip(*drawn, strict=True)
    # By the shape, not by the tasks at hand: a task's size in memory is its own.
    sizes = [len(rows) for rows in train_rows]
    varies = sizes_vary(shape)
    most = padded_size(max(sizes)) if varies else sizes[0]
    versions = (
        None
        if shape.augment is None
        else Versions(shape.augment, tuple(key.at("augment") for key in keys))
    )
    copies = versions.copies if versions else 1
    train, label = (
        torch.stack([_padded(x, most) for x in parts]).repeat_interleave(copies, 1).to(device)
        for parts in (train_rows, train_label)
    )
    count = torch.tensor(sizes, device=device) * copies if varies else None
    val = TaskImages(
        images, torch.stack(val_rows).to(device), torch.stack(val_label).to(device), shape.ways
    )
    return Tasks(
        TaskImages(images, train, label, shape.ways, count, versions),
        val,
        torch.stack(classes).to(device),
    )


def _draw_one(
    pool: Pool,
    shape: EpisodeShape,
    key: Stream,
    held_out: Pool | None,
    groups: Int64[Tensor, " K"] | None,
) -> tuple[Int64[Tensor, " _"], ...]:
    """A task's training rows and labels, its validation rows and labels, and its classes."""
    classes = key.at("classes").permutation(len(pool))[: shape.ways]
    numbers = classes.tolist()
    shots = train_sizes(shape, numbers, key)
    val = val_sizes(shape, numbers, shots)
    # A stream for each class: its images do not depend on the other classes drawn.
    orders = [pool[c][key.at("images", c).permutation(len(pool[c]))] for c in numbers]
    if held_out is not None:
        others = [held_out[c][key.at("held out", c).permutation(len(held_out[c]))] for c in numbers]
    elif groups is not None:
        orders, others = _sides_of_groups(orders, groups, val, key)
    else:
        # Parts of one permutation: drawn from one pool, they share no image.
        others = [rows[n:] for rows, n in zip(orders, shots, strict=True)]
    taken = first_rows if groups is None else repeated_rows
    train_rows = [taken(rows, n) for rows, n in zip(orders, shots, strict=True)]
    val_rows = [taken(rows, n) for rows, n in zip(others, val, strict=True)]
    names = torch.arange(shape.ways)
    label = names.repeat_interleave(torch.tensor(shots))
    if shape.noise is not None:
        errors = None if shape.errors is None else shape.errors[classes][:, classes]
        label = corrupt(label, shape.ways, shape.noise, key.at("noise"), errors)
    val_label = names.repeat_interleave(torch.tensor(val))
    return torch.cat(train_rows), label, torch.cat(val_rows), val_label, classes


def _sides_of_groups(
    orders: Sequence[Int64[Tensor, " _"]],
    groups: Int64[Tensor, " K"],
    val: Sequence[int],
    key: Stream,
) -> tuple[list[Int64[Tensor, " _"]], list[Int64[Tensor, " _"]]]:
    """The rows that a task may train on, and those that it may validate on (as in `two_sides`).

    Raises:
        DataError: groups leave a class without images on one side.
    """
    sides = two_sides(orders, groups, val, key)
    if sides is None:
        raise DataError(
            "groups: no task can be drawn with images of every class on both sides and no group "
            "on two: every class needs images of at least two groups, and groups that are not most "
            "of it"
        )
    return sides


def _padded(x: Int64[Tensor, " n"], size: int) -> Int64[Tensor, " N"]:
    """A task's rows or labels, the first one repeated at the end."""
    return torch.cat([x, x[:1].expand(size - len(x))])
