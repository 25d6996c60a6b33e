"""The kinds of a mixture, drawn from its ranges, and in which order tasks are of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss import kernels
from metaloss.core.streams import Stream
from metaloss.inner.classifiers.cnn import Cnn
from metaloss.tasks import episodic_family
from metaloss.tasks.episodic_family import TaskFamily
from metaloss.tasks.mixture_family import MixtureFamily, Ranges, Real, Whole

# With fewer training images than this no label is wrong: among so few nothing would be left to
# learn.
LEAST_WITH_NOISE = 20
# With more training images than this none is augmented: versions of all of them would take as long
# as many other kinds together.
MOST_AUGMENTED = 100
# A convolution waits for memory: its time follows the numbers in its maps. On a CPU one takes 1.4
# to 2.5 ns, and a product of two numbers in a large perceptron 0.010 to 0.016 ns.
PRODUCTS_PER_MAP_NUMBER = 150
NEIGHBOURS = 8  # of like cost, which change places from draw to draw
DEFAULT_RATE = 0.1  # before cross-entropy's best one is known
FACTORS = (0.3, 3.0)  # times cross-entropy's best rate, where no rates are given


@dataclass(frozen=True)
class DrawnKind:
    """A kind of task.

    Attributes:
        family: its settings, as those of an ordinary family; where there is a factor, its learning
            rate is what that makes of the usual one.
        factor: how many times cross-entropy's best rate its tasks train with; None: the rate is
            the family's.
    """

    family: TaskFamily
    factor: float | None


def draw_kinds(family: MixtureFamily, classes: Mapping[str, int]) -> list[DrawnKind]:
    """The kinds of a mixture.

    Every setting is spread evenly over its range: of K kinds each has a K-th of it to itself
    (Latin hypercube sampling, McKay 1979).

    Args:
        family: the mixture.
        classes: how many classes each of the data sets that are here has, by its name.
    """
    ranges = family.ranges
    key = Stream(family.kinds_seed).at("kinds")
    count = family.kinds

    def even(setting: str) -> list[float]:
        return _even(count, key.at(setting)).tolist()

    drawn = {
        "dataset": [_of(list(classes), u) for u in even("dataset")],
        "steps": [_log_whole(ranges.steps, u) for u in even("steps")],
        "rate": [_log(ranges.lr or ranges.lr_factor or FACTORS, u) for u in even("lr_factor")],
        "shots": [_log_whole(ranges.shots, u) for u in even("shots")],
        "ways": [_whole(ranges.ways, u) for u in even("ways")],
        "width": [_log(ranges.width, u) for u in even("width")],
        "depth": [_whole(ranges.depth, u) for u in even("depth")],
        "convolutional": [u < ranges.convolutional for u in even("convolutional")],
        "filters": [_log_whole(ranges.filters, u) for u in even("filters")],
        "init_scale": [_log(ranges.init_scale, u) for u in even("init_scale")],
        "noise": _for_some(ranges.noisy, even("noisy"), lambda u: _line(ranges.noise, u)),
        "augment": _for_some(ranges.augmented, even("augmented"), lambda u: _of(ranges.augment, u)),
        "permutation": _for_some(ranges.permuted, even("permuted"), lambda u: int(u * 2**31)),
        "inverted": [u < ranges.inverted for u in even("inverted")],
    }
    return [
        _kind(family, number, {name: values[number] for name, values in drawn.items()}, classes)
        for number in range(count)
    ]


def _kind(
    family: MixtureFamily, number: int, drawn: Mapping[str, Any], classes: Mapping[str, int]
) -> DrawnKind:
    """A kind with the settings that were drawn for it."""
    ways = min(drawn["ways"], classes[drawn["dataset"]])
    steps, shots = _within(family.ranges, drawn, ways)
    images = ways * shots
    # In another order the neighbours of a pixel would mean nothing to a convolution.
    permutation = None if drawn["convolutional"] else drawn["permutation"]
    share = drawn["noise"] if images >= LEAST_WITH_NOISE else None
    given = family.ranges.lr is not None
    table = {
        "dataset": drawn["dataset"],
        "ways": ways,
        "shots": shots,
        "val": family.val,
        "noise": {"kind": "symmetric", "share": share} if share else None,
        "augment": drawn["augment"] if images <= MOST_AUGMENTED else None,
        "view": {"permutation": permutation, "inverted": drawn["inverted"]},
        "metric": family.metric,
        "classifier": _classifier(drawn),
        "inner": {"steps": steps, "lr": drawn["rate"] * (1 if given else DEFAULT_RATE)},
    }
    name = f"{family.name}, kind {number}"
    origin = f"{family.origin}: kind {number}"
    return DrawnKind(episodic_family.of(table, name, origin), None if given else drawn["rate"])


def _within(ranges: Ranges, drawn: Mapping[str, Any], ways: int) -> tuple[int, int]:
    """A kind's steps and shots, within what it may see of images.

    Args:
        ranges: say how many these are.
        drawn: what was drawn for the kind.
        ways: its classes.
    """
    steps: int = drawn["steps"]
    fewest, _ = ranges.shots
    seen = ranges.images_seen
    if drawn["convolutional"]:
        seen = ranges.convolutional_images_seen
        steps = max(min(steps, seen // (ways * fewest)), ranges.steps[0])
    return steps, max(min(drawn["shots"], seen // (steps * ways)), fewest)


def _classifier(drawn: Mapping[str, Any]) -> dict[str, Any]:
    """A multilayer perceptron, without a hidden layer a linear one, or a convolutional network."""
    if drawn["convolutional"]:
        filters = [drawn["filters"], 2 * drawn["filters"]]
        return {"kind": "cnn", "filters": filters, "init_scale": drawn["init_scale"]}
    hidden = [_rounded(drawn["width"] / 2**layer) for layer in range(drawn["depth"])]
    if not hidden:
        return {"kind": "linear"}  # which starts at 0
    return {"kind": "mlp", "hidden": hidden, "init_scale": drawn["init_scale"]}


def cost(family: TaskFamily, image: tuple[int, ...]) -> int:
    """About how many products of numbers a training of a kind takes, to order kinds by.

    Args:
        family: the kind.
        image: channels, height and width.
    """
    assert isinstance(family.shots, int)
    images = family.ways * family.shots
    if family.classifier["kind"] == "cnn":
        network = Cnn(family.classifier["filters"])
        per_image = PRODUCTS_PER_MAP_NUMBER * network.map_numbers(image)
    else:
        # The first layer is kept in the span of the training images.
        widths: tuple[int, ...] = (images, *family.classifier.get("hidden", ()), family.ways)
        per_image = sum(a * b for a, b in pairwise(widths))
    assert isinstance(family.val, int)
    return per_image * (3 * family.inner.steps * images + family.ways * family.val)


def order_of_kinds(costs: Sequence[int], key: Stream) -> Int[Tensor, " K"]:
    """In which order tasks are of the kinds.

    Wherever it is cut, kinds of all costs come before: each half of the kinds by cost, each
    quarter, each eighth and so on has as many there as can be. So generations cost alike.

    Args:
        costs: of every kind.
        key: of the order.
    """
    count = len(costs)
    by_cost = torch.tensor(costs).argsort(stable=True)
    parts = by_cost.split(NEIGHBOURS)
    mixed = torch.cat([x[key.at("part", i).permutation(len(x))] for i, x in enumerate(parts)])
    # Places that fall into the largest gap each time (van der Corput 1935).
    digits = max(1, (count - 1).bit_length())
    turned = torch.tensor([int(f"{i:0{digits}b}"[::-1], 2) for i in range(count)])
    places = (turned.argsort().argsort() + key.at("shift").integers(count, 1)) % count
    return mixed[places]


def _even(count: int, key: Stream) -> Float[Tensor, " K"]:
    """Numbers between 0 and 1, one in each of `count` equal parts, in a random order."""
    return (key.at("order").permutation(count) + key.at("place").uniform(count)) / count


def _of(values: Sequence[Any], u: float) -> Any:
    """One of several values, each as often."""
    return values[min(int(u * len(values)), len(values) - 1)]


def _line(pair: Real, u: float) -> float:
    low, high = pair
    return low + u * (high - low)


def _log(pair: Real | Whole, u: float) -> float:
    low, high = map(math.log, pair)
    return math.exp(low + u * (high - low))


def _whole(pair: Whole, u: float) -> int:
    low, high = pair
    return min(high, low + int(u * (high - low + 1)))


def _log_whole(pair: Whole, u: float) -> int:
    low, high = pair
    return min(high, max(low, round(_log(pair, u))))


def _for_some(share: float, numbers: Sequence[float], value: Callable[[float], Any]) -> list[Any]:
    """A value for this share of kinds, from their numbers, and None for the others."""
    return [value(u / share) if u < share else None for u in numbers]


def _rounded(width: float) -> int:
    """A multiple of the width of a processor's vectors, as compiled loops need it."""
    return max(1, round(width / kernels.VECTOR)) * kernels.VECTOR
