"""P cross-entropies at once equal torch's own, one after the other, in value and gradient."""

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from torch.nn.functional import cross_entropy

from metaloss.core.streams import Stream
from metaloss.losses.base import CrossEntropies, TrainingTargets, images, log_softmax, one_hot

P = 3
T = 2
B = 5
C = 4
SMOOTHING = torch.tensor([0.0, 0.1, 0.5], dtype=torch.float64)


def logits():
    return (3 * Stream(0).normal(P, T, B, C)).double().requires_grad_()


def label():
    return Stream(1).integers(C, T, B)


def hard():
    return one_hot(label(), C).double()


def soft():
    return Stream(2).normal(T, B, C).double().softmax(-1)


@pytest.mark.parametrize("target", [hard, soft])
def test_values_and_gradients_equal_torchs_cross_entropy(target):
    x = logits()
    reference = logits()
    value = CrossEntropies(SMOOTHING).bind(TrainingTargets(target()))(x)
    assert value.shape == (P, T)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    expected = torch.stack(
        [
            torch.stack(
                [
                    cross_entropy(reference[p, t], target()[t], label_smoothing=float(SMOOTHING[p]))
                    for t in range(T)
                ]
            )
            for p in range(P)
        ]
    )
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradient, torch.autograd.grad(expected.sum(), reference)[0], rtol=1e-12, atol=1e-12
    )
    slope = (
        CrossEntropies(SMOOTHING).bind(TrainingTargets(target())).logit_gradient(logits().detach())
    )
    torch.testing.assert_close(slope, gradient, rtol=1e-12, atol=1e-12)


def test_a_minibatch_is_a_batch_of_its_images():
    index = torch.tensor([[4, 0, 1], [2, 2, 3]])
    x, target = (
        v.gather(-2, index[..., None].expand(*v.shape[:-2], 3, C))
        for v in (logits().detach(), soft())
    )
    picked = CrossEntropies(SMOOTHING).bind(TrainingTargets(soft())).minibatch(index)
    alone = CrossEntropies(SMOOTHING).bind(TrainingTargets(target))
    assert torch.equal(picked(x), alone(x))
    assert torch.equal(picked.logit_gradient(x), alone.logit_gradient(x))


def test_images_lie_class_by_class_in_memory():
    assert images(logits().detach(), torch.tensor([[1], [0]])).mT.is_contiguous()
    assert log_softmax(logits().detach()).mT.is_contiguous()


def test_terms_add_up_to_the_value():
    losses = CrossEntropies(SMOOTHING).bind(TrainingTargets(hard()))
    terms = losses.terms(logits())
    assert terms.shape == (P, T, B, C)
    torch.testing.assert_close(terms.sum(-1).mean(-1), losses(logits()))


def test_the_value_of_a_sure_and_right_classifier_is_zero_and_of_an_unsure_one_log_c():
    sure = 1000 * hard()
    unsure = torch.zeros(T, B, C, dtype=torch.float64)
    value = CrossEntropies.of(2).bind(TrainingTargets(hard()))(torch.stack([sure, unsure]))
    torch.testing.assert_close(
        value, torch.tensor([[0.0] * T, [C] * T]).double().clamp(min=1).log()
    )


@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([2, 2, 0])])
def test_taking_rows_and_binding_may_be_done_in_either_order(rows):
    x = logits()[rows]
    losses = CrossEntropies(SMOOTHING)
    assert torch.equal(
        losses[rows].bind(TrainingTargets(hard()))(x), losses.bind(TrainingTargets(hard()))[rows](x)
    )
    assert len(losses[rows]) == len(x)


def test_the_same_loss_may_be_had_many_times():
    losses = CrossEntropies.of(4, 0.2)
    assert len(losses) == 4
    assert losses.smoothing.tolist() == pytest.approx([0.2] * 4)


def test_labels_become_distributions():
    assert one_hot(torch.tensor([[2, 0]]), 3).tolist() == [[[0, 0, 1], [1, 0, 0]]]


def test_shapes_are_checked_while_tests_run():
    """Guards the guard: were the import hook off, no annotation would be checked."""
    with pytest.raises(BeartypeCallHintViolation):
        CrossEntropies(SMOOTHING).bind(TrainingTargets(torch.zeros(B, C)))
