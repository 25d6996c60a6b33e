"""Digests by which an image is recognised, whatever its file is called and wherever it lies.

The digest is that of the decoded upright image, before it is resized or converted. A colour image
with three equal channels counts as gray, and an alpha channel without transparency does not count.
So the same pixels have the same digest in every lossless format.
"""

import hashlib
import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

# Bytes of a digest: the chance that two sets of a million images share one is 1 in 18 million.
BYTES = 8
# Pillow's pixel formats: those that are converted to another one, and those that are kept.
_PLAIN = {"1": "L", "P": "RGBA", "PA": "RGBA", "La": "LA", "RGBa": "RGBA"}
_KEPT = {"L", "LA", "RGB", "RGBA", "F"}


def of_pixels(pixels: UInt8[Tensor, "N K H W"]) -> Int64[Tensor, " N"]:
    """The digest of every image of a set."""
    images = pixels.contiguous().numpy()
    digests = _of_rows(images)
    if images.shape[1] == 3:
        # As one channel, so that a gray image that was saved in colour is recognised.
        gray = np.flatnonzero((images == images[:, :1]).reshape(len(images), -1).all(1))
        digests[gray] = _of_rows(images[gray, :1])
    return torch.from_numpy(digests)


def of_vectors(values: Float[Tensor, "N D"]) -> Int64[Tensor, " N"]:
    """The digest of every row of a table."""
    # Little-endian on every machine; four axes, as images have.
    rows = values.numpy().astype("<f4")[:, None, None]
    return torch.from_numpy(_of_rows(rows))


def of_image(image: Any) -> int:
    """The digest of a Pillow image as it was decoded, already upright."""
    if not image.mode.startswith("I"):  # 16 bits stay 16 bits
        mode = _PLAIN.get(image.mode, image.mode)
        image = image.convert(mode if mode in _KEPT else "RGB")
    return int(_of_rows(_channels(np.asarray(image))[None])[0])


def _channels(array: np.ndarray) -> np.ndarray:
    """An image [H W] or [H W K] as [K H W], without channels that add nothing."""
    if (
        array.dtype.kind in "iu"
        and array.dtype != np.uint8
        and 0 <= array.min() <= array.max() < 1 << 16
    ):
        # Pillow reads 16 bits as 16 or as 32 bits, depending on its version.
        array = array.astype("<u2")
    if array.ndim == 2:
        return array[None]
    if array.shape[2] in (2, 4) and (array[..., -1] == 255).all():
        array = array[..., :-1]
    if array.shape[2] >= 3 and all((array[..., i] == array[..., 0]).all() for i in (1, 2)):
        array = array[..., [0, *range(3, array.shape[2])]]
    return array.transpose(2, 0, 1)


def _of_rows(images: Shaped[np.ndarray, "N K H W"]) -> Int64[np.ndarray, " N"]:
    """The digests of images of one shape and type."""
    # The shape and the type are part of the digest, but not the byte order.
    key = f"{images.dtype.str[1:]} {images.shape[1:]}".encode()
    rows = np.ascontiguousarray(images).reshape(len(images), math.prod(images.shape[1:]))
    digests = b"".join(
        [hashlib.blake2b(row.data, key=key, digest_size=BYTES).digest() for row in rows]
    )
    return np.frombuffer(digests, "<i8").astype(np.int64)
