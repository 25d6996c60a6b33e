"""How many images of each class a task takes, and what a data set must hold for it."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from jaxtyping import Float
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.data.noise import Noise
from metaloss.data.shapes import LongTail, ProportionalShots, ProportionalVal, Shots, Val
from metaloss.data.versions import TaskAugment

MEAN = 200  # validation images per class where "as-is" says no number, if there are as many


@dataclass(frozen=True, eq=False)
class EpisodeShape:
    """The size of an episode, the noise of its labels and the versions of its images.

    Attributes:
        ways: classes.
        shots: training images of each class.
        val: validation images of each class.
        noise: of the training labels.
        available: how many images each class of the data set has in its smallest pool; needed
            where sizes follow the data.
        errors: how often each class of the data set is taken for each other one; needed for
            "confusion".
        augment: how the versions of the training images are made; None: each is trained on as it
            is.
    """

    ways: int
    shots: Shots
    val: Val
    noise: Noise | None = None
    available: tuple[int, ...] = ()
    errors: Float[Tensor, "K K"] | None = None
    augment: TaskAugment | None = None

    @property
    def copies(self) -> int:
        """Rows of every training image."""
        return 1 if self.augment is None else self.augment.copies

    @property
    def choices(self) -> int:
        """Of how many rows of an image a step of a training takes one."""
        return 1 if self.augment is None or self.augment.all else self.augment.copies


def train_sizes(shape: EpisodeShape, classes: Sequence[int], key: Stream) -> list[int]:
    """How many training images each of a task's classes has.

    Args:
        shape: of the episode.
        classes: the task's, by their numbers in the data set.
        key: the task's.
    """
    shots = shape.shots
    if isinstance(shots, ProportionalShots):
        return [shots.of(shape.available[c]) for c in classes]
    if isinstance(shots, LongTail):
        sizes = shots.sizes(shape.ways)
        return [sizes[i] for i in key.at("tail").permutation(shape.ways).tolist()]
    if isinstance(shots, tuple):
        fewest, most = shots
        shots = fewest + int(key.at("shots").integers(most - fewest + 1, 1))
    return [shots] * shape.ways


def val_sizes(shape: EpisodeShape, classes: Sequence[int], train: Sequence[int]) -> list[int]:
    """How many validation images each of a task's classes has; the same number in all tasks.

    Args:
        shape: of the episode.
        classes: the task's, by their numbers in the data set.
        train: what `train_sizes` gave.
    """
    if isinstance(shape.val, int):
        return [shape.val] * shape.ways
    tail = isinstance(shape.shots, LongTail)
    weights = train if tail else [shape.available[c] for c in classes]
    return in_proportion(weights, mean_val(shape.val) * shape.ways)


def sizes_vary(shape: EpisodeShape) -> bool:
    """Whether one task may have more training images than another."""
    shots = shape.shots
    if isinstance(shots, ProportionalShots):
        return shape.ways < len(shape.available) and len(set(map(shots.of, shape.available))) > 1
    return isinstance(shots, tuple) and shots[0] < shots[1]


def in_every_pool(pools: Sequence[Sequence[int]], as_first: bool) -> list[int]:
    """How many images of each class there are in every pool.

    Args:
        pools: how many images each class has in each pool.
        as_first: in the proportions of the first pool, where another has others, as a test split
            that somebody made may have.

    >>> in_every_pool([[50, 20, 10], [30, 30, 30]], as_first=True)
    [30, 12, 6]
    """
    least = [min(of_class) for of_class in zip(*pools, strict=True)]
    if not as_first or not min(least):
        return least
    share = min(Fraction(n, of) for n, of in zip(least, pools[0], strict=True))
    # Two at least, where there are two: one to train with and one to validate on.
    return [max(min(n, 2), int(share * of)) for n, of in zip(least, pools[0], strict=True)]


def in_proportion(weights: Sequence[int], total: int) -> list[int]:
    """A number split in proportion to weights by largest remainders; at least 1 for each.

    >>> in_proportion([20, 10, 1], 20)
    [13, 6, 1]
    """
    parts = [1] * len(weights)
    rest = list(range(len(weights)))
    # Those who would get less than one are given one, and the others share what is left.
    while small := [i for i in rest if weights[i] * total < sum(weights[j] for j in rest)]:
        rest = [i for i in rest if i not in small]
        total -= len(small)
    whole = sum(weights[i] for i in rest)
    for i in rest:
        parts[i] = weights[i] * total // whole
    left = total - sum(parts[i] for i in rest)
    for i in sorted(rest, key=lambda i: (-(weights[i] * total % whole), -weights[i]))[:left]:
        parts[i] += 1
    return parts


def needed(shape: EpisodeShape) -> list[int]:
    """How many images of each class every pool must have so that every task can be drawn."""
    shots = shape.shots
    if isinstance(shots, ProportionalShots) and isinstance(shape.val, int):
        return [_least_beside_shots(shots, shape.val)] * len(shape.available)
    train = most_shots(shape)
    return [n + more for n, more in zip(train, most_val(shape), strict=True)]


def _least_beside_shots(shots: ProportionalShots, val: int) -> int:
    """The smallest class that has so many images left beside its shots."""

    def left(images: int) -> int:
        return images - shots.of(images)

    # More images mean more shots, too, but with every image at most one more.
    enough = val + 1
    while left(enough) < val:
        enough *= 2
    return bisect_left(range(enough), val, lo=val + 1, key=left)


def fits(shape: EpisodeShape) -> bool:
    """Whether every pool has the classes and images for every task."""
    return shape.ways <= len(shape.available) and all(
        n <= have for n, have in zip(needed(shape), shape.available, strict=True)
    )


def most_shots(shape: EpisodeShape) -> list[int]:
    """How many training images each class of the data set can have at most."""
    shots = shape.shots
    if isinstance(shots, ProportionalShots):
        return [shots.of(n) for n in shape.available]
    most = shots.most if isinstance(shots, LongTail) else shots
    return [most[1] if isinstance(most, tuple) else most] * len(shape.available)


def most_val(shape: EpisodeShape) -> list[int]:
    """How many validation images each class of the data set can have at most."""
    if isinstance(shape.val, int):
        return [shape.val] * len(shape.available)
    if isinstance(shape.shots, LongTail):
        sizes = shape.shots.sizes(shape.ways)
        return [max(val_sizes(shape, (), sizes))] * len(shape.available)
    return [_most_val(shape, c) for c in range(len(shape.available))]


def _most_val(shape: EpisodeShape, number: int) -> int:
    """The same for one class, where sizes follow the data."""
    others = sorted(n for c, n in enumerate(shape.available) if c != number)[: shape.ways - 1]
    # Beside the rarest classes its part is largest; remainders may fall otherwise beside others.
    spare = int(shape.ways < len(shape.available))
    weights = [shape.available[number], *others]
    return in_proportion(weights, mean_val(shape.val) * len(weights))[0] + spare


def most_images(shape: EpisodeShape) -> int:
    """The most training images that a task can have."""
    shots = shape.shots
    if isinstance(shots, LongTail):
        return sum(shots.sizes(shape.ways))
    if isinstance(shots, ProportionalShots):
        return sum(sorted(most_shots(shape))[-shape.ways :])
    return shape.ways * (shots[1] if isinstance(shots, tuple) else shots)


def mean_val(val: Val) -> int:
    """How many validation images a class has on average."""
    if isinstance(val, ProportionalVal):
        return val.mean or MEAN
    return val


def with_mean(val: Val, mean: int) -> Val:
    """The same kind of validation with another number of images."""
    return ProportionalVal(mean=mean) if isinstance(val, ProportionalVal) else mean


def reduced(shape: EpisodeShape, accepts: Callable[[EpisodeShape], bool] = fits) -> EpisodeShape:
    """The shape with as many of its validation images as are accepted, one at least."""
    for mean in range(mean_val(shape.val), 1, -1):
        smaller = replace(shape, val=with_mean(shape.val, mean))
        if accepts(smaller):
            return smaller
    return replace(shape, val=with_mean(shape.val, 1))


def nearest(shape: EpisodeShape) -> EpisodeShape:
    """A shape that fits the data: with fewer classes, shots or validation images where need be."""
    most = max(1, min(shape.available) // 3)
    shots = shape.shots
    if isinstance(shots, LongTail):
        shots = LongTail(min(shots.most, most), min(shots.least, most))
    elif isinstance(shots, tuple):
        shots = min(shots[0], most), min(shots[1], most)
    elif isinstance(shots, int):
        shots = min(shots, most)
    return reduced(replace(shape, ways=min(shape.ways, len(shape.available)), shots=shots))
