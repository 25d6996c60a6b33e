"""Images are known by what they show, whatever is made of them and whatever lies beside them."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from metaloss.data import datasets
from metaloss.data.datasets import _digests, _files

RANDOM = np.random.default_rng(3)
GRAY = RANDOM.integers(0, 256, (9, 7), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (9, 7, 3), dtype=np.uint8)


@pytest.fixture
def scans(tmp_path):
    """Six gray images of 90x70 pixels, which are shrunk when they are read."""
    root = tmp_path / "scans"
    for i in range(6):
        path = root / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RANDOM.integers(0, 256, (70, 90), dtype=np.uint8)).save(path)
    return root


def known(root):
    return set(datasets.load(f"folder:{root}").digests.tolist())


def of(array, mode=None):
    return _digests.of_image(
        Image.fromarray(array) if mode is None else Image.fromarray(array).convert(mode)
    )


def test_images_keep_their_digests_when_others_come_go_and_are_renamed(scans):
    before = known(scans)
    assert len(before) == 6
    (scans / "a" / "0.png").rename(scans / "a" / "z.png")
    assert known(scans) == before
    (scans / "a" / "2.png").unlink()
    # Makes all images colour, and another size the common one.
    Image.fromarray(COLOUR).save(scans / "b" / "0.png")
    assert len(before & known(scans)) == 5


def test_a_folder_has_the_same_digests_at_another_place_and_through_a_link(scans, tmp_path):
    before = known(scans)
    shutil.copytree(scans, tmp_path / "elsewhere" / "photos")
    (tmp_path / "link").symlink_to(scans)
    assert known(tmp_path / "elsewhere" / "photos") == known(tmp_path / "link") == before


def test_digests_tell_images_apart_that_look_alike_once_they_are_small(tmp_path):
    for i, name in enumerate(("a/0.png", "a/1.png", "b/0.png", "b/1.png")):
        path = tmp_path / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((200, 200), 90, np.uint8)
        pixels[i, i] += 1
        Image.fromarray(pixels).save(path)
    found = datasets.load(f"folder:{tmp_path / 'x'}")
    assert (found.pixels == found.pixels[0]).all()
    assert len(found.digests.unique()) == 4


def test_one_image_has_one_digest_however_it_is_stored_without_loss():
    whole = np.dstack([COLOUR, np.full((9, 7), 255, np.uint8)])
    assert (
        len({of(GRAY), of(np.dstack([GRAY] * 3)), of(GRAY, "RGBA"), of(GRAY, "LA"), of(GRAY, "P")})
        == 1
    )
    assert of(COLOUR) == of(whole)
    assert len({of(GRAY), of(GRAY.T), of(GRAY[::-1]), of(COLOUR), of(COLOUR[..., ::-1])}) == 5
    glass = np.dstack([COLOUR, np.full((9, 7), 9, np.uint8)])
    assert of(glass) != of(COLOUR)
    wide = GRAY.astype(np.uint16) * 257
    assert of(wide) == of(wide.astype(np.int32)) != of(GRAY)


def test_arrays_have_the_digests_of_the_same_images_in_files():
    gray = torch.from_numpy(GRAY)[None, None]
    colour = torch.from_numpy(COLOUR.transpose(2, 0, 1))[None]
    assert (
        _digests.of_pixels(gray).tolist()
        == _digests.of_pixels(gray.expand(1, 3, 9, 7)).tolist()
        == [of(GRAY)]
    )
    assert _digests.of_pixels(colour).tolist() == [of(COLOUR)]
    assert datasets.load("digits").digests.unique().numel() > 1700


def test_files_that_are_read_one_by_one_have_the_digests_of_what_they_hold(scans):
    paths = sorted(scans.glob("*/*.png"))
    found = _files.files("x", (paths[:3], [0, 1, 0]), (paths[3:], [1, 0, 1]), "ab", "here").dataset(
        size=8
    )
    assert found.digests.tolist() == [_digests.of_image(Image.open(path)) for path in paths]


def test_a_picture_that_says_how_to_be_turned_has_the_digest_of_the_turned_one(scans):
    before = known(scans)
    turned = Image.open(scans / "a" / "0.png").transpose(Image.Transpose.ROTATE_90)
    tag = Image.Exif()
    tag[0x0112] = 6
    turned.save(scans / "a" / "0.png", exif=tag)
    assert known(scans) == before
