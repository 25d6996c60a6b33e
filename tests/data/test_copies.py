"""Copies are found where they mislead: across classes, and across training and test."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from metaloss.data.copies import ALIKE, find_copies, thumbnails
from metaloss.data.datasets import _digests

LABELS = torch.tensor([0, 0, 1, 1, 0, 1])
TEST = torch.tensor([False, True, False, True, False, False])


def pictures(n=6, seed=0):
    """Smooth grey pictures of 32x32 that do not resemble each other."""
    draw = np.random.default_rng(seed)
    coarse = [Image.fromarray(draw.integers(0, 256, (6, 6), dtype=np.uint8)) for _ in range(n)]
    return [image.resize((32, 32), Image.Resampling.BICUBIC) for image in coarse]


def stack(images):
    return torch.stack([torch.from_numpy(np.array(image))[None] for image in images])


def found(pixels, small=True, informative=None):
    everything = torch.ones(len(pixels), dtype=torch.bool)
    return find_copies(
        _digests.of_pixels(pixels),
        thumbnails(pixels) if small else None,
        LABELS[: len(pixels)],
        TEST[: len(pixels)],
        everything if informative is None else informative,
    )


def test_images_that_differ_have_no_copies():
    assert found(stack(pictures())).pairs == ()


def test_the_same_pixels_in_another_class_and_across_the_split_are_named():
    pixels = stack(pictures())
    pixels[2] = pixels[0]  # another class, both to train on
    pixels[1] = pixels[4]  # one class, one of them to test on
    copies = found(pixels, small=False)
    assert {(x.first, x.second, x.exact, x.classes, x.split) for x in copies.pairs} == {
        (0, 2, True, True, False),
        (1, 4, True, False, True),
    }
    assert (copies.in_classes, copies.in_split) == (2, 2)


def test_a_pair_stands_for_all_copies_of_a_class_and_all_of_them_are_counted():
    pixels = stack(pictures())
    pixels[4] = pixels[2] = pixels[5] = pixels[0]
    copies = found(pixels, small=False)
    assert len(copies.pairs) == 1
    assert (copies.in_classes, copies.in_split) == (4, 0)


def test_copies_in_one_class_on_one_side_mislead_nobody():
    pixels = stack(pictures())
    pixels[4] = pixels[0]
    assert found(pixels).pairs == ()


def _jpeg(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    return Image.open(file)


@pytest.mark.parametrize(
    "change",
    [
        _jpeg,
        lambda image: image.resize((64, 64), Image.Resampling.BILINEAR).resize((32, 32)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.8),
        lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    ],
    ids=["encoded anew", "resized", "darker", "less contrast"],
)
def test_an_image_that_was_saved_anew_is_nearly_the_same(change):
    images = pictures()
    images[2] = change(images[0])
    (pair,) = found(stack(images)).pairs
    assert (pair.first, pair.second, pair.exact, pair.classes) == (0, 2, False, True)


def test_an_image_that_was_turned_round_is_another_one():
    images = pictures()
    images[2] = images[0].rotate(90)
    assert found(stack(images)).pairs == ()


def test_what_is_nearly_the_same_is_the_correlation_of_the_thumbnails():
    pixels = stack(pictures(400, seed=1))
    noise = torch.from_numpy(np.random.default_rng(2).normal(0, 12, pixels.shape[1:]))
    pixels[2] = (pixels[0] + noise).clamp(0, 255).to(torch.uint8)
    r = np.corrcoef(thumbnails(pixels[:3]).numpy())[0, 2]
    labels, test = torch.arange(400) % 2, torch.zeros(400, dtype=torch.bool)
    labels[2] = 1
    everything = torch.ones(400, dtype=torch.bool)
    digests = _digests.of_pixels(pixels)
    copies = find_copies(digests, thumbnails(pixels), labels, test, everything)
    assert ([(x.first, x.second) for x in copies.pairs] == [(0, 2)]) == (r >= ALIKE)
    assert copies.in_classes == 2 * (r >= ALIKE)


def test_images_of_one_colour_and_nearly_so_are_no_copies():
    pixels = torch.full((6, 1, 32, 32), 7, dtype=torch.uint8)
    assert found(pixels, informative=torch.zeros(6, dtype=torch.bool)).pairs == ()
    pixels[:, 0, 0] += torch.arange(6, dtype=torch.uint8)[:, None]
    assert found(pixels).pairs == ()


def test_colours_count_by_their_brightness():
    grey = stack(pictures(2))
    colour = grey.expand(-1, 3, -1, -1)
    assert torch.allclose(thumbnails(colour), thumbnails(grey), atol=0.1)
