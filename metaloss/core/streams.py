"""Named random streams: every draw is a function of a seed and a path of roles, never of order."""

import hashlib
import math
import random
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Stream:
    """A seed and a path of roles; equal streams draw equal numbers, on every device.

    >>> key = Stream(0).at("init", 3)
    >>> bool((key.normal(4) == Stream(0).at("init", 3).normal(4)).all())
    True
    """

    seed: int
    path: tuple[str | int, ...] = ()

    def at(self, *roles: str | int) -> "Stream":
        """The stream further down the path, e.g. `key.at("tasks", epoch)`."""
        return Stream(self.seed, self.path + roles)

    def generator(self) -> torch.Generator:
        """A fresh CPU generator, seeded by a hash of seed and path."""
        # On the CPU even where a GPU trains: a GPU's generator draws other numbers.
        return torch.Generator().manual_seed(self._number() >> 1)

    def python_rng(self) -> random.Random:
        """A fresh generator of Python's own, for many small draws one after another."""
        return random.Random(self._number())

    def _number(self) -> int:
        """The 64 bits that seed this stream's generators."""
        # repr keeps 1 and "1" apart; SHA-256 keeps neighbouring paths independent.
        digest = hashlib.sha256(repr((self.seed, *self.path)).encode()).digest()
        return int.from_bytes(digest[:8], "little")

    def normal(self, *shape: int) -> Float[Tensor, "..."]:
        """Standard normal numbers.

        By Box and Muller in float64 from uniform draws: `torch.randn` takes other kernels, and so
        gives other numbers, on other CPUs.
        """
        n = math.prod(shape)
        u = torch.rand(2, n, generator=self.generator(), dtype=torch.float64)
        radius = (-2 * torch.log1p(-u[0])).sqrt()  # 1 - u lies in (0, 1]
        return (radius * torch.cos(2 * math.pi * u[1])).float().reshape(shape)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Float[Tensor, "..."]:
        """Uniform numbers in [low, high)."""
        return torch.rand(shape, generator=self.generator()) * (high - low) + low

    def integers(self, high: int, *shape: int) -> Int[Tensor, "..."]:
        """Integers in [0, high)."""
        return torch.randint(high, shape, generator=self.generator())

    def permutation(self, n: int) -> Int[Tensor, " n"]:
        """A random order of 0 ... n-1."""
        return torch.randperm(n, generator=self.generator())
