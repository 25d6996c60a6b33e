"""Sizes of a convolutional network's stages, and where their numbers stand, for its compiled loops.

Nothing here imports numba.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from metaloss.kernels import VECTOR

SPAN = 2 * VECTOR  # neighbouring numbers of a map that are computed at once, at most


def whole(count: int) -> int:
    """The next multiple of VECTOR."""
    return -(-count // VECTOR) * VECTOR


class Stage(NamedTuple):
    """One stage: convolution, ReLU and pooling.

    What it sees are its padded maps: planes of lines with room for the window around each map.

    Attributes:
        height: of the maps it sees, without padding.
        width: of these.
        channels: how many these are.
        filters: how many maps it makes.
        kernel: side of the window.
        rows: of the pooled maps.
        columns: of these.
        line: numbers of a line of the padded maps.
        plane: numbers of one of the padded maps.
        inner: where an image begins within a plane.
        room: numbers kept free for one map before it is pooled.
        one: numbers of a line of the window with its channels side by side, in whole vectors.
        two: the same of two windows, one of which stands one place further right.
        weights: where its weights [filters channels kernel kernel] begin among the parameters.
        biases: where its biases begin there.
        maps: where its pooled maps begin among those of an image's stages but the last.
        codes: where the codes of its pooled numbers begin among those of an image.
    """

    height: int
    width: int
    channels: int
    filters: int
    kernel: int
    rows: int
    columns: int
    line: int
    plane: int
    inner: int
    room: int
    one: int
    two: int
    weights: int
    biases: int
    maps: int
    codes: int


@dataclass(frozen=True)
class Stages:
    """The stages of networks that see images of one size.

    Attributes:
        image: channels, height and width.
        filters: of each stage.
        kernel: side of the window.
    """

    image: tuple[int, int, int]
    filters: Sequence[int]
    kernel: int

    @cached_property
    def all(self) -> list[Stage]:
        """Each stage."""
        channels, height, width = self.image
        found: list[Stage] = []
        parameters = maps = codes = 0
        for filters in self.filters:
            rows = -(-height // 2)
            columns = -(-width // 2)
            line = max(width + self.kernel - 1, 2 * columns)
            stage = Stage(
                height=height,
                width=width,
                channels=channels,
                filters=filters,
                kernel=self.kernel,
                rows=rows,
                columns=columns,
                line=line,
                plane=max(height + self.kernel - 1, 2 * rows) * line,
                inner=(self.kernel - 1) // 2 * (line + 1),
                room=-(-2 * rows * line // SPAN) * SPAN + SPAN,
                one=whole(self.kernel * channels),
                two=whole((self.kernel + 1) * channels),
                weights=parameters,
                biases=parameters + filters * channels * self.kernel**2,
                maps=maps,
                codes=codes,
            )
            found.append(stage)
            parameters = stage.biases + filters
            maps += filters * rows * columns
            codes += filters * rows * columns
            channels, height, width = filters, rows, columns
        return found

    @cached_property
    def table(self) -> Any:
        """The same for compiled loops: a row of numbers for each stage."""
        return np.array(self.all, np.int64)

    @property
    def parameters(self) -> int:
        """Weights and biases of all stages."""
        return self.all[-1].biases + self.all[-1].filters

    @property
    def last(self) -> int:
        """Numbers of an image's last maps, in whole vectors."""
        stage = self.all[-1]
        return whole(stage.filters * stage.rows * stage.columns)

    @property
    def maps(self) -> int:
        """Numbers of an image's pooled maps of all stages but the last."""
        return self.all[-1].maps

    @property
    def codes(self) -> int:
        """Numbers of an image's pooled maps of all stages."""
        stage = self.all[-1]
        return stage.codes + stage.filters * stage.rows * stage.columns

    @property
    def padded(self) -> int:
        """Numbers of a padded image, with room to read whole vectors behind it."""
        first = self.all[0]
        return first.channels * first.plane + first.line + 2 * SPAN
