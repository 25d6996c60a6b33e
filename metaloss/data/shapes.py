"""How many images of each class a task has: the settings `shots` and `val` of a family."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from metaloss.core import registry
from metaloss.errors import SettingsError

AS_IS: Literal["as-is"] = "as-is"
Count = Annotated[int, Field(ge=1)]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class LongTail:
    """Sizes of classes that fall geometrically; which class has which is drawn for every task.

    Attributes:
        most: images of the largest class.
        least: images of the smallest.
    """

    most: Count
    least: Count

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise ValueError(f"least = {self.least} must not be above most = {self.most}")

    def sizes(self, ways: int) -> list[int]:
        """The classes' sizes, the largest first.

        >>> LongTail(20, 2).sizes(5)
        [20, 11, 6, 4, 2]
        """
        ratio = self.least / self.most
        return [round(self.most * ratio ** (i / (ways - 1))) for i in range(ways)]

    def __str__(self) -> str:
        return f"{{ most = {self.most}, least = {self.least} }}"


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class ProportionalShots:
    """The same share of every class, so that classes are as uneven as in the data.

    Attributes:
        kind: "as-is".
        share: of the images that a class has in its smallest pool.
    """

    kind: Literal["as-is"] = AS_IS
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5

    def of(self, available: int) -> int:
        """How many of a class's images; at least one, and at least one is left."""
        return max(1, min(available - 1, round(self.share * available)))

    def __str__(self) -> str:
        return f'{{ kind = "{AS_IS}", share = {self.share:g} }}'


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class ProportionalVal:
    """Classes as uneven as those that a task trains on, or as in the data where these are even.

    Attributes:
        kind: "as-is".
        mean: validation images per class on average; None: as many as every pool has, at most 200.
    """

    kind: Literal["as-is"] = AS_IS
    mean: Count | None = None

    def __str__(self) -> str:
        return f'"{AS_IS}"' if self.mean is None else f'{{ kind = "{AS_IS}", mean = {self.mean} }}'


def table_of(cls: type, value: dict[str, Any]) -> Any:
    """An object of a settings class; what is wrong with its table is one sentence.

    pydantic by itself would list what is wrong with it under each type that a setting may have.

    Raises:
        ValueError: as validators raise it.
    """
    try:
        return registry.from_table(cls, value, "")
    except SettingsError as error:
        raise ValueError(str(error).removeprefix(": ")) from None


def ascending(value: Any, least: float, most: float, kind: type) -> tuple[Any, Any]:
    """A pair of numbers between which something is drawn.

    Args:
        value: a list of two.
        least: the smallest that they may be.
        most: the greatest.
        kind: int or float.

    Raises:
        ValueError: as validators raise it.
    """
    numbers: list[Any] = [x for x in value if isinstance(x, int | kind) and not isinstance(x, bool)]
    if len(value) == len(numbers) == 2 and least <= numbers[0] <= numbers[1] <= most:
        return kind(numbers[0]), kind(numbers[1])
    top = "" if most == math.inf else f" and at most {most:g}"
    what = "whole numbers" if kind is int else "numbers"
    raise ValueError(f"expected two ascending {what}, at least {least:g}{top}, got {list(value)}")


def _number(value: Any, others: str) -> Any:
    """A number of images, or a value of a class that stands for several."""
    if isinstance(value, LongTail | ProportionalShots | ProportionalVal):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a number of images{others}, got {value!r}")
    if value < 1:
        raise ValueError(f"Input should be greater than or equal to 1, got {value}")
    return value


def is_whole_shots(value: Any) -> bool:
    """Whether a table of `shots` says what it is without settings that it changes.

    >>> is_whole_shots({"most": 20, "least": 2}), is_whole_shots({"most": 20})
    (True, False)
    """
    return isinstance(value, Mapping) and ("share" in value or {"most", "least"} <= set(value))


def _shots(value: Any) -> Any:
    if value == AS_IS:
        return ProportionalShots()
    if isinstance(value, dict):
        tail = "kind" not in value and "share" not in value
        return table_of(LongTail if tail else ProportionalShots, value)
    if isinstance(value, list | tuple):
        return ascending(value, 1.0, math.inf, int)
    return _number(value, f', [fewest, most], {{ most = …, least = … }} or "{AS_IS}"')


def _val(value: Any) -> Any:
    if value == AS_IS:
        return ProportionalVal()
    if isinstance(value, dict):
        return table_of(ProportionalVal, value)
    return _number(value, f' or "{AS_IS}"')


Shots = Annotated[int | tuple[int, int] | LongTail | ProportionalShots, BeforeValidator(_shots)]
Val = Annotated[int | ProportionalVal, BeforeValidator(_val)]


def images_of(shots: Any) -> str:
    """How many images a class has, in a few words; sizes may be as a file of results has them.

    >>> images_of(1), images_of([2, 20]), images_of({"most": 20, "least": 2})
    ('1 image of each', '2 to 20 images of each', 'a long tail of 20 to 2 images')
    """
    shots = _shots(shots)
    if isinstance(shots, LongTail):
        return f"a long tail of {shots.most} to {shots.least} images"
    if isinstance(shots, ProportionalShots):
        return f"{100 * shots.share:g} % of the images of each"
    number = f"{shots[0]} to {shots[1]}" if isinstance(shots, tuple) else f"{shots}"
    return f"{number} image{'' if shots == 1 else 's'} of each"


def of_ways(ways: int, shots: Any) -> str:
    """What a task trains on, in a few words.

    >>> of_ways(10, 5), of_ways(10, [2, 20])
    ('10-way 5-shot', '10-way, 2 to 20 images of each')
    """
    return f"{ways}-way" + (f" {shots}-shot" if isinstance(shots, int) else f", {images_of(shots)}")


def described(ways: int, shots: Any, val: Any) -> str:
    """A task in a few words; sizes may be as a file of results has them.

    >>> described(10, 5, {"kind": "as-is", "mean": 75})
    '10-way 5-shot, 750 validation images as uneven'
    """
    val = _val(val)
    if isinstance(val, int):
        return f"{of_ways(ways, shots)}, {ways * val} validation images"
    number = "" if val.mean is None else f"{ways * val.mean} "
    return f"{of_ways(ways, shots)}, {number}validation images as uneven"


def as_toml(value: Any) -> str:
    """How a value of `shots` or `val` is written in a file.

    >>> as_toml(5), as_toml((2, 20)), as_toml(LongTail(20, 2))
    ('5', '[2, 20]', '{ most = 20, least = 2 }')
    """
    return str(list(value) if isinstance(value, tuple) else value)
