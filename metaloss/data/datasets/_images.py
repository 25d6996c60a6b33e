"""Decoding of image files, for every source.

Images are turned upright, transparent pixels get a background, and channels have eight bits.
"""

import contextlib
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from metaloss.core.reading import open_regular
from metaloss.data.datasets._remarks import warn_of
from metaloss.errors import DataError

# Of an image. Pillow warns from about here on; with four bytes a pixel it takes 360 MB.
MAX_PIXELS = 90_000_000
LIMIT = 4 << 30  # bytes of images that a source holds in memory
GRAY = {"1", "L", "LA", "La", "F"}  # Pillow's modes of one channel, beside those that begin with I
_ORIENTATION = 0x0112  # the EXIF tag; for values from 5 on, width and height are exchanged
_TIFF_SIZE = (256, 257)  # TIFF's tags of width and height
# The highest values of 8, 10, 12, 14 and 16 bits, which scanners and cameras use.
_WHITES = (0xFF, 0x3FF, 0xFFF, 0x3FFF, 0xFFFF)
_LOCK = threading.RLock()  # for Pillow's limit, which is a global variable


def _colour(text: str) -> str:
    if text not in ("white", "black") and not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise ValueError(f"expected white, black or #rrggbb, got '{text}'")
    return text


Size = Annotated[int, Field(ge=8, le=2048)] | None
Background = Annotated[str, AfterValidator(_colour)]
MaxPixels = Annotated[int, Field(ge=1)]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class ImageOptions:
    """How image files are read.

    The settings of families, recommendations and trainings have the same fields.

    Attributes:
        size: side of the square that every image becomes, in pixels; None: the source's own.
        background: the colour behind transparent pixels: "white", "black" or "#rrggbb".
        max_pixels: the most pixels that an image file may have; larger ones are refused before
            decoding.
    """

    size: Size = None
    background: Background = "white"
    max_pixels: MaxPixels = MAX_PIXELS

    @property
    def coloured(self) -> bool:
        """Whether the background is a colour other than a grey."""
        digits = self.background.removeprefix("#")
        return self.background.startswith("#") and not digits[:2] == digits[2:4] == digits[4:]


DEFAULT_OPTIONS = ImageOptions()


@dataclass(frozen=True)
class Header:
    """What the header of a file states of its image.

    Attributes:
        size: width and height as displayed.
        gray: whether it has one channel, also after its background is added.
        wide: whether its one channel has more than eight bits.
        orientation: the value of its EXIF tag, from 1 to 8; 1: stored as displayed.
    """

    size: tuple[int, int]
    gray: bool
    wide: bool
    orientation: int


@dataclass(frozen=True)
class Levels:
    """The values of black and white in images of more than eight bits."""

    black: float
    white: float


def header(file: Path, options: ImageOptions = DEFAULT_OPTIONS) -> Header:
    """What the header of a file states of its image; no pixel is decoded.

    Raises:
        DataError: the file is no readable image, or it has too many pixels.
    """
    with open_image(file, options) as image:
        orientation = image.getexif().get(_ORIENTATION)
        orientation = orientation if orientation in range(1, 9) else 1
        # Newer versions of Pillow give the size of a TIFF as displayed, and that of any other file
        # as stored. The tags hold it as stored.
        size = (
            tuple(image.tag_v2[tag] for tag in _TIFF_SIZE)
            if hasattr(image, "tag_v2")
            else image.size
        )
        if orientation in (5, 6, 7, 8):
            size = size[::-1]
        gray = image.mode in GRAY or is_wide(image)
        coloured = options.coloured and image.has_transparency_data
        return Header(size, gray and not coloured, is_wide(image), orientation)


def decode(file: Path, options: ImageOptions = DEFAULT_OPTIONS) -> Any:
    """The Pillow image of a file, turned upright as its orientation tag says.

    Raises:
        DataError: the file is no readable image, or it has too many pixels.
    """
    from PIL import Image, ImageOps

    with open_image(file, options) as image:
        # Pillow decodes late: a damaged file must raise its error here, within the block.
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        # Pillow has several modes of 16 bits, and few of its functions work with them.
        if image.mode.startswith("I;16"):
            return Image.fromarray(np.asarray(image).astype(np.int32))
        return image


def read(
    file: Path, options: ImageOptions, levels: Levels | None = None, gray: bool = False
) -> Any:
    """The Pillow image of a file, upright, on its background, of mode L or RGB.

    Args:
        file: of the image.
        options: the background and the most pixels.
        levels: of black and white in the data set, where files have more than eight bits.
        gray: one channel instead of three.

    Raises:
        DataError: the file is no readable image, has too many pixels, or has more than eight bits
            and there are no levels.
    """
    return to_eight_bits(decode(file, options), file, options, levels, gray)


def to_eight_bits(
    image: Any, file: Path, options: ImageOptions, levels: Levels | None, gray: bool
) -> Any:
    """A decoded Pillow image on its background, of mode L or RGB.

    Args:
        image: as `decode` returns it.
        file: of the image, for messages.
        options: as for `read`.
        levels: as for `read`.
        gray: as for `read`.

    Raises:
        DataError: the image has more than eight bits, and there are no levels.
    """
    from PIL import Image

    if is_wide(image):
        if levels is None:
            raise DataError(
                f"{file}: pixels: found more than 8 bits in a file that is named as if it had 8: "
                "rename it"
            )
        image = _scaled(image, levels)
    elif image.has_transparency_data:
        # Converted to RGB alone, invisible pixels would show the colours stored in them.
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, options.background), image)
    return image.convert("L" if gray else "RGB")


def levels(
    name: str, files: Sequence[Path], options: ImageOptions = DEFAULT_OPTIONS
) -> Levels | None:
    """The levels of black and white in files of more than eight bits; None without such files.

    Where all values are from 0 to 65535, white is the smallest of 255, 1023, 4095, 16383 and 65535
    that none exceeds; where floats are from 0 to 1, it is 1; else the lowest value is black and the
    highest is white.

    Raises:
        DataError: a file is no readable image, or a value is not finite.

    Warns:
        DataWarning: what the values are, and what becomes of them.
    """
    low = np.inf
    high = -np.inf
    fraction = False
    # One file after another: all images together may not fit into memory.
    for file in files:
        values = np.asarray(decode(file, options))
        if not np.isfinite(values).all():
            raise DataError(f"{file}: pixels: found values that are not finite, expected numbers")
        low = min(low, float(values.min()))
        high = max(high, float(values.max()))
        fraction = fraction or values.dtype.kind == "f"
    if low > high:
        return None
    black = low
    white = high
    if low >= 0 and high <= _WHITES[-1]:
        black = 0.0
        white = 1.0 if fraction and high <= 1 else float(next(x for x in _WHITES if high <= x))
    warn_of(
        f"{name}: {len(files)} images have more than 8 bits and use values from {low:g} to "
        f"{high:g}: {black:g} becomes 0 and {white:g} becomes 255"
    )
    return Levels(black, white)


def orient(image: Any, orientation: int) -> Any:
    """A Pillow image, rotated and mirrored as an orientation tag of that value demands."""
    from PIL.Image import Transpose

    # What undoes the tag's values 2 to 8.
    steps = (
        *(Transpose.FLIP_LEFT_RIGHT, Transpose.ROTATE_180, Transpose.FLIP_TOP_BOTTOM),
        *(Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90),
    )
    return image if orientation == 1 else image.transpose(steps[orientation - 2])


def is_wide(image: Any) -> bool:
    """Whether a Pillow image has one channel of more than eight bits."""
    return bool(image.mode == "F" or image.mode.startswith("I"))


def _scaled(image: Any, levels: Levels) -> Any:
    """The Pillow image scaled to eight bits; Pillow itself would clip at 255."""
    from PIL import Image

    # An image of one value has a range of 0.
    span = (levels.white - levels.black) or 1
    share = (np.asarray(image, dtype=np.float64) - levels.black) / span
    return Image.fromarray((255 * share.clip(0, 1)).round().astype(np.uint8))


@contextlib.contextmanager
def open_image(file: Path, options: ImageOptions = DEFAULT_OPTIONS) -> Iterator[Any]:
    """A Pillow image for a `with` block; any error becomes a DataError that names the file."""
    from PIL import Image

    try:
        # From a stream: Pillow maps a plain TIFF into memory where it opens it by path, and then
        # returns wrong pixels.
        with (
            _pillow_limit(options.max_pixels),
            open_regular(file) as stream,
            Image.open(stream) as image,
        ):
            yield image
    except DataError:
        raise
    except IsADirectoryError:
        raise DataError(f"{file}: image: found a folder, expected an image file") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_many(file, error, options.max_pixels) from None
    # Decoders raise OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(
            f"{file}: image: found none that can be read ({reason}), expected an image file"
        ) from error


def _too_many(file: Path, error: Exception, limit: int) -> DataError:
    """The error for an image with too many pixels."""
    match = re.search(r"\((\d+) pixels\)", str(error))
    pixels = match[1] if match else "more"
    setting = f"max_pixels={pixels if match else 10 * limit}"
    return DataError(
        f"{file}: image: found {pixels} pixels, expected at most {limit}; "
        f"where the file can be trusted, {setting} allows it (--set {setting})"
    )


@contextlib.contextmanager
def _pillow_limit(pixels: int) -> Iterator[None]:
    """Within the block, Pillow refuses images of more pixels, also those within an icon file."""
    from PIL import Image

    # Pillow warns above its limit and raises an error only above twice that.
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def check_memory(name: str, images: int, shape: tuple[int, int, int]) -> None:
    """Raise a DataError where so many images of a shape [K H W] do not fit into memory."""
    channels, height, width = shape
    if (total := images * channels * height * width) > LIMIT:
        raise DataError(
            f"{name}: {images} images of {height}x{width} are {total} bytes, "
            f"too many to hold (at most {LIMIT}); a smaller size=… makes them fewer"
        )
