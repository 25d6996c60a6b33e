"""Images that a caller hands over: arrays, sets of pairs, two of them; and what is none of these."""

import numpy as np
import pytest
import torch
from PIL import Image

from metaloss.errors import DataError
from metaloss.training.given import taken
from metaloss.training.images import opened
from metaloss.training.settings import resolve


def test_arrays_are_taken_as_bytes_or_as_numbers_from_0_to_1(shapes):
    images, labels = shapes.pixels, shapes.labels
    for given in ((images, labels), (images[:, 0].numpy(), labels.numpy()), (images / 255, labels)):
        found = taken(given)
        assert torch.equal(found.pixels, images) and torch.equal(found.labels, labels)
        assert found.classes == ("0", "1", "2", "3") and not found.test.any()


class Pairs:
    """A data set as torchvision's are."""

    def __init__(self, shapes, rows, names=None, wrap=lambda x: x):
        self.shapes, self.rows, self.wrap = shapes, rows, wrap
        if names:
            self.classes = names

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.wrap(self.shapes.pixels[self.rows[i], 0].numpy()), int(self.shapes.labels[self.rows[i]])


@pytest.mark.parametrize("wrap", [Image.fromarray, torch.from_numpy, np.asarray], ids=["pillow", "tensor", "array"])
def test_data_sets_of_pairs_are_taken(shapes, wrap):
    found = taken(Pairs(shapes, range(120), ["w", "x", "y", "z"], wrap))
    assert torch.equal(found.pixels, shapes.pixels) and found.classes == ("w", "x", "y", "z")


def test_two_data_sets_are_one_to_train_and_one_to_test_on(shapes):
    found = taken((Pairs(shapes, range(90)), Pairs(shapes, range(90, 120))))
    assert torch.equal(found.test, shapes.test) and torch.equal(found.pixels, shapes.pixels)


def test_a_data_set_of_ours_is_taken_as_it_is(shapes):
    assert taken(shapes) is shapes
    assert opened(resolve({}), torch.device("cpu"), shapes).dataset is shapes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "data: found int, expected a name"),
        ((torch.randn(4, 8, 8), torch.arange(4)), "expected 0 to 1, or bytes"),
        ((torch.zeros(4, 8, 8), torch.arange(3)), "labels: found torch.int64 [3], expected torch.int64 [4]"),
    ],
)
def test_what_is_no_data_is_one_line(given, message):
    with pytest.raises(DataError) as caught:
        taken(given)
    assert message in str(caught.value)
