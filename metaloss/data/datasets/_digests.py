"""Images known by what they show, whatever their files are called, wherever these lie and whatever
lies beside them.

A digest is that of an image as it is decoded, upright and before anything is made of it: neither
the size nor the number of colours that all images of a set are brought to is in it. A colour image
whose channels are equal counts as gray, and one without transparent places as one that cannot have
any, so the same pixels have the same digest in whatever lossless file they are."""

import hashlib
import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

BYTES = 8  # of a digest: by chance, two sets of a million images share one once in 18 million times
# Pillow's names of pixel formats.
_PLAIN = {"1": "L", "P": "RGBA", "PA": "RGBA", "La": "LA", "RGBa": "RGBA"}
_KEPT = {"L", "LA", "RGB", "RGBA", "F"}


def of_pixels(pixels: UInt8[Tensor, "N K H W"]) -> Int64[Tensor, " N"]:
    """The digest of every image of a set."""
    images = pixels.contiguous().numpy()
    found = _of_rows(images)
    if images.shape[1] == 3:
        gray = np.flatnonzero((images == images[:, :1]).reshape(len(images), -1).all(1))
        found[gray] = _of_rows(images[gray, :1])
    return torch.from_numpy(found)


def of_image(image: Any) -> int:
    """The digest of a Pillow image as it was decoded, already upright."""
    if not image.mode.startswith("I"):  # 16 bits stay 16 bits
        mode = _PLAIN.get(image.mode, image.mode)
        image = image.convert(mode if mode in _KEPT else "RGB")
    return int(_of_rows(_channels(np.asarray(image))[None])[0])


def _channels(array: np.ndarray) -> np.ndarray:
    """An image [H W] or [H W K] as [K H W], without channels that say nothing."""
    if (
        array.dtype.kind in "iu"
        and array.dtype != np.uint8
        and 0 <= array.min() <= array.max() < 1 << 16
    ):
        array = array.astype("<u2")  # Pillow reads 16 bits as 16 or as 32, as its version has it
    if array.ndim == 2:
        return array[None]
    if array.shape[2] in (2, 4) and (array[..., -1] == 255).all():
        array = array[..., :-1]
    if array.shape[2] >= 3 and all((array[..., i] == array[..., 0]).all() for i in (1, 2)):
        array = array[..., [0, *range(3, array.shape[2])]]
    return array.transpose(2, 0, 1)


def _of_rows(images: Shaped[np.ndarray, "N K H W"]) -> Int64[np.ndarray, " N"]:
    """The digests of images of one shape and type, a byte order's difference aside."""
    key = f"{images.dtype.str[1:]} {images.shape[1:]}".encode()
    rows = np.ascontiguousarray(images).reshape(len(images), math.prod(images.shape[1:]))
    digests = b"".join(
        [hashlib.blake2b(row.data, key=key, digest_size=BYTES).digest() for row in rows]
    )
    return np.frombuffer(digests, "<i8").astype(np.int64)
