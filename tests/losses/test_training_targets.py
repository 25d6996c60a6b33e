"""Weights of images: what pads a task is as if it were not there, for every kind of loss."""

import pytest
import torch

from metaloss import kernels
from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.genomes._channels import CHANNELS
from metaloss.genomes._compiled import CompiledEquivariant
from metaloss.genomes._equivariant import Equivariant
from metaloss.genomes.mln import MetaLossNetwork
from metaloss.genomes.targets import LearnedTargets
from metaloss.genomes.taylor import TaylorPolynomial
from metaloss.losses.base import CrossEntropies, TrainingTargets, one_hot
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula

P = 2
T = 2
B = 6
C = 4
NETWORK = MetaLossNetwork(start="random", features=3, hidden=4)
TEXTS = ("-y*logp", "mean(abs(p - y), temperature=2)")


def networks(kind):
    weights, at = {}, 0
    vectors = NETWORK.sample(P, Stream(3)).vectors()
    for name, (rows, columns) in NETWORK.shapes.items():
        weights[name] = vectors[:, at : at + rows * columns].unflatten(1, (rows, columns))
        at += rows * columns
    return kind.of(weights, (CHANNELS["p"], CHANNELS["logp"]), "tanh", 10)


def figure3():
    genome = MetaLossNetwork(architecture="figure3", start="random", fixed_classes=C)
    return genome.losses(genome.sample(P, Stream(4)))


def targets():
    genome = LearnedTargets()
    start = genome.sample(P, Stream(0)).vectors()
    return genome.losses(Vectors(start + 0.3 * Stream(1).normal(*start.shape)))


def polynomials():
    genome = TaylorPolynomial()
    start = genome.sample(P, Stream(0)).vectors()
    return genome.losses(Vectors(start + 0.3 * Stream(1).normal(*start.shape)))


KINDS = {
    "cross-entropies": lambda: CrossEntropies(torch.tensor([0.0, 0.2])),
    "each": lambda: Formulas.of([Formula.parse(x) for x in TEXTS], "each"),
    "grouped": lambda: Formulas.of([Formula.parse(x) for x in TEXTS], "grouped"),
    "targets": targets,
    "polynomials": polynomials,
    "equivariant": lambda: networks(Equivariant),
    "figure3": figure3,
}
if kernels.available():
    KINDS["compiled"] = lambda: networks(CompiledEquivariant)
kinds = pytest.mark.parametrize("kind", KINDS)


def situation():
    logits = 3 * Stream(5).normal(P, T, B, C)
    return logits, one_hot(Stream(6).integers(C, T, B), C)


@kinds
@pytest.mark.parametrize("beyond", [0.0, torch.nan, torch.inf])
def test_an_image_of_weight_zero_has_neither_value_nor_gradient(kind, beyond):
    logits, target = situation()
    real = KINDS[kind]().bind(TrainingTargets(target[:, :4]))
    weight = torch.tensor([1.0, 1, 1, 1, 0, 0]).expand(T, -1)
    logits[:, :, 4:] += beyond
    padded = KINDS[kind]().bind(TrainingTargets(target, weight))
    torch.testing.assert_close(padded(logits), real(logits[:, :, :4]))
    gradient = padded.logit_gradient(logits)
    torch.testing.assert_close(gradient[:, :, :4], real.logit_gradient(logits[:, :, :4]))
    assert gradient[:, :, 4:].eq(0).all()


@kinds
def test_an_image_of_weight_two_counts_as_two(kind):
    logits, target = situation()
    twice = [0, 1, 1, 2, 3, 4, 5]
    expected = KINDS[kind]().bind(TrainingTargets(target[:, twice]))
    weight = torch.tensor([1.0, 2, 1, 1, 1, 1]).expand(T, -1)
    weighed = KINDS[kind]().bind(TrainingTargets(target, weight))
    torch.testing.assert_close(weighed(logits), expected(logits[:, :, twice]))
    gradient = expected.logit_gradient(logits[:, :, twice])
    gradient[:, :, 1] += gradient[:, :, 2]
    gradient = gradient[:, :, [0, 1, 3, 4, 5, 6]]
    torch.testing.assert_close(weighed.logit_gradient(logits), gradient)


@kinds
def test_a_minibatch_has_the_weights_of_its_images(kind):
    logits, target = situation()
    index = torch.tensor([[5, 0, 1], [2, 5, 3]])
    weight = torch.tensor([0.5, 2, 1, 3, 1, 0]).expand(T, -1)
    picked = KINDS[kind]().bind(TrainingTargets(target, weight)).minibatch(index)
    rows = torch.arange(T)[:, None]
    part = TrainingTargets(target[rows, index], weight[rows, index])
    alone = KINDS[kind]().bind(part)
    some = logits[:, rows, index]
    torch.testing.assert_close(picked(some), alone(some))
    torch.testing.assert_close(picked.logit_gradient(some), alone.logit_gradient(some))
