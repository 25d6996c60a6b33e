"""A draw is a function of a seed and a path of roles, and follows its distribution."""

import itertools

import pytest
import torch

from metaloss.core.streams import Stream

INTEGERS = [940, 999, 142, 703, 194]
PERMUTATION = [4, 5, 0, 2, 3, 1]
UNIFORM = [0.9596993923187256, 0.4374789595603943, 0.19558322429656982]
NORMAL = [-1.4467856884002686, 0.9582211971282959, 0.5910515785217285]

DRAWS = {
    "normal": lambda key: key.normal(5),
    "uniform": lambda key: key.uniform(5),
    "integers": lambda key: key.integers(10**6, 5),
    "permutation": lambda key: key.permutation(50),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_equal_streams_draw_equal_numbers_whatever_was_drawn_before(draw):
    first = draw(Stream(3).at("init", 1))
    torch.manual_seed(5)
    for other in DRAWS.values():
        other(Stream(3).at("init", 1))
    assert torch.equal(draw(Stream(3).at("init", 1)), first)


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_streams_of_other_seeds_and_roles_draw_other_numbers(draw):
    keys = [
        Stream(0),
        Stream(1),
        Stream(0).at("a"),
        Stream(0).at("b"),
        Stream(0).at("a", 1),
        Stream(0).at("a", "1"),
        Stream(0).at(1, "a"),
        Stream(0).at("a, 1"),
    ]
    for one, other in itertools.combinations(keys, 2):
        assert not torch.equal(draw(one), draw(other)), (one, other)


def test_roles_may_be_given_at_once_or_one_after_the_other():
    assert Stream(4).at("tasks", 2, "noise") == Stream(4).at("tasks").at(2).at("noise")


def test_drawing_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    for draw in DRAWS.values():
        draw(Stream(2))
    assert torch.equal(torch.get_rng_state(), state)


def test_what_a_stream_draws_never_changes():
    """Old runs can be resumed, and old results repeated, as long as these numbers stand."""
    key = Stream(0).at("init", 3)
    assert key.integers(1000, 5).tolist() == INTEGERS
    assert key.permutation(6).tolist() == PERMUTATION
    assert key.uniform(3).tolist() == pytest.approx(UNIFORM, abs=0)
    assert key.normal(3).tolist() == pytest.approx(NORMAL, rel=1e-6)


def test_normal_numbers_have_the_moments_of_a_standard_normal():
    n = 40_000
    x = Stream(11).normal(n).double()
    moments = [(x**k).mean().item() for k in (1, 2, 3, 4)]
    spread = [(v / n) ** 0.5 for v in (1, 2, 15, 96)]  # the variances of x, x², x³, x⁴
    for found, expected, s in zip(moments, (0, 1, 0, 3), spread, strict=True):
        assert abs(found - expected) < 4 * s


def test_normal_numbers_are_not_correlated_with_their_neighbours():
    x = Stream(12).normal(40_000).double()
    assert abs((x[1:] * x[:-1]).mean().item()) < 4 / 200


def test_uniform_numbers_fill_their_range_evenly():
    x = Stream(13).uniform(20_000, low=-2.0, high=6.0).double()
    assert -2 <= x.min() < -1.99
    assert 5.99 < x.max() < 6
    assert abs(x.mean().item() - 2) < 4 * 8 / 12**0.5 / 20_000**0.5


def test_integers_take_every_value_below_the_bound_equally_often():
    counts = Stream(14).integers(5, 10_000).bincount(minlength=5)
    assert len(counts) == 5
    assert ((counts - 2000).abs() < 4 * (10_000 * 0.2 * 0.8) ** 0.5).all()


def test_a_permutation_holds_every_number_once():
    assert Stream(15).permutation(100).sort().values.tolist() == list(range(100))


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 3)])
def test_numbers_come_in_the_shape_that_was_asked_for(shape):
    assert Stream(16).normal(*shape).shape == shape
    assert Stream(16).uniform(*shape).shape == shape
    assert Stream(16).integers(3, *shape).shape == shape
