"""Other views of a data set's images: their pixels in another order, their grey levels turned over.

Each view is a cheap further data set: what a network learned from images as they are is of no use
there, and the classes are as hard to tell, but for what neighbouring pixels tell a convolution.
"""

from typing import Annotated, Any

from jaxtyping import Float, Int64
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.data.shapes import table_of


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class PixelView:
    """How images are shown to classifiers.

    Attributes:
        permutation: the seed of an order of the pixels, one for all images; None: as they are.
        inverted: dark for bright.
    """

    permutation: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    inverted: bool = False

    def of(self, images: Float[Tensor, "N K H W"]) -> Float[Tensor, "N K H W"]:
        """Normalised images in this view."""
        if self.permutation is not None:
            images = images.flatten(2)[:, :, self._order(*images.shape[2:]).to(images.device)].view(
                images.shape
            )
        # Grey levels turned over, 255 - x, have the mean turned over and the same deviation.
        return -images if self.inverted else images

    def _order(self, height: int, width: int) -> Int64[Tensor, " HW"]:
        """Which pixel comes to each place; colours of a pixel stay together."""
        return Stream(self.permutation or 0).at("pixels").permutation(height * width)

    def __str__(self) -> str:
        words = ["permuted"] if self.permutation is not None else []
        return " and ".join([*words, *(["inverted"] if self.inverted else [])])


def _view(value: Any) -> Any:
    """A view, or None where a table changes nothing."""
    if isinstance(value, dict):
        value = table_of(PixelView, value)
    if value is None or isinstance(value, PixelView):
        return None if value == PixelView() else value
    raise ValueError(f"expected {{ permutation = 1, inverted = true }}, got {value!r}")


View = Annotated[PixelView | None, BeforeValidator(_view)]
