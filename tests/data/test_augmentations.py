"""Augmentations do what they say to each image, and draw the same from the same seed."""

import pytest
import torch
from torch.nn import functional as F

from metaloss.data import augmentations
from metaloss.data.augmentations import OPERATIONS, crop, cutout, mixed, rand_augment, raw
from metaloss.training.settings import AUGMENTATIONS, Augment


def images(n=5, channels=3, size=8):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, channels, size, size), generator=draw, dtype=torch.uint8)


def windows(image, pad):
    """Every crop that an image may become, mirrored ones too."""
    size = image.shape[-1]
    padded = F.pad(image, (pad,) * 4)
    places = [
        padded[:, y : y + size, x : x + size]
        for y in range(2 * pad + 1)
        for x in range(2 * pad + 1)
    ]
    return places, [place.flip(-1) for place in places]


def test_a_crop_is_a_window_of_the_padded_image_and_each_image_has_its_own():
    torch.manual_seed(0)
    given = images(40)
    found = crop(given, 2, flip=True)
    plain = mirrored = 0
    for before, after in zip(given, found, strict=True):
        one, other = windows(before, 2)
        plain += any(torch.equal(after, x) for x in one)
        mirrored += any(torch.equal(after, x) for x in other)
    assert plain + mirrored == 40
    assert min(plain, mirrored) > 8


def test_without_flip_nothing_is_mirrored():
    torch.manual_seed(0)
    given = images(20)
    assert all(
        any(torch.equal(after, x) for x in windows(before, 1)[0])
        for before, after in zip(given, crop(given, 1, flip=False), strict=True)
    )


def test_cutout_sets_one_square_to_the_mean():
    torch.manual_seed(0)
    holes = cutout(torch.ones(200, 2, 9, 9), 4) == 0
    assert torch.equal(holes[:, 0], holes[:, 1])
    rows = holes[:, 0].any(2).sum(1)
    columns = holes[:, 0].any(1).sum(1)
    assert torch.equal(holes[:, 0].sum((1, 2)), rows * columns)
    assert (int(rows.max()), int(rows.min())) == (4, 2)


def test_mixup_mixes_labels_as_it_mixes_images():
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 2])
    pictures = F.one_hot(labels, 3)[:, :, None, None].float()
    found, soft = mixed(pictures, labels, 3, Augment(kind="mixup"))
    assert torch.allclose(soft.sum(1), torch.ones(3))
    assert torch.allclose(found[:, :, 0, 0], soft)
    assert 0 < float(soft.max()) < 1


@pytest.mark.parametrize("kind", ["none", "base", "cutout", "randaug"])
def test_labels_stay_numbers_without_mixup(kind):
    labels = torch.tensor([0, 1, 2])
    assert torch.equal(
        mixed(torch.rand(3, 1, 8, 8), labels, 3, Augment(kind=kind, patch=2))[1], labels
    )


def test_none_leaves_images_alone():
    given = images()
    assert raw(given, Augment()) is given


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("number", range(len(OPERATIONS)))
def test_each_operation_of_rand_augment_is_torchvision_s(number, channels):
    from torchvision.transforms.v2 import RandAugment

    theirs = RandAugment()
    ours = OPERATIONS[number]
    name, (magnitudes, signed) = list(theirs._AUGMENTATION_SPACE.items())[number]
    table = magnitudes(31, 8, 8)
    strength = 0.0 if table is None else float(table[9])
    expected = theirs._apply_image_or_video_transform(
        images(4, channels), name, strength, "nearest", {}
    )
    assert signed == ours[1]
    difference = ours[0](images(4, channels), 9 / 30).int() - expected.int()
    assert int(difference.abs().max()) <= (1 if number in (6, 7, 8, 9) else 0), (
        "factors differ in their last digit"
    )


def test_rand_augment_gives_each_image_its_own_operations(monkeypatch):
    torch.manual_seed(1)
    add = [(lambda x, s, k=k: x + k, False) for k in (1, 2)]
    monkeypatch.setattr(augmentations, "OPERATIONS", tuple(add))
    found = (
        rand_augment(torch.zeros(200, 1, 1, 1, dtype=torch.uint8), 2, 9)
        .flatten()
        .bincount()
        .tolist()
    )
    assert found[:2] == [0, 0]
    assert len(found) == 5
    assert 70 < found[3] < 130


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_a_seed_repeats_a_batch(kind):
    augment = Augment(kind=kind, patch=3, pad=1)
    labels = torch.arange(5)

    def run(seed):
        torch.manual_seed(seed)
        return mixed(raw(images(), augment).float(), labels, 5, augment)

    (one, soft), (same, again), (other, _) = run(1), run(1), run(2)
    assert torch.equal(one, same)
    assert torch.equal(soft, again)
    assert (kind == "none") == torch.equal(one, other)


def test_the_images_that_are_given_stay_as_they_were():
    given = images()
    kept = given.clone()
    raw(given, Augment(kind="all"))
    assert torch.equal(given, kept)
