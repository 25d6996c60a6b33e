"""Episodes have the right number of images of the right classes, none of them twice.

Each task is a function of its key.
"""

import pytest
import torch

from metaloss.core.streams import Stream
from metaloss.data.episodes import EpisodeShape, Images, draw

CLASSES = 5
EACH = 12
# Class c holds the rows 100 c ... 100 c + 11.
POOL = tuple(torch.arange(EACH) + 100 * c for c in range(CLASSES))
IMAGES = Images(
    Stream(0).integers(256, 100 * CLASSES, 1, 2, 3).to(torch.uint8), mean=100.0, std=50.0
)
SHAPE = EpisodeShape(ways=3, shots=2, val=4)
KEYS = [Stream(1).at("task", t) for t in range(30)]


def drawn(shape=SHAPE, keys=KEYS):
    return draw(IMAGES, POOL, shape, keys)


def equal(one, other):
    return all(
        torch.equal(getattr(getattr(one, half), field), getattr(getattr(other, half), field))
        for half in ("train", "val")
        for field in ("rows", "label")
    )


def test_every_class_of_a_task_has_as_many_images_as_asked_for():
    tasks = drawn()
    assert len(tasks) == 30
    assert tasks.ways == 3
    for half, n in ((tasks.train, 2), (tasks.val, 4)):
        for label in half.label:
            assert label.bincount(minlength=3).tolist() == [n, n, n]


def test_a_label_means_one_class_in_training_and_validation_alike():
    tasks = drawn()
    for t in range(len(tasks)):
        meaning = {
            (int(label), int(row) // 100)
            for half in (tasks.train, tasks.val)
            for label, row in zip(half.label[t], half.rows[t], strict=True)
        }
        assert (
            len(meaning)
            == len({label for label, _ in meaning})
            == len({c for _, c in meaning})
            == 3
        )


def test_a_label_means_other_classes_in_other_tasks():
    tasks = drawn()
    assert {int(rows[0]) // 100 for rows in tasks.val.rows} == set(range(CLASSES))


def test_no_image_occurs_twice_in_a_task():
    tasks = drawn(EpisodeShape(ways=5, shots=4, val=EACH - 4))
    rows = torch.cat([tasks.train.rows, tasks.val.rows], 1)
    for row in rows:
        assert row.sort().values.tolist() == torch.cat(POOL).tolist()


def test_validation_images_may_come_from_images_of_their_own():
    seen, held_out = (tuple(rows[part] for rows in POOL) for part in (slice(3), slice(3, EACH)))
    tasks = draw(IMAGES, seen, EpisodeShape(ways=3, shots=3, val=4), KEYS, held_out)
    assert set(tasks.train.rows.flatten().tolist()) == set(torch.cat(seen).tolist())
    assert set(tasks.val.rows.flatten().tolist()) == set(torch.cat(held_out).tolist())
    for train, val in zip(tasks.train.rows // 100, tasks.val.rows // 100, strict=True):
        assert train[::3].tolist() == val[::4].tolist(), "a label means one class in both"
        assert all(len(row.unique()) == 3 for row in (train, val))


def test_every_image_of_the_pool_is_drawn_equally_often_and_no_other():
    tasks = drawn(keys=[Stream(2).at(t) for t in range(400)])
    for half, expected in ((tasks.train, 40), (tasks.val, 80)):
        rows, counts = half.rows.unique(return_counts=True)
        assert rows.tolist() == torch.cat(POOL).tolist()
        assert ((counts - expected).abs() < 4 * expected**0.5).all()


def test_images_of_different_classes_are_drawn_independently():
    for rows in drawn().val.rows[:10]:
        first, *others = (rows % 100).reshape(3, 4).tolist()
        assert first not in others


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_a_task_depends_on_its_own_key_alone(noise):
    shape = EpisodeShape(3, 2, 4, noise)
    together = drawn(shape)
    for t in (0, 7, 29):
        assert equal(drawn(shape, [KEYS[t]]), together[t : t + 1])
    assert equal(drawn(shape, KEYS[::-1])[3:4], together[26:27])


def test_fewer_validation_images_leave_the_training_images_as_they_were():
    few = drawn(EpisodeShape(ways=3, shots=2, val=1))
    assert torch.equal(few.train.rows, drawn().train.rows)


@pytest.mark.parametrize(
    ("noise", "wrong"), [(0.0, 0), (0.1, 1), (0.25, 3), (0.5, 6), (0.9, 11), (1.0, 12)]
)
def test_noise_replaces_its_share_of_the_training_labels_by_others(noise, wrong):
    clean = drawn(EpisodeShape(3, 4, 4))
    noisy = drawn(EpisodeShape(3, 4, 4, noise))
    differs = noisy.train.label != clean.train.label
    assert (differs.sum(1) == wrong).all()
    assert noisy.train.label.min() >= 0
    assert noisy.train.label.max() <= 2
    assert torch.equal(noisy.train.rows, clean.train.rows)
    assert torch.equal(noisy.val.label, clean.val.label)


def test_noise_falls_on_all_images_and_all_other_classes():
    shape = EpisodeShape(3, 2, 1, 0.5)
    keys = [Stream(3).at(t) for t in range(100)]
    label = drawn(shape, keys).train.label
    clean = torch.tensor([0, 0, 1, 1, 2, 2])
    for image in range(6):
        assert set(label[:, image].tolist()) == {0, 1, 2}
    share = (label != clean).float().mean(0)
    assert share.min() > 0.3
    assert share.max() < 0.7


def test_noise_between_two_classes_swaps_the_label():
    assert drawn(EpisodeShape(2, 1, 1, 1.0)).train.label.unique(dim=0).tolist() == [[1, 0]]


def test_images_come_normalised_in_the_order_of_the_labels():
    half = drawn().train
    x = half.x()
    assert x.shape == (30, 6, 1, 2, 3)
    torch.testing.assert_close(x[4, 5], (IMAGES.pixels[half.rows[4, 5]].float() - 100) / 50)


def test_targets_are_the_labels_as_distributions():
    half = drawn(EpisodeShape(3, 2, 1, 0.5)).train
    assert half.target.shape == (30, 6, 3)
    assert torch.equal(half.target.argmax(-1), half.label)
    assert (half.target.sum(-1) == 1).all()


def test_some_of_the_tasks_can_be_taken():
    some = drawn()[3:5]
    assert len(some) == 2
    assert equal(some, drawn(keys=KEYS[3:5]))
