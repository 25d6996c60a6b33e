"""Images that one compiled pass normalises are those of torch, bit for bit."""

import pytest
import torch

from metaloss import kernels
from metaloss.core.streams import Stream
from metaloss.data.episodes import Images
from metaloss.data.views import PixelView

pytest.importorskip("numba")


@pytest.mark.parametrize("view", [None, PixelView(permutation=3, inverted=True)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_normalised_images_are_torchs_to_the_bit(view, channels, monkeypatch):
    pixels = Stream(0).integers(256, 40, channels, 5, 7).to(torch.uint8)
    images = Images(pixels, 72.94, 90.02, view)
    rows = Stream(1).integers(40, 3, 11)
    found = images.at(rows)
    monkeypatch.setattr(kernels, "compiler", lambda: "none")
    assert torch.equal(found, images.at(rows))
    assert found.shape == (3, 11, channels, 5, 7)
