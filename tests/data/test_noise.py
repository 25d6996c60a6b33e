"""An exact share of the labels is wrong, of the kind that was asked for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from metaloss.core.streams import Stream
from metaloss.data.noise import LabelNoise, Noise, corrupt, nearest_mean_errors

KINDS = ("symmetric", "pair", "confusion")
# Class 0 is taken for 1 alone, 1 for 0 and 2, 2 for all others, 3 for 2 alone.
ERRORS = torch.tensor([[0, 5, 0, 0], [3, 0, 1, 0], [1, 1, 0, 2], [0, 0, 9, 0]], dtype=torch.float64)
kinds = pytest.mark.parametrize("kind", KINDS)


def noisy(label, kind, share, key, ways=4):
    return corrupt(label, ways, Noise(kind, share), key, ERRORS)


@kinds
@given(
    label=st.lists(st.integers(0, 3), min_size=1, max_size=60).map(torch.tensor),
    share=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_an_exact_share_of_the_labels_is_wrong_and_all_are_classes(kind, label, share, seed):
    found = noisy(label, kind, share, Stream(seed))
    assert int((found != label).sum()) == round(share * len(label))
    assert found.min() >= 0
    assert found.max() <= 3


def test_symmetric_noise_is_that_of_every_earlier_version():
    """Written out anew."""
    label = torch.arange(4).repeat_interleave(5)
    for t in range(20):
        key = Stream(4).at("task", t, "noise")
        expected = label.clone()
        wrong = key.at("which").permutation(20)[:7]
        expected[wrong] = (expected[wrong] + 1 + key.at("class").integers(3, 7)) % 4
        assert torch.equal(noisy(label, "symmetric", 0.35, key), expected)


@kinds
def test_noise_falls_on_all_images(kind):
    label = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    found = torch.stack([noisy(label, kind, 0.5, Stream(3).at(t)) for t in range(200)])
    share = (found != label).float().mean(0)
    assert share.min() > 0.35
    assert share.max() < 0.65


def frequencies(kind):
    """How often each class is replaced by each other one, where all labels are wrong."""
    label = torch.arange(4).repeat(500)
    found = noisy(label, kind, 1.0, Stream(8))
    return torch.zeros(4, 4).index_put_((label, found), torch.tensor(1.0), accumulate=True) / 500


def test_symmetric_noise_takes_all_other_classes_alike():
    assert ((frequencies("symmetric") - (1 - torch.eye(4)) / 3).abs() < 0.08).all()


def test_noise_of_pairs_takes_one_other_class_for_each():
    assert torch.equal(frequencies("pair"), torch.eye(4)[[1, 2, 3, 0]])


def test_confusion_takes_other_classes_as_often_as_the_weak_classifier_does():
    expected = ERRORS / ERRORS.sum(1, keepdim=True)
    assert ((frequencies("confusion") - expected).abs() < 0.08).all()
    assert (frequencies("confusion")[expected == 0] == 0).all()


@kinds
def test_noise_between_two_classes_swaps_the_label(kind):
    found = corrupt(torch.tensor([0, 1]), 2, Noise(kind, 1.0), Stream(0), ERRORS[:2, :2])
    assert found.tolist() == [1, 0]


def test_a_share_that_is_drawn_lies_between_its_ends_and_is_uniform():
    label = torch.arange(4).repeat(250)
    shares = torch.tensor(
        [
            float((noisy(label, "symmetric", (0.2, 0.6), Stream(1).at(t)) != label).float().mean())
            for t in range(200)
        ]
    )
    assert shares.min() >= 0.2
    assert shares.max() <= 0.6
    assert abs(float(shares.mean()) - 0.4) < 0.03
    assert float(shares.std()) == pytest.approx(0.4 / 12**0.5, abs=0.02)


def test_errors_are_those_of_the_nearest_mean_and_one_more():
    generator = np.random.default_rng(0)
    images = [generator.normal(c, 1.5, (n, 3)) for c, n in enumerate((40, 30, 20))]
    means = np.stack([x.mean(0) for x in images])
    expected = np.ones((3, 3)) - np.eye(3)
    for c, x in enumerate(images):
        for row in x:
            nearest = int(np.linalg.norm(row - means, axis=1).argmin())
            expected[c, nearest] += c != nearest
    found = nearest_mean_errors([torch.from_numpy(x) for x in images])
    assert found.tolist() == expected.tolist()


NOISE = TypeAdapter(LabelNoise)


def test_a_table_is_read_and_written_as_it_was():
    for table in (
        {"kind": "pair", "share": 0.25},
        {"kind": "symmetric", "share": [0.0, 0.6]},
    ):
        assert NOISE.dump_python(NOISE.validate_python(table), mode="json") == table
    assert NOISE.validate_python(None) is None
    assert NOISE.validate_python(Noise("pair", 1)) == Noise("pair", 1.0)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (0.4, 'expected { kind = "symmetric", share = 0.4 }, got 0.4'),
        (0.2, 'expected { kind = "symmetric", share = 0.2 }, got 0.2'),
        ("pair", "expected { kind = \"symmetric\", share = 0.4 }, got 'pair'"),
        ({"kind": "pair"}, "share: Field required"),
        ({"share": 0.2}, "kind: Field required, one of symmetric, pair, confusion"),
        ({"kind": "pair", "shares": 1}, "unknown setting 'shares'. Did you mean 'share'?"),
        ({"kind": "pairs", "share": 1}, "kind: Input should be 'symmetric', 'pair' or 'confusion'"),
        (
            {"kind": "pair", "share": 1.5},
            "share: Input should be at least 0 and at most 1, got 1.5",
        ),
        (
            {"kind": "pair", "share": [0.6, 0.1]},
            "share: expected two ascending numbers, at least 0 and at most 1, got [0.6, 0.1]",
        ),
        ({"kind": "pair", "share": "all"}, "share: expected a number or [fewest, most], got 'all'"),
    ],
    ids=str,
)
def test_one_line_says_what_noise_may_not_be(value, line):
    with pytest.raises(ValidationError) as caught:
        NOISE.validate_python(value)
    (error,) = caught.value.errors()
    assert line in error["msg"]
