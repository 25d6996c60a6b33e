"""What holds for families whose tasks are of one kind and whose images are of one data set."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Int64
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset
from metaloss.data.datasets._files import Files
from metaloss.data.episodes import Pool
from metaloss.tasks.protocols import ImageSet


class _WithImages(Protocol):
    """A family with its images."""

    @property
    def dataset(self) -> Dataset | Files:
        """All of them."""

    @property
    def pools(self) -> Mapping[str, Pool]:
        """The rows of every class, by the pool's name."""


class OneKind(ABC):
    """A family that a mixture would have as one of its kinds."""

    family: Any  # its settings

    @property
    @abstractmethod
    def ways(self) -> int:
        """Classes of a task."""

    @abstractmethod
    def rates(self, rates: Sequence[float]) -> Sequence[float]:
        """The rates among which a loss's is chosen, where a run names these."""

    def baseline_rates(self, rates: Sequence[float]) -> Sequence[float]:
        """The rates among which cross-entropy's is chosen: the same."""
        return self.rates(rates)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """How many classes tasks may have."""
        return (self.ways,)

    @property
    def kind_count(self) -> int:
        """1."""
        return 1

    def kinds_of(self, key: Stream, tasks: Sequence[int]) -> Int64[Tensor, " T"]:
        """The number of each task's kind: 0."""
        return torch.zeros(len(tasks), dtype=torch.int64)

    def provenances(self) -> dict[str, dict[str, Any]]:
        """Where its images come from and what each of them is used for, by its name."""
        return {self.family.name: self.provenance()}

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Where its images come from, and what each of them is used for."""

    @property
    def image_sets(self: _WithImages) -> list[ImageSet]:
        """Its data set with its pools."""
        return [ImageSet(self.dataset, self.pools)]

    @property
    def data_origin(self: _WithImages) -> str:
        """Where its images come from, in words."""
        return self.dataset.origin
