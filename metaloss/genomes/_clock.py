"""The setting that shows losses how far a training is."""

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings


# By name alone: a genome's own settings come first.
@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SeesClock:
    """Settings of genomes whose losses may see how far the training is.

    Attributes:
        clock: whether losses see the share of the training's steps that is done, and how many steps
            it has.
    """

    clock: bool = False

    @property
    def reads_clock(self) -> bool:
        """Whether a candidate may depend on how far the training is."""
        return self.clock
