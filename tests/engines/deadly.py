"""Losses of which some put an end to the process that trains with them, unless it is the first."""

import os
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from metaloss.losses.base import CrossEntropies


@dataclass(frozen=True)
class DeadlyLosses(CrossEntropies):
    """Cross-entropies; `deadly` says which are the others."""

    deadly: Tensor = field(default_factory=lambda: torch.zeros(0))
    first: int = field(default_factory=os.getpid)

    def __getitem__(self, rows):
        return replace(super().__getitem__(rows), deadly=self.deadly[rows])

    def bind(self, targets):
        if self.deadly.any() and os.getpid() != self.first:
            os._exit(1)
        return super().bind(targets)
