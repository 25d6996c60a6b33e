"""A formula whose constants have names is the formula that has them written in it."""

import pytest
import torch

from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.genomes.constants import Constants
from metaloss.losses.base import Clock, TrainingTargets, at, logit_gradient_by_autograd
from metaloss.losses.language.primitives import PRIMITIVES

KEY = Stream(3)
T, B, C = 2, 5, 4


def of_primitive(name):
    """A formula in which a constant and the prediction go through a primitive."""
    args = ["0.6 * p + 0.1", "0.4 * p + 0.2", "0.9 * y + 0.05"][: PRIMITIVES[name].arity]
    if PRIMITIVES[name].symbol:
        joined = f"({args[0]}) {PRIMITIVES[name].symbol} ({args[-1]})"
        return f"-({args[0]}) - y * logp" if name == "neg" else f"{joined} - y * logp"
    return f"{name}({', '.join(args)}) - y * logp"


FORMULAS = {
    **{name: of_primitive(name) for name in PRIMITIVES},
    "moves": "mean(-y * logp - 0.3 * t * y * p, temperature=2.0, scale=1 + 0.1 * y, "
    "shift=0.5 * logprior)",
    "all that is seen": "-y * logp + 0.2 * cost * p * prior / count * logn * C",
}


def pair(formula, **settings):
    """The candidates with named constants, and with written ones."""
    genome = Constants(formula=formula, **settings)
    genes = 0.3 * KEY.at("genes").normal(2, genome.sample(1, KEY).genes).double()
    named = genome.losses(Vectors(genes.clone().requires_grad_()))
    return named, genome.losses(Vectors(genes))


def bound(losses):
    label = torch.arange(T * B).reshape(T, B) % C
    target = torch.nn.functional.one_hot(label, C).double()
    weight = torch.ones(T, B, dtype=torch.float64)
    weight[1, -1] = 0
    counts = torch.tensor([[4.0, 2.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]], dtype=torch.float64)
    costs = KEY.at("costs").uniform(T, C, C).double()
    return at(losses.bind(TrainingTargets(target, weight, counts, costs)), Clock(0.3, 2.5))


@pytest.mark.parametrize("settings", [{}, {"clock": True, "prior": True}], ids=["plain", "all"])
@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
def test_named_constants_give_the_gradients_and_terms_of_written_ones(formula, settings):
    named, written = map(bound, pair(formula, **settings))
    logits = KEY.at("logits").normal(2, T, B, C).double()
    close = {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(
        named.logit_gradient(logits), written.logit_gradient(logits), **close
    )
    torch.testing.assert_close(named.terms(logits), written.terms(logits), **close)
    torch.testing.assert_close(named(logits), written(logits), **close)
    index = torch.tensor([[3, 0], [1, 2]])
    some, others = (x.minibatch(index) for x in (named, written))
    few = logits[:, :, :2]
    torch.testing.assert_close(some.logit_gradient(few), others.logit_gradient(few), **close)
    assert len(named[1:]) == 1


@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
def test_autograd_goes_through_every_primitives_gradient(formula):
    genome = Constants(formula=formula)
    genes = 0.3 * KEY.at("genes").normal(1, genome.sample(1, KEY).genes).double()
    logits = KEY.at("logits").normal(1, T, B, C).double()

    def gradient(genes, logits):
        return bound(genome.losses(Vectors(genes))).logit_gradient(logits)

    inputs = (genes.requires_grad_(), logits.requires_grad_())
    assert torch.autograd.gradcheck(gradient, inputs)


def test_the_gradient_is_that_of_the_value():
    named, _ = map(bound, pair(FORMULAS["moves"], clock=True, prior=True))
    logits = KEY.at("logits").normal(2, T, B, C).double()
    torch.testing.assert_close(
        named.logit_gradient(logits), logit_gradient_by_autograd(named, logits)
    )


def test_a_formula_that_reads_the_past_is_refused():
    space = Constants(formula="-(.7*y + .3*past)*logp")
    vectors = space.sample(1, Stream(0)).values.requires_grad_()
    with pytest.raises(SettingsError, match="reads `past`, and no gradient"):
        space.losses(Vectors(vectors))
