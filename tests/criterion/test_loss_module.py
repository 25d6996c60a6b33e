"""What every loss does with its options, as a criterion or as a module written for others."""

import math
import subprocess
import sys
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_criterion import network, problem, targets, value_and_gradient
from test_export import program, written
from torch import nn
from trees import expressions, small

import metaloss
from metaloss.core.streams import Stream
from metaloss.criterion import loss_io
from metaloss.criterion.formula import FormulaCriterion
from metaloss.criterion.genome import GenomeCriterion
from metaloss.criterion.standalone import python
from metaloss.genomes.targets import LearnedTargets
from metaloss.losses import zoo
from metaloss.losses.language.canonical import canonical
from metaloss.losses.language.expression import LOGP, C, P, Y, call, constant
from metaloss.losses.language.formula import Formula
from metaloss.losses.language.shares import _is_zero


def start(genome):
    """The loss that a genome's search starts from."""
    return GenomeCriterion(genome, genome.sample(1, Stream(0)))


PUBLISHED = [name for name in zoo.names() if zoo.entry(name).text]
EVOLVED = {
    "network": lambda: network(home_classes=4),
    "targets": targets,
    "start": lambda: start(LearnedTargets()),
    "no share": lambda: start(LearnedTargets(smoothing=0.0)),
}
# They give every class a share of the target.
SHIPPED_TARGETS = [
    name
    for name in loss_io.shipped()
    if isinstance(getattr(loss_io.load(name), "genome", None), LearnedTargets)
]
SPECS = [
    *PUBLISHED,
    *loss_io.shipped(),
    *EVOLVED,
    "square(y)*logp",
    "y*y*logp",
    "square(p - y) - y*logp",
]
# y·g(p) with smoothing inside, and the same without.
PLAIN = {
    "label_smoothing": "ce",
    "a2_smoothed": "a2",
    "logit_adjustment_smoothed": "logit_adjustment",
}
# The option smooths what costs are read of, too; smoothing inside does not.
SMOOTHED = (*PLAIN, "softmax_margin_smoothed")
WEIGHT = torch.tensor([0.5, 2.0, 0.0, 3.0], dtype=torch.float64)
EVERY = pytest.mark.parametrize("spec", SPECS)
FORMS = pytest.mark.parametrize("form", ["criterion", "python"])


def loss_of(spec, **options):
    return (
        EVOLVED[spec]().with_options(**options)
        if spec in EVOLVED
        else metaloss.load(spec, **options)
    )


@cache
def module_of(spec):
    """What is written for others."""
    space = {}
    exec(compile(python(loss_of(spec)), spec, "exec"), space)
    return space["Loss"]


def made(spec, form, **options):
    """A loss with its options in one of its forms."""
    return loss_of(spec, **options) if form == "criterion" else module_of(spec)(**options)


def same(found, expected, tolerance=1e-9):
    """Equal values and gradients, gradients beside the largest."""
    torch.testing.assert_close(
        found[0], expected[0], rtol=tolerance, atol=tolerance, equal_nan=True
    )
    scale = expected[1].abs().max().clamp(min=1.0)
    torch.testing.assert_close(
        found[1] / scale, expected[1] / scale, rtol=tolerance, atol=tolerance, equal_nan=True
    )


def by_image(loss, logits, target, weight, mass):
    """The mean of a loss's own values, each of them times its image's weight."""

    def weighed(x, target):
        return (loss.with_options(reduction="none", weight=None)(x, target) * weight).sum() / mass

    return value_and_gradient(weighed, logits, target)


# --- class weights ---


@FORMS
@EVERY
def test_an_image_with_a_hard_label_counts_as_often_as_its_class_s_weight_says(spec, form):
    if spec in SMOOTHED:
        return
    logits, target = problem((9, 4), "ignored")
    image = WEIGHT[target.clamp(min=0)] * (target >= 0)
    loss = made(spec, form, weight=WEIGHT)
    same(
        value_and_gradient(loss, logits, target),
        by_image(loss_of(spec), logits, target, image, image.sum()),
        1e-5,
    )
    each = made(spec, form, weight=WEIGHT, reduction="none")(logits, target)
    plain = loss_of(spec, reduction="none")(logits, target)
    torch.testing.assert_close(each, plain * image, rtol=1e-5, atol=1e-6)


def test_a_rare_class_s_weight_turns_no_loss_against_the_others():
    logits = torch.zeros(1, 3)
    target = torch.tensor([0])
    for name in [*PUBLISHED, *loss_io.shipped()]:
        plain = value_and_gradient(metaloss.load(name, reduction="sum"), logits, target)[1]
        loss = metaloss.load(name, reduction="sum", weight=[1, 1, 10])
        if name not in SMOOTHED:
            torch.testing.assert_close(value_and_gradient(loss, logits, target)[1], plain)


PROPORTIONAL = {
    "ce": lambda p: -p.log(),
    "ce_eps": lambda p: -(p + 1e-7).log(),
    "focal": lambda p: -((1 - p) ** 2) * p.log(),
    "gce": lambda p: (1 - p**0.7) / 0.7,
    "poly1": lambda p: -p.log() + 1 - p,
    "a2": lambda p: 1 / torch.special.i0e((p + 1e-7).log()),
    "m0": lambda p: -torch.special.i1((p + 1e-7).log10().atan()),
    "taylorglo": lambda p: -p,
    "-logp*(y*2)/C": lambda p: -2 * p.log() / p.shape[-1],
    "quotient(y, p)": lambda p: 1 / (p + 1e-7),
    "y*logp - 3*y*sin(p)": lambda p: p.log() - 3 * p.sin(),
}


@FORMS
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["ignored", "soft"])
@pytest.mark.parametrize("spec", PROPORTIONAL)
def test_a_loss_proportional_to_the_target_weighs_its_terms_as_torch_does(
    spec, kind, smoothing, form
):
    logits, target = problem((9, 4), kind)
    given = nn.functional.one_hot(target.clamp(min=0), 4).double() if kind == "ignored" else target
    valid = target >= 0 if kind == "ignored" else torch.ones(9, dtype=torch.bool)
    y = given * (1 - smoothing) + smoothing / 4
    mass = WEIGHT[target[valid]].sum() if kind == "ignored" else 9

    def reference(x, target):
        return (WEIGHT * y * PROPORTIONAL[spec](x.softmax(-1)))[valid].sum() / mass

    options = {"weight": WEIGHT, "label_smoothing": smoothing}
    found = value_and_gradient(made(spec, form, **options), logits, target)
    same(found, value_and_gradient(reference, logits, target), 1e-7)
    if spec == "ce":
        same(found, value_and_gradient(nn.CrossEntropyLoss(**options), logits, target))


@pytest.mark.parametrize("kind", ["hard", "ignored", "soft"])
@pytest.mark.parametrize("alpha", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_losses_with_smoothing_inside_are_those_with_the_option(weight, alpha, kind):
    logits, target = problem((9, 4), kind)
    for inside, plain in PLAIN.items():
        for reduction in ("mean", "sum", "none"):
            options = {"weight": weight, "reduction": reduction}
            ours = value_and_gradient(
                metaloss.load(f"{inside}(alpha={alpha})", **options), logits, target
            )
            same(
                ours,
                value_and_gradient(
                    metaloss.load(plain, label_smoothing=alpha, **options), logits, target
                ),
            )
            if plain == "ce":
                theirs = nn.CrossEntropyLoss(label_smoothing=alpha, **options)
                same(ours, value_and_gradient(theirs, logits, target))


@FORMS
@pytest.mark.parametrize("spec", [x for x in SPECS if x not in (*PROPORTIONAL, *SMOOTHED)])
def test_any_other_loss_weighs_the_image_by_its_target_before_smoothing(spec, form):
    if getattr(loss_of(spec), "weighs_terms", False):
        return
    logits, soft = problem((9, 4), "soft")
    options = {"label_smoothing": 0.2}
    for target, image in ((soft, soft @ WEIGHT), (soft.argmax(-1), WEIGHT[soft.argmax(-1)])):
        mass = 9 if target is soft else image.sum()
        expected = by_image(loss_of(spec, **options), logits, target, image, mass)
        same(
            value_and_gradient(made(spec, form, weight=WEIGHT, **options), logits, target),
            expected,
            1e-5,
        )


@FORMS
@EVERY
def test_weights_of_one_change_nothing(spec, form):
    for kind in ("hard", "ignored", "soft"):
        logits, target = problem((9, 4), kind, torch.float32)
        plain, weighted = (
            value_and_gradient(made(spec, form, weight=w), logits, target) for w in (None, [1] * 4)
        )
        assert torch.equal(plain[0], weighted[0])
        # Vector instructions round otherwise than single ones, in the gradient's last bit.
        same(weighted, plain, 1e-6)


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
@given(expressions(leaves=8).filter(small))
def test_every_formula_counts_an_image_as_often_as_its_label_s_weight(e):
    formula = Formula(e)
    assume(not formula.target_smoothing)
    logits, target = problem((6, 4), "hard")
    plain, weighted = (
        FormulaCriterion(formula, reduction="none", weight=w)(logits, target)
        for w in (None, WEIGHT)
    )
    finite = plain.isfinite() & (plain.abs() < 1e100)
    torch.testing.assert_close(weighted[finite], (plain * WEIGHT[target])[finite])


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(
    expressions(leaves=8).filter(small), st.sampled_from([constant(2), constant(-0.5), P, LOGP, C])
)
def test_formulas_that_are_the_same_in_another_order_are_weighed_alike(e, factor):
    pairs = [
        (e, canonical(e)),
        (call("mul", e, factor), call("mul", factor, e)),
        (e, call("neg", call("neg", e))),
    ]
    pairs += [(call("mul", call("mul", Y, Y), e), call("mul", call("square", Y), e))]
    pairs += [(call("add", call("mul", Y, factor), e), call("add", e, call("mul", factor, Y)))]
    for a, b in (map(Formula, pair) for pair in pairs):
        assert a.target_smoothing == b.target_smoothing
        assert [x is None for x in a.divided] == [x is None for x in b.divided]


@settings(max_examples=60)
@given(
    expressions(leaves=6, numbers=st.floats(-10, 10)).filter(
        lambda e: small(e) and not e.reads_label
    )
)
def test_every_product_of_the_target_and_what_does_not_read_it_is_proportional_to_it(g):
    assume(not _is_zero(canonical(g)))
    for e in (
        call("mul", Y, g),
        call("neg", call("mul", g, Y)),
        call("aq", Y, g),
        call("quotient", Y, g),
    ):
        assert Formula(e).target_smoothing == 0
    for e in (call("mul", call("square", Y), g), call("mul", call("sub", P, Y), g)):
        assert Formula(e).target_smoothing is None


WRONG = {
    "-1": ([1.0, -1.0, 1.0, 1.0], "finite and not negative, got -1"),
    "NaN": ([1.0, math.nan, 1.0, 1.0], "finite and not negative, got nan"),
    "infinity": (torch.tensor([1.0, 1.0, 1.0, math.inf]), "finite and not negative, got inf"),
    "a matrix": (torch.ones(1, 4), r"one number per class, got the shape \(1, 4\)"),
    "a number": (2.0, "one number per class"),
}


@pytest.mark.parametrize("what", WRONG)
def test_weights_that_cannot_be_are_refused(what):
    weight, message = WRONG[what]
    for spec in ("ce", "mse", "dice", "mln-fashionmnist"):
        with pytest.raises(ValueError, match=message):
            metaloss.load(spec, weight=weight)


@pytest.mark.parametrize("many", [1, 3, 5])
@pytest.mark.parametrize("spec", ["ce", "focal", "mse", "dice", "mln-fashionmnist"])
def test_weights_of_another_number_of_classes_are_refused_with_both_numbers(spec, many):
    for kind in ("hard", "soft"):
        with pytest.raises(
            ValueError, match=f"weight has {many} numbers, one per class, and the logits have 4"
        ):
            metaloss.load(spec, weight=[1] * many)(*problem((6, 4), kind))


# --- nothing to learn from, byte labels, masked classes ---


@FORMS
@pytest.mark.parametrize("spec", [*SPECS, "dice"])
def test_a_batch_in_which_all_is_ignored_adds_nothing(spec, form):
    logits, target = problem((6, 4), "hard", torch.float32)
    for options in ({}, {"weight": [1, 2, 3, 4]}, {"label_smoothing": 0.1}):
        value, gradient = value_and_gradient(
            made(spec, form, **options), logits, torch.full_like(target, -100)
        )
        assert value == 0
        assert torch.equal(gradient, torch.zeros(6, 4))


def test_labels_whose_weights_are_all_zero_have_the_mean_of_torch():
    logits, target = problem((6, 4), "hard")
    weight = torch.zeros(4, dtype=torch.float64)
    assert nn.CrossEntropyLoss(weight=weight)(logits, target).isnan()
    for spec in ("ce", "mse", "mln-fashionmnist"):
        assert metaloss.load(spec, weight=weight)(logits, target).isnan()
        assert metaloss.load(spec, weight=weight, reduction="sum")(logits, target) == 0


@FORMS
@pytest.mark.parametrize("spec", [*SPECS, "dice"])
def test_labels_of_any_integer_type_are_labels(spec, form):
    logits, target = problem((2, 4, 3, 2), "hard", torch.float32)
    target[0, 0] = 255
    loss = made(spec, form, ignore_index=255, weight=[1, 2, 3, 4])
    for dtype in (torch.uint8, torch.int16, torch.int32):
        assert torch.equal(loss(logits, target.to(dtype)), loss(logits, target))


@FORMS
@pytest.mark.parametrize("spec", ["ce", "mse", "dice", "network"])
def test_a_class_to_ignore_is_refused_beside_soft_targets_as_torch_does(spec, form):
    logits, soft = problem((6, 4), "soft")
    with pytest.raises(RuntimeError):
        nn.CrossEntropyLoss(ignore_index=3)(logits, soft)
    with pytest.raises(ValueError, match="ignore_index = 3 leaves out class indices"):
        made(spec, form, ignore_index=3)(logits, soft)


def masked():
    """Logits of which one class, never a label, is masked, and hard labels."""
    logits, target = problem((6, 4), "hard")
    logits[:, 3] = -torch.inf
    return logits, target % 3


# Every class has a share.
INFINITE = (
    "label_smoothing",
    "logit_adjustment_smoothed",
    "softmax_margin_smoothed",
    "soft_ordinal",
)


@FORMS
@pytest.mark.parametrize("spec", [*(x for x in SPECS if x not in INFINITE), "dice"])
def test_a_masked_class_without_a_share_leaves_value_and_gradient_finite(spec, form):
    logits, hard = masked()
    soft = 0.7 * nn.functional.one_hot(hard, 4).double() + 0.3 * nn.functional.one_hot(
        (hard + 1) % 3, 4
    )
    shares = spec in ("targets", "start", *SHIPPED_TARGETS)
    for target in (hard, soft):
        loss = made(spec, form, weight=[1, 2, 3, 4])
        value, gradient = value_and_gradient(loss, logits, target)
        assert value.isfinite() != shares
        if not shares:
            assert gradient.isfinite().all()
            assert (gradient[:, 3] == 0).all()
        if spec in ("ce", "focal", "mse", "a2"):
            # By hand: as if the class were not there.
            weight = torch.tensor([1.0, 2.0, 3.0])
            fewer = made(spec, form, weight=weight)(
                logits[:, :3], target if target is hard else target[:, :3]
            )
            torch.testing.assert_close(value, fewer)


@pytest.mark.parametrize("form", ["criterion", "python"])
def test_a_masked_class_with_a_share_is_as_infinite_as_torch_has_it(form):
    logits, target = masked()
    for spec, options in (("ce", {"label_smoothing": 0.1}), ("label_smoothing", {}), ("start", {})):
        assert made(spec, form, **options)(logits, target) == torch.inf
    assert nn.CrossEntropyLoss(label_smoothing=0.1)(logits, target) == torch.inf


@pytest.mark.parametrize("spec", ["ce", "network"])
def test_a_program_keeps_the_contract(spec, tmp_path):
    logits, target = problem((6, 4), "hard", torch.float32)
    logits[target != 3, 3] = -torch.inf
    options = {"weight": [1, 2, 0, 4], "normalise": True, "ignore_index": 1}
    loss = program(loss_of(spec, **options), tmp_path / "loss.pt2")
    same(
        value_and_gradient(loss, logits, target),
        value_and_gradient(loss_of(spec, **options), logits, target),
        1e-5,
    )
    assert loss(logits, torch.ones_like(target)) == 0


def test_a_program_of_a_normalised_formula_takes_any_number_of_classes(tmp_path):
    loss = program(loss_of("mse", normalise=True), tmp_path / "loss.pt2")
    for classes in (2, 7):
        logits, target = problem((6, classes), "hard", torch.float32)
        torch.testing.assert_close(
            loss(logits, target), loss_of("mse", normalise=True)(logits, target)
        )


@pytest.mark.parametrize(
    "spec", ["ce", "ngl", "tree-fashionmnist", "network", "targets", "temperature"]
)
def test_a_module_for_others_is_normalised_alike(spec):
    logits, target = problem((6, 4), "hard")
    found = value_and_gradient(made(spec, "python", normalise=True), logits, target)
    same(found, value_and_gradient(loss_of(spec, normalise=True), logits, target), 1e-5)


@pytest.mark.parametrize("spec", ["ce", "network", "dice"])
def test_a_module_for_others_has_the_options_that_it_was_written_with(spec, tmp_path):
    logits, target = problem((6, 4), "hard", torch.float32)
    loss = loss_of(spec, weight=[1, 2, 0, 4], label_smoothing=0.1, ignore_index=1)
    module = written(loss, tmp_path / "loss.py")
    same(value_and_gradient(module, logits, target), value_and_gradient(loss, logits, target), 1e-5)
    assert list(module.state_dict()) == ["weight"]
    assert list(module.parameters()) == []


# --- graphs ---

# Checks of types are no part of a graph: this runs in a process of its own, where they are not
# made.
GRAPHS = """
import torch
import metaloss
from metaloss.criterion.genome import GenomeCriterion
from metaloss.genomes.mln import MetaLossNetwork
from metaloss.genomes.targets import LearnedTargets
from metaloss.core.streams import Stream

logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
target = torch.tensor([0, 1, 2, 3, -100, 1])


def start(genome):
    return GenomeCriterion(genome, genome.sample(1, Stream(0)))


def run(f):
    x = logits.clone().requires_grad_()
    value = f(x, target)
    return value.detach(), torch.autograd.grad(value, x)[0]


makers = [
    lambda: metaloss.load("mln-fashionmnist"),
    lambda: start(LearnedTargets()),
    lambda: start(LearnedTargets(clock=True)),
    lambda: start(MetaLossNetwork(clock=True, start="random")),
    lambda: start(MetaLossNetwork(architecture="figure3", fixed_classes=4, start="random")),
    lambda: metaloss.load("focal(gamma=2)"),
]
for make in makers:
    fresh = lambda: make().with_options(normalise=True, weight=[1, 2, 3, 4])
    expected = run(fresh())
    compiled = torch.compile(fresh(), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(run(compiled), expected)
    exported = torch.export.export(fresh(), (logits, target)).module()
    torch.testing.assert_close(run(exported), expected)
"""


def test_losses_are_compiled_and_exported_as_one_graph():
    subprocess.run([sys.executable, "-W", "ignore", "-c", GRAPHS], check=True)
