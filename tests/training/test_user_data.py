"""Images that a caller hands over: arrays, sets of pairs, two of them, and what is none."""

import numpy as np
import pytest
import torch
from PIL import Image

from metaloss.errors import DataError
from metaloss.training.images import open_images
from metaloss.training.settings import resolve
from metaloss.training.user_data import as_dataset


def test_arrays_are_taken_as_bytes_or_as_numbers_from_0_to_1(shapes):
    images = shapes.pixels
    labels = shapes.labels
    for given in ((images, labels), (images[:, 0].numpy(), labels.numpy()), (images / 255, labels)):
        found = as_dataset(given)
        assert torch.equal(found.pixels, images)
        assert torch.equal(found.labels, labels)
        assert found.classes == ("0", "1", "2", "3")
        assert not found.test.any()


class Pairs:
    """A data set as torchvision's are."""

    def __init__(self, shapes, rows, names=None, wrap=lambda x: x):
        self.shapes = shapes
        self.rows = rows
        self.wrap = wrap
        if names:
            self.classes = names

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.wrap(self.shapes.pixels[self.rows[i], 0].numpy()), int(
            self.shapes.labels[self.rows[i]]
        )


@pytest.mark.parametrize(
    "wrap", [Image.fromarray, torch.from_numpy, np.asarray], ids=["pillow", "tensor", "array"]
)
def test_data_sets_of_pairs_are_taken(shapes, wrap):
    found = as_dataset(Pairs(shapes, range(120), ["w", "x", "y", "z"], wrap))
    assert torch.equal(found.pixels, shapes.pixels)
    assert found.classes == ("w", "x", "y", "z")


def test_two_data_sets_are_one_to_train_and_one_to_test_on(shapes):
    found = as_dataset((Pairs(shapes, range(90)), Pairs(shapes, range(90, 120))))
    assert torch.equal(found.test, shapes.test)
    assert torch.equal(found.pixels, shapes.pixels)


def test_a_data_set_of_ours_is_taken_as_it_is(shapes):
    assert as_dataset(shapes) is shapes
    assert open_images(resolve({}), torch.device("cpu"), shapes).dataset is shapes


def test_labels_may_be_names_lists_or_whole_floats(shapes):
    numbers = shapes.labels.tolist()
    for labels in (
        numbers,
        shapes.labels.to(torch.uint8),
        shapes.labels.double(),
        np.array(numbers, dtype=object),
    ):
        assert torch.equal(as_dataset((shapes.pixels, labels)).labels, shapes.labels)
    names = np.array(["cat", "ant", "dog", "bee"])[numbers]
    for labels in (names, names.tolist(), names.astype(object)):
        found = as_dataset((shapes.pixels.numpy(), labels))
        assert found.classes == ("ant", "bee", "cat", "dog")
        assert [found.classes[i] for i in found.labels.tolist()] == names.tolist()


def test_names_are_the_same_classes_in_both_data_sets(shapes):
    def pairs(rows):
        return [(shapes.pixels[i], "wxyz"[shapes.labels[i]]) for i in rows]

    found = as_dataset((pairs(range(90)), pairs(range(91, 120, 4))))
    assert found.classes == tuple("wxyz")
    assert found.labels.tolist() == shapes.labels[[*range(90), *range(91, 120, 4)]].tolist()


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_may_come_last(shapes, channels):
    first = shapes.pixels.expand(-1, channels, -1, -1)
    last = first.permute(0, 2, 3, 1)
    pairs = [(x, y) for x, y in zip(last.numpy(), shapes.labels.tolist(), strict=True)]
    for given in ((last, shapes.labels), (last / 255, shapes.labels), pairs):
        assert torch.equal(as_dataset(given).pixels, first)


def test_pairs_may_be_arrays_with_channels_first(shapes):
    pairs = [(x.numpy(), int(y)) for x, y in zip(shapes.pixels, shapes.labels, strict=True)]
    assert torch.equal(as_dataset(pairs).pixels, shapes.pixels)


def test_pillow_images_that_are_transparent_are_laid_on_white():
    images = [Image.new("RGBA", (4, 4), (0, 0, 0, alpha)) for alpha in (0, 255, 255)]
    found = as_dataset([(image, i) for i, image in enumerate(images)]).pixels
    assert (found[0] == 255).all()
    assert (found[1] == 0).all()
    assert found.shape == (3, 3, 4, 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "data: found int, expected a name"),
        ((torch.randn(4, 8, 8), torch.arange(4)), "expected 0 to 1, or bytes"),
        (
            (torch.zeros(4, 8, 8), torch.arange(3)),
            "labels: found torch.int64 [3], expected torch.int64 [4]",
        ),
        ((np.zeros((0, 8, 8)), []), "labels: found none, expected at least 1"),
        ((np.zeros((0, 8, 8)), [1]), "images: found none (0x8x8), expected at least 1"),
        ([], "images: found none, expected at least 1"),
        (
            (torch.zeros(2, 8, 8), [0.0, 1.7]),
            "labels: found 1.7, expected whole numbers from 0, or names alone",
        ),
        ((torch.zeros(2, 8, 8), [0.0, np.nan]), "labels: found nan, expected whole numbers"),
        (
            (torch.zeros(2, 8, 8), np.array(["a", 1], dtype=object)),
            "labels: found 'a', expected whole numbers",
        ),
        (
            (torch.zeros(2, 8, 8), np.eye(2)),
            "labels: found 2x2, expected one an image; of one-hot rows take argmax(1)",
        ),
        ((torch.zeros(2, 8, 8), [-1, 0]), "labels: found -1, expected 0 to"),
        ((torch.zeros(2, 3, 8, 3), [0, 1]), "found 2x3x8x3, which may be [N K H W] or [N H W K]"),
        (
            (torch.zeros(2, 8, 8, 4), [0, 1]),
            "found 2x8x8x4, which looks like [N H W K] with 4 channels",
        ),
        ((torch.zeros(2, 8), [0, 1]), "found 2x8, expected [N H W], [N K H W] or [N H W K]"),
        ((torch.full((2, 8, 8), 256), [0, 1]), "images: found 256 to 256, expected bytes"),
        (([1, 2], [0, 1]), "found int where a pair of an image and its label was expected"),
    ],
)
def test_what_is_no_data_is_one_line(given, message):
    with pytest.raises(DataError) as caught:
        as_dataset(given)
    assert message in str(caught.value)
