"""A view changes what classifiers see of every image alike, and nothing else."""

import pytest
import torch

from metaloss.core.streams import Stream
from metaloss.data.views import PixelView
from metaloss.errors import SettingsError

KEYS = [Stream(5).at("task", t) for t in range(3)]


def seen(opened):
    tasks = opened.sample(KEYS)
    return tasks.train.x(), tasks.val.x()


def test_every_image_has_its_pixels_in_the_same_other_order(open_tiny):
    plain = torch.cat(seen(open_tiny()), 1).flatten(2)
    permuted = torch.cat(seen(open_tiny(view={"permutation": 3})), 1).flatten(2)
    order = Stream(3).at("pixels").permutation(36)
    assert torch.equal(permuted, plain[..., order])
    assert not torch.equal(permuted, plain)
    assert order.sort().values.tolist() == list(range(36))


def test_seeds_give_orders_of_their_own(open_tiny):
    one, same, other = (seen(open_tiny(view={"permutation": s}))[1] for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_inverted_images_are_what_inverted_pixels_would_be_normalised_to(open_tiny):
    inverted = open_tiny(view={"inverted": True})
    rows = torch.tensor([[0, 5, 9]])
    images = inverted.images
    pixels = 255 - images.pixels[rows[0]].double()
    # Turned over, the mean is turned over and the deviation stays.
    expected = (pixels - (255 - images.mean)) / images.std
    torch.testing.assert_close(images.at(rows)[0].double(), expected, rtol=1e-5, atol=1e-5)


def test_the_colours_of_a_pixel_stay_together():
    images = torch.arange(2.0 * 3 * 4).view(1, 3, 2, 4) % 8
    assert torch.equal(*(PixelView(permutation=1).of(images)[0, c] for c in (0, 2)))


def test_augmented_versions_are_shown_in_the_view_too(open_tiny):
    augment = {"kind": "shift", "copies": 3, "pad": 1}
    plain = seen(open_tiny(augment=augment))[0]
    shown = seen(open_tiny(augment=augment, view={"permutation": 4, "inverted": True}))[0]
    order = Stream(4).at("pixels").permutation(36)
    assert torch.equal(shown.flatten(2), -plain.flatten(2)[..., order])


def test_images_and_what_is_known_of_them_stay_as_they_are(open_tiny):
    plain, shown = open_tiny(), open_tiny(view={"inverted": True})
    assert shown.dataset is plain.dataset
    assert shown.fingerprints() == plain.fingerprints()
    assert torch.equal(shown.sample(KEYS).train.rows, plain.sample(KEYS).train.rows)


def test_a_view_that_changes_nothing_is_none(open_tiny):
    assert open_tiny(view={"inverted": False}).family == open_tiny().family
    assert "inverted" in open_tiny(view={"inverted": True}).family.describe()


@pytest.mark.parametrize(
    ("view", "words"),
    [(True, "expected { permutation"), ({"turned": 1}, "turned"), ({"permutation": -1}, "-1")],
)
def test_what_is_no_view_is_refused_in_words(open_tiny, view, words):
    with pytest.raises(SettingsError, match=words):
        open_tiny(view=view)
