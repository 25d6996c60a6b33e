"""A loss's pull and curve, against the figures that were measured on the published losses."""

import numpy as np
import pytest
import torch

from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.genomes.targets import LearnedTargets
from metaloss.losses import zoo
from metaloss.losses.base import CrossEntropies
from metaloss.losses.formulas import Formulas
from metaloss.losses.phenotype import (
    curve,
    descent,
    gain,
    grid,
    minimum,
    normalised,
    pull,
    warnings,
)

CLASSES = (2, 10, 100, 1000)
GAINS = {  # as printed: to their own digits
    "ce": "1 1 1 1",
    "b0": ".062 .0115 .0011 .0001",
    "b0_softsign": ".054 .021 .00245",  # the table rounds it twice, to .0025
    "b1": ".017 .0075 .0009",
    "b2": ".074 .0445 .0055",
    "c0": ".86 .99 1 1",
    "c1_printed": "-.68 -.93 -.99",
    "c1": ".67 .91 .99",
    "c2": ".106 .084 .043 .012",
    "m0": ".21 .135 .065 .036",
    "mae": "1 .2 .02 .002",
    "mse": "1 .2 .02 .002",
    "focal(gamma=.5)": ".95 1.07 1.02",
    "focal(gamma=2)": ".6 1.22 1.07",
    "poly1": "1.5 1.1 1.01",
    "m1": ".122 .0236 .0023",
    "m2": ".177 .035 .0035",
    "r0": ".056 .026 .0029 -.0016",
    "r1_printed": "-.405 -.43 .003",
    "r1": ".405 .43 -.003",
    "r2": ".83 .98 1.1",
    "a0": ".33 .22 .145 .109",
    "a1": ".37 .24 .131 .083",
    "a2": "1.2 .91 .61 .49",
    "ngl": ".72 .815 .108 .011",
    "ngl(scaled=True)": ".051 .030 .0035",
    "baikal": "2 10 100 1000",
    "sce": "4.7 1.02 .19 .11",
}


def read(spec):
    """A loss as a population of one."""
    return Formulas.of([zoo.read(spec)])


@pytest.mark.parametrize("spec", GAINS)
def test_gains_are_the_printed_ones(spec):
    formula = zoo.find(spec)[1]
    for classes, printed in zip(CLASSES, GAINS[spec].split(), strict=False):
        # The table counts NGL as a sum over the classes.
        found = gain(Formulas.of([formula]), classes) * (
            classes if formula.reduction == "mean" else 1
        )
        digits = len(printed.partition(".")[2])
        unit = 10.0**-digits
        assert abs(found - float(printed)) <= 0.5 * unit * 1.0001, (classes, printed, found)


def test_the_gain_is_that_of_the_slopes_by_p():
    # -ln p - p: by p at 1/C: -C - 1 for the target's class, 0 for the others.
    assert gain(read("-y*logp - y*p"), 10) == pytest.approx(1.1)
    assert gain(read("sum(-y*logp, temperature=4)"), 7) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("spec", "places"),
    [
        ("ngl", {2: 0.566, 10: 0.391, 100: 0.362, 1000: 0.359}),
        ("ngl(scaled=True)", {2: 0.558, 10: 0.363, 100: 0.338, 1000: 0.336}),
        ("c2", {2: 0.98, 10: 0.842, 100: 0.236}),
        ("r0", {2: 0.991, 10: 0.923, 100: 0.395}),
        ("r1", {2: 0.99, 10: 0.914, 100: 0.509}),
        ("r1_printed", {2: 0.01}),
        ("baikal", {2: 0.707, 10: 0.316, 100: 0.1}),
        ("c1_printed", {2: 0.0}),
        ("a2", {2: 1.0, 10: 1.0}),
    ],
)
def test_minima_lie_where_they_were_measured(spec, places):
    for classes, place in places.items():
        assert minimum(read(spec), classes) == pytest.approx(place, abs=0.0015)


def test_the_curve_is_the_loss_of_one_image():
    found = curve(read("ce"))
    p = grid()
    assert len(found) == len(p) == 1000
    torch.testing.assert_close(found, -p.log(), rtol=1e-9, atol=1e-12)
    many = curve(read("mse"), classes=5)
    torch.testing.assert_close(many, (1 - p) ** 2 + (1 - p) ** 2 / 4, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spec", ["ce", "mse", "focal(gamma=2)", "label_smoothing", "baikal"])
@pytest.mark.parametrize("classes", [2, 10])
def test_what_training_descends_is_the_curve_but_for_a_constant(spec, classes):
    p, height = descent(read(spec), classes)
    assert len(p) == 2000
    assert (p.diff() >= 0).all()
    assert height[0] == 0
    inside = (p > 0.02) & (p < 0.98)
    expected = torch.from_numpy(np.interp(p, grid(), curve(read(spec), classes)))
    difference = (height - expected)[inside]
    assert float(difference.max() - difference.min()) < 0.01 * float(
        expected[inside].max() - expected[inside].min()
    )


def test_where_no_gradient_goes_through_a_part_training_descends_something_else_than_the_value():
    genome = LearnedTargets(smoothing=0.0)
    candidate = genome.sample(1, Stream(0)).values.clone()
    candidate[0, 5:9] = 0.0  # from p = .25 on nothing is asked of the true class
    loss = genome.losses(Vectors(candidate))
    p, height = descent(loss, 10)
    assert (height[p > 0.26] - height[-1]).abs().max() < 1e-9
    assert minimum(loss, 10) == pytest.approx(0.25, abs=0.002)


def test_a_normalised_curve_runs_from_0_to_1_unless_it_is_flat():
    found = normalised(curve(read("mae")))
    assert (float(found.min()), float(found.max())) == (0, 1)
    flat = torch.full((5,), 3.0)
    assert torch.equal(normalised(flat), flat)


def test_scale_and_shift_do_not_change_a_normalised_curve():
    one, other = (normalised(curve(read(t))) for t in ("abs(p - y)", "3*abs(p - y) + 7"))
    torch.testing.assert_close(one, other)


def test_the_pull_of_cross_entropy_is_what_the_true_class_lacks():
    p = grid(9)
    torch.testing.assert_close(pull(read("ce"), p, classes=4), 1 - p, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("ce", None),
        ("a2", None),
        ("c1_printed", "anti-learns: unsure among 2 or 10 or 100 classes"),
        (
            "m1",
            "looks collapsed at cross-entropy's learning rate: "
            "its first pull is 0.0023 at 100 classes",
        ),
        ("y*exp(square(logp))", "not finite"),
    ],
)
def test_a_loss_comes_with_what_to_beware_of(spec, words):
    found = warnings(read(spec))
    assert any(words in sentence for sentence in found) if words else not found


@pytest.mark.parametrize("classes", [2, 5, 100])
def test_smoothed_cross_entropy_pulls_back_where_it_is_too_sure(classes):
    p = grid(9)
    expected = 0.8 + 0.2 / classes - p
    torch.testing.assert_close(
        pull(CrossEntropies.of(1, smoothing=0.2), p, classes),
        expected,
        rtol=1e-6,
        atol=1e-7,
    )
