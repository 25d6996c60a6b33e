"""The setting that shows losses what was predicted for an image before."""

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings


# By name alone: a genome's own settings come first.
@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SeesPast:
    """Settings of genomes whose losses may see what was predicted for an image before.

    Attributes:
        past: whether losses see the running mean of each image's own earlier predictions; families
            with minibatches or augmented images cannot show it.
    """

    past: bool = False
