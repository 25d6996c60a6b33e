"""A gradient that is much longer than those before it moves a vector no further than they would."""

import torch
from test_strategies import KEY, Space

from metaloss.strategies.gradient import Gradient


def followed(gradients, **settings):
    """The vector and the state after these gradients, one after the other."""
    strategy = Gradient(lr=0.1, **settings)
    state = strategy.init(Space(), KEY)
    for gradient in gradients:
        state = strategy.follow(state, gradient)
    return strategy.mean_candidate(state).vectors(), state


def test_a_long_gradient_counts_clip_times_the_length_of_those_before_it():
    usual = torch.tensor([[3.0, 0.0, 4.0]])
    long = torch.tensor([[0.0, 1e9, 0.0]])
    clipped, state = followed([usual] * 4 + [long], clip=2.0)
    # Those before it are 5 long, and so is the root of their mean square.
    as_if, other = followed([usual] * 4 + [torch.tensor([[0.0, 10.0, 0.0]])], clip=1e30)
    torch.testing.assert_close(clipped, as_if)
    torch.testing.assert_close(state.square, other.square)


def test_shorter_gradients_and_the_first_one_count_as_they_are():
    gradients = [torch.tensor([[1e6, 0.0, 1.0]]), torch.tensor([[1.0, 2.0, -1e6]])]
    assert torch.equal(followed(gradients)[0], followed(gradients, clip=1e30)[0])


def test_after_zeros_alone_a_gradient_counts_as_it_is():
    gradients = [torch.zeros(1, 3), torch.tensor([[1.0, 2.0, 3.0]])]
    moved, _ = followed(gradients)
    assert moved.isfinite().all()
    assert torch.equal(moved, followed(gradients, clip=1e30)[0])
