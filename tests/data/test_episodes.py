"""Episodes have the right number of images of the right classes, none of them twice.

Each task is a function of its key.
"""

import pytest
import torch

from metaloss.core.streams import Stream
from metaloss.data.episodes import Images, Tasks, draw, padded_size
from metaloss.data.noise import Noise
from metaloss.data.shapes import LongTail, ProportionalShots, ProportionalVal
from metaloss.data.sizes import EpisodeShape

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


def own(tasks, t):
    """One task, without the rows that pad it."""
    one = tasks[t : t + 1]
    rows = one.train.rows.shape[1] if one.train.count is None else int(one.train.count)
    return Tasks(one.train.cut(rows), one.val, one.classes)


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


def test_even_tasks_are_those_of_every_earlier_version():
    """Written out anew: runs of the past draw the same images."""
    tasks = drawn()
    for t, key in enumerate(KEYS):
        classes = key.at("classes").permutation(CLASSES)[:3]
        rows = [POOL[c][key.at("images", int(c)).permutation(EACH)[:6]].tolist() for c in classes]
        assert tasks.train.rows[t].tolist() == [x for row in rows for x in row[:2]]
        assert tasks.val.rows[t].tolist() == [x for row in rows for x in row[2:]]
        assert torch.equal(tasks.classes[t], classes)


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


UNEVEN = {
    "even": EpisodeShape(3, 2, 4),
    "noise": EpisodeShape(3, 2, 4, Noise("symmetric", (0.1, 0.9))),
    "pair": EpisodeShape(3, 2, 4, Noise("pair", 0.5)),
    "drawn per task": EpisodeShape(3, (1, 7), 4),
    "long tail": EpisodeShape(4, LongTail(6, 1), 3),
    "long tail, validation too": EpisodeShape(4, LongTail(6, 1), ProportionalVal(mean=3)),
    "as the data": EpisodeShape(
        3, ProportionalShots(share=0.5), ProportionalVal(mean=2), available=(3, 4, 6, 9, 12)
    ),
}


@pytest.mark.parametrize("name", UNEVEN)
def test_a_task_depends_on_its_own_key_alone(name):
    together = drawn(UNEVEN[name])
    for t in (0, 7, 29):
        alone = drawn(UNEVEN[name], [KEYS[t]])
        assert equal(own(alone, 0), own(together, t))
        assert torch.equal(alone.classes[0], together.classes[t])
    assert equal(own(drawn(UNEVEN[name], KEYS[::-1]), 3), own(together, 26))


@pytest.mark.parametrize("name", UNEVEN)
def test_no_image_occurs_twice_in_a_task_of_any_shape(name):
    tasks = drawn(UNEVEN[name])
    for t in range(len(tasks)):
        task = own(tasks, t)
        rows = torch.cat([task.train.rows, task.val.rows], 1)[0]
        assert len(rows.unique()) == len(rows)


@pytest.mark.parametrize("name", [x for x in UNEVEN if x not in ("noise", "pair")])
def test_every_label_is_the_class_that_the_task_names(name):
    tasks = drawn(UNEVEN[name])
    for t in range(len(tasks)):
        for half in (own(tasks, t).train, tasks[t : t + 1].val):
            assert torch.equal(tasks.classes[t][half.label[0]], half.rows[0] // 100)


def test_rows_that_pad_a_task_repeat_its_first_image_and_are_marked():
    tasks = drawn(UNEVEN["drawn per task"])
    train = tasks.train
    assert len(train.count.unique()) > 3
    assert train.rows.shape[1] == padded_size(int(train.count.max()))
    for rows, label, count, weight, counts in zip(
        train.rows, train.label, train.count, train.weight, train.class_counts, strict=True
    ):
        assert set(rows[count:].tolist()) <= {int(rows[0])}
        assert set(label[count:].tolist()) <= {int(label[0])}
        assert weight.tolist() == [1] * int(count) + [0] * (len(rows) - int(count))
        assert counts.tolist() == [int(count) // 3] * 3


def test_tasks_whose_shape_fixes_their_size_are_not_padded():
    for name in ("even", "long tail"):
        assert drawn(UNEVEN[name]).train.count is None
        assert drawn(UNEVEN[name]).train.weight is None


def test_a_task_of_a_shape_that_may_vary_has_its_size_in_memory_from_the_ladder_when_alone():
    train = drawn(EpisodeShape(5, (5, 7), 1), [Stream(9)]).train
    assert train.rows.shape[1] == padded_size(int(train.count))


def test_the_ladder_of_sizes_is_fixed_ascends_and_pads_by_less_than_an_eighth():
    sizes = [padded_size(n) for n in range(1, 3000)]
    assert sizes == sorted(sizes)
    assert sizes[:16] == list(range(1, 17))
    assert [n for n in range(17, 81) if padded_size(n) == n] == [
        *range(18, 33, 2),
        *range(36, 65, 4),
        *(72, 80),
    ]
    assert all(n <= size < n * 9 / 8 for n, size in enumerate(sizes, 1))
    assert all(padded_size(size) == size for size in sizes)


def test_tasks_of_one_size_in_memory_come_together_with_their_places():
    tasks = drawn(UNEVEN["drawn per task"])
    groups = tasks.by_size()
    assert torch.equal(torch.cat([places for places, _ in groups]).sort().values, torch.arange(30))
    for places, group in groups:
        (size,) = (
            {padded_size(n) for n in group.train.count.tolist()}
            if (group.train.count is not None)
            else {group.train.rows.shape[1]}
        )
        assert group.train.rows.shape[1] == size
        for i, t in enumerate(places.tolist()):
            assert equal(own(group, i), own(tasks, t))
            assert torch.equal(group.classes[i], tasks.classes[t])
    ((places, alone),) = drawn().by_size()
    assert torch.equal(places, torch.arange(30))
    assert equal(alone, drawn())


def test_fewer_validation_images_leave_the_training_images_as_they_were():
    few = drawn(EpisodeShape(ways=3, shots=2, val=1))
    assert torch.equal(few.train.rows, drawn().train.rows)


def test_images_come_normalised_in_the_order_of_the_labels():
    half = drawn().train
    x = half.x()
    assert x.shape == (30, 6, 1, 2, 3)
    torch.testing.assert_close(x[4, 5], (IMAGES.pixels[half.rows[4, 5]].float() - 100) / 50)


def test_targets_are_the_labels_as_distributions():
    half = drawn(EpisodeShape(3, 2, 1, Noise("symmetric", 0.5))).train
    assert half.target.shape == (30, 6, 3)
    assert torch.equal(half.target.argmax(-1), half.label)
    assert (half.target.sum(-1) == 1).all()


def test_some_of_the_tasks_can_be_taken():
    some = drawn()[3:5]
    assert len(some) == 2
    assert equal(some, drawn(keys=KEYS[3:5]))
