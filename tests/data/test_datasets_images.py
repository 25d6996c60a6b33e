"""Image files are decoded alike for every source.

On a background, upright, below a limit of pixels, at a size.
"""

import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
import vocfolder
from PIL import Image

from metaloss.core.streams import Stream
from metaloss.data import datasets
from metaloss.data.datasets import _images
from metaloss.data.datasets._images import ImageOptions
from metaloss.errors import DataError, SettingsError
from metaloss.experiments.recommendation import folds
from metaloss.tasks import episodic, episodic_family
from metaloss.training.images import open_images
from metaloss.training.settings import resolve

CPU = torch.device("cpu")
ORIENTATION = 0x0112


def ring(mode):
    """Black ink on a transparent ground, as that mode of Pillow's holds it.

    The options to save it with.
    """
    ink = np.zeros((8, 8), np.uint8)
    ink[2:6, 2:6] = 255
    if mode == "RGBA":
        return Image.fromarray(np.stack([ink * 0, ink * 0, ink * 0, ink], -1)), {}
    if mode == "LA":
        return Image.fromarray(np.stack([ink * 0, ink], -1), "LA"), {}
    palette = Image.fromarray((ink == 0).astype(np.uint8), "L")
    if mode == "P":
        palette = Image.frombytes("P", (8, 8), (ink == 0).astype(np.uint8).tobytes())
        palette.putpalette([0, 0, 0, 9, 9, 9])
    return palette, {"transparency": 1}


def folder(root, mode, parts=("",)):
    """A folder of such pictures, two classes of two, once for each part."""
    for part in parts:
        for name in "ab":
            (root / part / name).mkdir(parents=True)
            for i in range(2):
                image, options = ring(mode)
                image.save(root / part / name / f"{i}.png", **options)
    return root


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0), ("#808080", 128)])
def test_transparent_pixels_are_laid_on_the_background(tmp_path, mode, background, level):
    spec = f"folder:{folder(tmp_path / 'x', mode)}"
    found = datasets.load(spec, ImageOptions(background=background)).pixels
    assert found.shape[1] == (1 if mode in ("LA", "L") else 3)
    assert (found[..., 0, 0] == level).all()
    assert (found[..., 4, 4] == 0).all()


def test_a_coloured_background_makes_transparent_gray_images_coloured(tmp_path):
    spec = f"folder:{folder(tmp_path / 'x', 'L')}"
    found = datasets.load(spec, ImageOptions(background="#ff8000")).pixels
    assert found[0, :, 0, 0].tolist() == [255, 128, 0]
    assert found[0, :, 4, 4].tolist() == [0, 0, 0]


def test_every_source_and_command_reads_with_the_same_options(tmp_path):
    folder(tmp_path / "x", "RGBA")
    folder(tmp_path / "net", "RGBA", ("train", "val"))
    changes = {"background": "#0a0a0a", "size": 16}
    for spec in (f"folder:{tmp_path / 'x'}", f"imagenet:{tmp_path / 'net'}"):
        pixels = datasets.load(spec, ImageOptions(**changes)).pixels
        assert pixels.shape[1:] == (3, 16, 16)
        assert (pixels[..., 0, 0] == 10).all()
    assert datasets.load(f"imagenet:{tmp_path / 'net'}").pixels.shape[-2:] == (64, 64)

    spec = f"folder:{folder(tmp_path / 'many', 'RGBA')}"
    for name in "ab":
        for i in range(12):
            image = Image.fromarray(np.full((8, 8, 4), (i, ord(name), 0, 255), np.uint8))
            image.save(tmp_path / "many" / name / f"more{i}.png")
    for copy in ("0.png", "1.png"):  # of those of the other class
        (tmp_path / "many" / "b" / copy).unlink()
    training = open_images(resolve({"data": spec, **changes}), CPU)
    episodes = episodic.open_episodes(
        episodic_family.of(
            {"dataset": spec, "ways": 2, "shots": 1, "val": 1, **changes}, "many", "many.toml"
        )
    )
    cut = folds.make_folds(spec, changes, Stream(0))
    for dataset in (training.dataset, episodes.dataset, cut.dataset):
        assert dataset.pixels.shape[1:] == (3, 16, 16)
        assert (dataset.pixels[:2, :, 0, 0] == 10).all()


def test_a_background_that_is_no_colour_is_refused():
    for resolved in (
        resolve,
        lambda table: folds.make_folds("folder:nowhere", table, Stream(0)),
    ):
        with pytest.raises(
            SettingsError, match="background: expected white, black or #rrggbb, got 'pink'"
        ):
            resolved({"background": "pink"})


def test_images_in_memory_come_to_the_size_too():
    found = datasets.load("fashionmnist", ImageOptions(size=16))
    stored = datasets.load("fashionmnist")
    assert found.pixels.shape == (len(stored.labels), 1, 16, 16)
    assert found.origin.endswith(", brought to 16x16 pixels")
    assert torch.equal(found.digests, stored.digests)


def test_too_much_to_hold_is_said_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(_images, "LIMIT", 1000)
    monkeypatch.setattr(_images, "decode", None)
    for spec, size in ((f"folder:{folder(tmp_path / 'x', 'RGBA')}", 16), ("fashionmnist", 16)):
        with pytest.raises(DataError, match=r"of 16x16 are .* bytes, too many to hold"):
            datasets.load(spec, ImageOptions(size=size))


# --- orientation ---


def turned(path, array, orientation=6, **options):
    """Save an image with an orientation tag."""
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, exif=tags, **options)


# stored: dark left, 6 wide and 4 high.
HALVES = np.repeat(np.array([[0, 0, 0, 250, 250, 250]], np.uint8), 4, 0)
UPRIGHT = np.rot90(HALVES, -1)  # as displayed with orientation 6: dark on top, 4 wide and 6 high


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_an_orientation_tag_turns_images_in_every_format(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    array = HALVES if suffix != "webp" else np.stack([HALVES] * 3, -1)
    for name in "ab":
        turned(tmp_path / f"x/{name}/0.{suffix}", array, **options)
    found = datasets.load(f"folder:{tmp_path / 'x'}").pixels
    assert found.shape[-2:] == (6, 4)
    assert np.abs(found[0, 0].numpy().astype(int) - UPRIGHT).max() < 40
    assert _images.header(tmp_path / f"x/a/0.{suffix}").size == (4, 6)


def test_an_orientation_tag_turns_wide_images_and_those_of_other_sources(tmp_path):
    for part in ("train", "val"):
        for name in "ab":
            turned(tmp_path / part / name / "0.png", HALVES.astype(np.uint16) * 257)
    found = datasets.load(f"imagenet:{tmp_path}", ImageOptions(size=8)).pixels
    assert (found[:, :, 0] == 0).all()
    assert (found[:, :, -1] == 250).all()


@pytest.mark.parametrize("drawn", ["displayed", "stored", "tagged"])
def test_masks_lie_on_their_images_however_those_are_stored(tmp_path, drawn):
    root = vocfolder.write(tmp_path / "shapes")
    label = (HALVES > 100).astype(np.uint8)
    for image in (root / "JPEGImages").iterdir():
        mask = root / "SegmentationClass" / f"{image.stem}.png"
        turned(image, np.stack([HALVES] * 3, -1), quality=95)
        if drawn == "tagged":
            turned(mask, label)
        else:
            vocfolder.save(
                mask, np.ascontiguousarray(np.rot90(label, -1)) if drawn == "displayed" else label
            )
    pixels, labels = datasets.scenes(f"voc:{root}").pair(0, 6)
    inside = labels != 255
    assert inside.sum() == 24
    assert inside[:, 1:5].all()
    assert torch.equal(pixels[0][inside] > 100, labels[inside] == 1)
    assert labels[0, 2] == 0
    assert labels[-1, 2] == 1


# --- a limit of pixels ---


def bomb(path, side):
    """A gray PNG of zeros that is small on the disk."""

    def chunk(kind, data):
        return (
            len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        )

    path.parent.mkdir(parents=True, exist_ok=True)
    pack = zlib.compressobj(1)
    # The rest would not be reached.
    rows = [pack.compress(bytes(side + 1)) for _ in range(min(side, 50))]
    head = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    data = b"".join([*rows, pack.flush()])
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


READ = """
import resource, sys
from metaloss.data import datasets
import torch, PIL.Image, PIL.ImageOps
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)
for spec in sys.argv[1:]:
    try:
        datasets.load(spec)
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_an_image_of_too_many_pixels_is_refused_without_the_memory_that_it_would_take(tmp_path):
    for name in ("x/a", "x/b", "net/train/a", "net/train/b", "net/val/a", "net/val/b"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / name / "1.png")
    for file in (tmp_path / "x/a/0.png", tmp_path / "net/train/a/0.png"):
        bomb(file, 13_000)
    specs = [f"folder:{tmp_path / 'x'}", f"imagenet:{tmp_path / 'net'}"]
    done = subprocess.run(
        [sys.executable, "-c", READ, *specs], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    for line, file in zip(done.stdout.splitlines(), ("x/a", "net/train/a"), strict=True):
        assert line == (
            f"DataError {tmp_path / file}/0.png: image: found 169000000 pixels, expected at most "
            "90000000; where "
            "the file can be trusted, max_pixels=169000000 allows it (--set max_pixels=169000000)"
        )


def test_large_images_are_read_where_that_is_asked_for(tmp_path, monkeypatch):
    # Pillow's own limit, above which it warns, and then refuses.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for name in "ab":
        bomb(tmp_path / f"x/{name}/0.png", 50)
    spec = f"folder:{tmp_path / 'x'}"
    assert datasets.load(spec).pixels.shape == (2, 1, 50, 50)
    with pytest.raises(DataError, match="found 2500 pixels, expected at most 2499"):
        datasets.load(spec, ImageOptions(max_pixels=2499))
    assert Image.MAX_IMAGE_PIXELS == 1000
    with pytest.raises(DataError, match="expected at most 2000"):
        open_images(resolve({"data": spec, "max_pixels": 2000}), CPU)


def test_a_large_image_within_a_small_one_is_refused(tmp_path):
    for name in "ab":
        (tmp_path / f"x/{name}").mkdir(parents=True)
        Image.new("L", (200, 200)).save(tmp_path / f"x/{name}/0.ico", sizes=[(200, 200)])
        data = bytearray((tmp_path / f"x/{name}/0.ico").read_bytes())
        data[6:8] = bytes([8, 8])  # what the icon's list says of the PNG within
        (tmp_path / f"x/{name}/0.ico").write_bytes(data)
    with pytest.raises(DataError, match=r"0.ico: image: found 40000 pixels, expected at most 1000"):
        datasets.load(f"folder:{tmp_path / 'x'}", ImageOptions(max_pixels=1000))
