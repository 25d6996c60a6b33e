"""The setting that starts a search at given numbers: those of a loss that is to be refined."""

from typing import Annotated, Any, Self

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.errors import SettingsError

Number = Annotated[float, Field(allow_inf_nan=False)]


# By name alone: a genome's own settings come first.
@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class StartsAt:
    """Settings of genomes of real vectors whose search may set out from a loss of theirs.

    Attributes:
        first: the numbers of the loss that the search sets out from and has to beat, instead of
            what the genome's start gives; empty: there is none.
    """

    first: Annotated[tuple[Number, ...], Field(max_length=1_000_000)] = ()

    @model_validator(mode="after")
    def _first_fits(self) -> Self:
        if self.first:
            genome: Any = self
            genome.sample(1, Stream(0))
        return self

    def copies_of_first(self, n: int, size: int) -> Float[Tensor, "n D"] | None:
        """The first candidate n times; None: there is none.

        Raises:
            SettingsError: it has another number of numbers than a candidate.
        """
        if not self.first:
            return None
        if len(self.first) != size:
            raise SettingsError(f"first must have {size} numbers, got {len(self.first)}")
        return torch.tensor(self.first).repeat(n, 1)
