"""Every training image in several versions, drawn once for a task from its own stream."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch.nn import functional as F

from metaloss.core.streams import Stream
from metaloss.data.episodes import Images, Tasks, draw, padded_size
from metaloss.data.noise import Noise
from metaloss.data.shapes import LongTail
from metaloss.data.sizes import EpisodeShape
from metaloss.data.versions import KINDS, TaskAugment, TaskAugmentation, check_size
from metaloss.errors import SettingsError

CLASSES = 5
EACH = 12
# Class c holds the rows 100 c ... 100 c + 11.
POOL = tuple(torch.arange(EACH) + 100 * c for c in range(CLASSES))
# Of mean 0 and deviation 1, so that what is normalised are the pixels themselves.
IMAGES = Images(Stream(0).integers(256, 100 * CLASSES, 1, 6, 5).to(torch.uint8), 0.0, 1.0)
KEYS = [Stream(1).at("task", t) for t in range(12)]
SIZES = {"pad": 1, "patch": 2}
SHAPES = {
    "even": EpisodeShape(3, 2, 4),
    "noise": EpisodeShape(3, 4, 4, Noise("symmetric", (0.1, 0.9))),
    "uneven": EpisodeShape(3, (1, 7), 4),
    "long tail": EpisodeShape(4, LongTail(6, 1), 3),
}
shapes = pytest.mark.parametrize("name", SHAPES)
kinds = pytest.mark.parametrize("kind", KINDS)


def augmented(shape, kind="shift", copies=3, **more):
    return replace(shape, augment=TaskAugment(kind=kind, copies=copies, **{**SIZES, **more}))


def drawn(shape, keys=KEYS):
    return draw(IMAGES, POOL, shape, keys)


def own(tasks, t):
    """One task, without the rows that pad it."""
    one = tasks[t : t + 1]
    rows = one.train.rows.shape[1] if one.train.count is None else int(one.train.count)
    return Tasks(one.train.cut(rows), one.val, one.classes)


# --- what is drawn ---


@shapes
@kinds
def test_the_versions_of_an_image_lie_side_by_side_and_share_its_label(name, kind):
    plain = drawn(SHAPES[name])
    tasks = drawn(augmented(SHAPES[name], kind))
    for t in range(len(KEYS)):
        one, other = own(tasks, t).train, own(plain, t).train
        assert torch.equal(one.rows, other.rows.repeat_interleave(3, 1))
        assert torch.equal(one.label, other.label.repeat_interleave(3, 1))


@shapes
def test_draws_without_versions_stay_as_they_were(name):
    plain = drawn(SHAPES[name])
    tasks = drawn(augmented(SHAPES[name]))
    for half, again in ((plain.train, tasks.train.originals), (plain.val, tasks.val)):
        assert torch.equal(half.rows, again.rows)
        assert torch.equal(half.label, again.label)
        assert torch.equal(half.x(), again.x())
    if plain.train.count is not None:
        assert torch.equal(plain.train.count, tasks.train.originals.count)
    assert torch.equal(plain.classes, tasks.classes)


@kinds
def test_the_first_version_is_the_image_and_the_others_are_changed(kind):
    train = drawn(augmented(SHAPES["even"], kind, copies=4)).train
    x = train.x().unflatten(1, (-1, 4))  # [T B V K H W]
    image = train.originals.x()
    assert torch.equal(x[:, :, 0], image)
    assert (x[:, :, 1:] != image[:, :, None]).flatten(3).any(-1).float().mean() > 0.8
    # Versions differ from each other, in a task and between tasks.
    assert (x[:, :, 1] != x[:, :, 2]).flatten(2).any(-1).float().mean() > 0.8


def windows(image, pad):
    """Every crop that an image may become."""
    height, width = image.shape[-2:]
    padded = F.pad(image, (pad,) * 4)
    starts = [(y, x) for y in range(2 * pad + 1) for x in range(2 * pad + 1)]
    return [padded[:, y : y + height, x : x + width] for y, x in starts]


def test_shifted_versions_are_windows_of_the_padded_image():
    train = drawn(augmented(SHAPES["even"], pad=2)).train
    pairs = zip(train.x().flatten(0, 1), train.rows.flatten(), strict=True)
    for version, row in pairs:
        assert any(torch.equal(version, x) for x in windows(IMAGES.pixels[row].float(), 2))


def test_base_mirrors_and_shift_does_not():
    def mirrored(kind):
        train = drawn(augmented(SHAPES["even"], kind, copies=8)).train
        pairs = zip(train.x().flatten(0, 1), train.rows.flatten(), strict=True)
        return sum(
            any(torch.equal(version.flip(-1), x) for x in windows(IMAGES.pixels[row].float(), 1))
            for version, row in pairs
        )

    assert mirrored("shift") == 0
    assert mirrored("base") > 100


@shapes
@kinds
def test_a_task_depends_on_its_own_key_alone_bit_for_bit(name, kind):
    tasks = drawn(augmented(SHAPES[name], kind))
    x, target = tasks.train.x(), tasks.train.target
    for t in (0, 5, 11):
        alone = drawn(augmented(SHAPES[name], kind), [KEYS[t]]).train
        rows = own(tasks, t).train.rows.shape[1]
        assert torch.equal(alone.x()[0, :rows], x[t, :rows])
        assert torch.equal(alone.target[0, :rows], target[t, :rows])
    some = tasks[torch.tensor([7, 2])].train
    assert torch.equal(some.x(), x[[7, 2]])
    assert torch.equal(tasks[3:5].train.x(), x[3:5])
    assert torch.equal(tasks.train.x(), x), "drawn once, not at every look"


def test_torch_s_own_generator_has_no_part_in_it():
    train = drawn(augmented(SHAPES["even"], "all")).train
    torch.manual_seed(0)
    one = train.x()
    state = torch.get_rng_state()
    assert torch.equal(train.x(), one)
    assert torch.equal(torch.get_rng_state(), state)


# --- tasks of unlike sizes ---


def test_rows_that_pad_a_task_are_versions_of_its_first_image_and_are_marked():
    train = drawn(augmented(SHAPES["uneven"])).train
    assert len(train.count.unique()) > 3
    assert (train.count % 3 == 0).all()
    assert train.rows.shape[1] == 3 * padded_size(int(train.count.max()) // 3)
    for rows, label, count, weight in zip(
        train.rows, train.label, train.count, train.weight, strict=True
    ):
        assert set(rows[count:].tolist()) <= {int(rows[0])}
        assert set(label[count:].tolist()) <= {int(label[0])}
        assert weight.tolist() == [1] * int(count) + [0] * (len(rows) - int(count))


def test_a_task_s_size_in_memory_is_that_of_its_images_times_the_versions():
    plain = drawn(SHAPES["uneven"]).by_size()
    groups = drawn(augmented(SHAPES["uneven"])).by_size()
    assert len(groups) > 2
    for (places, one), (same, other) in zip(plain, groups, strict=True):
        assert torch.equal(places, same)
        assert other.train.rows.shape[1] == 3 * one.train.rows.shape[1]


# --- labels ---


@shapes
@kinds
def test_every_image_counts_once_in_the_prior(name, kind):
    plain = drawn(SHAPES[name]).train
    train = drawn(augmented(SHAPES[name], kind)).train
    assert torch.equal(train.class_counts, plain.class_counts)
    assert torch.equal(train[2:4].class_counts, plain.class_counts[2:4])


@given(
    seed=st.integers(0, 10_000),
    copies=st.integers(2, 6),
    alpha=st.floats(0.1, 10),
    name=st.sampled_from(sorted(SHAPES)),
    kind=st.sampled_from(["mixup", "all"]),
)
@settings(max_examples=40)
def test_mixed_labels_are_distributions_of_two_classes_and_the_image_keeps_its_own(
    seed, copies, alpha, name, kind
):
    shape = augmented(SHAPES[name], kind, copies, alpha=alpha)
    train = own(drawn(shape, [Stream(seed)]), 0).train
    target = train.target[0].unflatten(0, (-1, copies))
    torch.testing.assert_close(target.sum(-1), torch.ones(target.shape[:2]))
    assert (target >= 0).all()
    assert ((target > 0).sum(-1) <= 2).all()
    assert torch.equal(target[:, 0], F.one_hot(train.originals.label[0], target.shape[-1]).float())


def test_mixed_images_are_mixed_as_their_labels_are():
    """Images of one colour, which says the class: what is mixed can be read off the pixels."""
    pixels = torch.zeros(500, 1, 6, 5, dtype=torch.uint8)
    for c, rows in enumerate(POOL):
        pixels[rows] = 50 * c + 20
    shape = augmented(EpisodeShape(5, 2, 1), "mixup", 6, pad=0, flip=False)
    tasks = draw(Images(pixels, 0.0, 1.0), POOL, shape, KEYS)
    x, target = tasks.train.x(), tasks.train.target
    colour = 50.0 * tasks.classes + 20  # [T C]
    expected = (target * colour[:, None]).sum(-1)
    torch.testing.assert_close(x[..., 0, 0, 0], expected, rtol=1e-4, atol=1e-3)
    assert (target.max(-1).values < 1).float().mean() > 0.5


def test_no_version_is_mixed_with_its_own_image():
    # Two images, of one class each: every changed version holds both classes.
    target = drawn(augmented(EpisodeShape(2, 1, 1), "mixup", 20)).train.target
    changed = target.unflatten(1, (2, 20))[:, :, 1:]
    assert (changed > 0).all()
    # Shares are uniform for alpha = 1, and each version draws its own.
    share = changed[..., 0].flatten()
    assert abs(float(share.mean()) - 0.5) < 0.05
    assert abs(float(share.std()) - 12**-0.5) < 0.04


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("mixup", "all")])
def test_other_kinds_keep_labels_hard(kind):
    train = drawn(augmented(SHAPES["noise"], kind)).train
    assert torch.equal(train.target, F.one_hot(train.label, 3).float())


# --- settings ---


AUGMENT = TypeAdapter(TaskAugmentation)


def test_a_table_or_a_kind_is_read():
    table = {"kind": "shift", "pad": 1, "copies": 4}
    read = AUGMENT.validate_python(table)
    assert read == TaskAugment(kind="shift", pad=1, copies=4)
    assert AUGMENT.validate_python(AUGMENT.dump_python(read, mode="json")) == read
    assert AUGMENT.validate_python("base") == TaskAugment(kind="base", copies=8, all=False)
    assert AUGMENT.validate_python(None) is None
    assert str(read) == "4 versions of every image (shift)"


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (8, 'expected { kind = "shift", copies = 8 }, got 8'),
        ({"copies": 8}, "kind: Field required"),
        ("shfit", "kind: unknown augmentation 'shfit'. Did you mean 'shift'?"),
        ("none", "kind: unknown augmentation 'none'."),
        ({"kind": "shift", "copy": 8}, "unknown setting 'copy'. Did you mean 'copies'?"),
        ({"kind": "shift", "copies": 1}, "copies: expected a whole number of at least 2"),
        ({"kind": "shift", "copies": 0}, "of at least 2, the image itself and one that is"),
        ({"kind": "shift", "copies": 2.5}, "is changed, got 2.5"),
        ({"kind": "shift", "pad": 0}, "pad = 0 shifts nothing; it must be at least 1"),
        ({"kind": "base", "scale": [1, 2]}, "unknown setting 'scale'"),
    ],
    ids=str,
)
def test_one_line_says_what_versions_may_not_be(value, line):
    with pytest.raises(ValidationError) as caught:
        AUGMENT.validate_python(value)
    (error,) = caught.value.errors()
    assert line in error["msg"]


@pytest.mark.parametrize(
    ("augment", "line"),
    [
        (TaskAugment(kind="shift", pad=5), "pad = 5 must be below the side of the images"),
        (TaskAugment(kind="cutout", pad=1), "patch = 16 must be below the side of the images"),
        (TaskAugment(kind="all", pad=1, patch=4), ""),
        (TaskAugment(kind="mixup", pad=4, patch=16), ""),
    ],
    ids=str,
)
def test_what_would_leave_nothing_of_an_image_is_refused(augment, line):
    if not line:
        check_size(augment, 6, 5)
        return
    with pytest.raises(SettingsError, match=f"{line}, which are 6x5 pixels"):
        check_size(augment, 6, 5)
