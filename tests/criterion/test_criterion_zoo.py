"""Every published loss as a criterion.

Finite anywhere, with any shape and target, and with everything that torch does to a module.
"""

import copy
import math
import pickle

import pytest
import test_zoo
import torch
from test_criterion import SIZES, problem, value_and_gradient
from torch import nn

import metaloss
from metaloss.criterion.formula import FormulaCriterion
from metaloss.losses import zoo

NAMES = [name for name in zoo.names() if zoo.entry(name).text]
SPECS = [*NAMES, "focal(gamma=0.5)", "ngl(scaled=True)", "sum(-y * logp, temperature=0.5)"]
EVERY = pytest.mark.parametrize("spec", SPECS)
FEW = pytest.mark.parametrize(
    "spec", ["ce", "focal(gamma=0.5)", "temperature", "mse", "sce", "ngl", "a2", "r2"]
)
HALVES = (torch.float32, torch.float16, torch.bfloat16)
HUGE = 1e4
PLACES = {
    "0": torch.zeros(5, 3),
    "+": torch.full((5, 3), HUGE),
    "-": torch.full((5, 3), -HUGE),
    "mixed": HUGE
    * torch.tensor([[1.0, -1, 0], [-1, 1, 0], [1, 1, -1], [0, 0, 1], [1e-4, -1e-4, -1]]),
}


def close(found, expected, tolerance=1e-6):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def one_hot(label, classes, dtype=torch.float32):
    """Distributions [N C ...] that are certain of labels [N ...]."""
    return nn.functional.one_hot(label, classes).to(dtype).movedim(-1, min(1, label.ndim))


# --- values ---


@EVERY
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("where", PLACES)
def test_value_and_gradient_are_finite_at_extreme_logits(spec, where, dtype):
    loss = metaloss.load(spec)
    logits = PLACES[where].to(dtype)
    hard = torch.tensor([0, 0, 2, 1, 2])
    for target in (
        hard,
        one_hot(hard, 3, dtype),
        torch.tensor([0.5, 0.5, 0.0], dtype=dtype).repeat(5, 1),
    ):
        value, gradient = value_and_gradient(loss, logits, target)
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert gradient.dtype == dtype
        assert gradient.isfinite().all()


@EVERY
@pytest.mark.parametrize("classes", [2, 3, 100])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_value_and_gradient_are_those_of_a_reference_for_any_number_of_classes(
    spec, classes, kind, monkeypatch
):
    monkeypatch.setattr(test_zoo, "C", classes)  # some references read it
    logits, target = problem((6, classes), kind)
    y = target if kind == "soft" else one_hot(target, classes, torch.float64)
    cold = spec.endswith("temperature=0.5)")
    reference = test_zoo.REFERENCE["ce" if cold else spec]

    def expected(x, y):
        terms = reference(y, (x / (0.5 if cold else 1)).softmax(-1))
        return (terms.mean(-1) if spec.startswith("ngl") else terms.sum(-1)).mean()

    ours = value_and_gradient(metaloss.load(spec), logits, target)
    theirs = value_and_gradient(expected, logits, y)
    scale = theirs[1].abs().max()
    close(ours[0], theirs[0], 1e-9)
    close(ours[1] / scale, theirs[1] / scale, 1e-9)


@EVERY
@pytest.mark.parametrize("size", SIZES)
def test_a_one_hot_soft_target_is_the_hard_label(spec, size):
    logits, target = problem(SIZES[size], "hard", torch.float32)
    soft = one_hot(target, 4)
    for reduction in ("none", "mean"):
        loss = metaloss.load(spec).with_options(reduction=reduction)
        ours = value_and_gradient(loss, logits, soft)
        theirs = value_and_gradient(loss, logits, target)
        scale = 1 + theirs[1].abs().max()
        close(ours[0], theirs[0], 1e-5)
        close(ours[1] / scale, theirs[1] / scale)


@pytest.mark.parametrize(
    "spec", ["ce", "focal", "gce", "poly1", "a0", "a1", "a2", "m0", "taylorglo"]
)
def test_mixup_of_a_loss_that_is_linear_in_the_target_is_the_mix_of_its_values(spec):
    loss, (logits, target), share = metaloss.load(spec), problem((6, 4), "hard"), 0.3
    a = one_hot(target, 4, torch.float64)
    b = one_hot(target.flip(0), 4, torch.float64)
    mixed = loss(logits, share * a + (1 - share) * b)
    close(mixed, share * loss(logits, target) + (1 - share) * loss(logits, target.flip(0)), 1e-10)


@EVERY
@pytest.mark.parametrize("kind", ["hard", "ignored", "soft"])
def test_images_of_pixels_are_a_batch_of_pixels(spec, kind):
    logits, target = problem((2, 4, 3, 5), kind, torch.float32)
    flat = logits.permute(0, 2, 3, 1).reshape(-1, 4)
    flat_target = target.permute(0, 2, 3, 1).reshape(-1, 4) if kind == "soft" else target.flatten()
    for reduction in ("none", "mean", "sum"):
        loss = metaloss.load(spec).with_options(reduction=reduction)
        close(loss(logits, target).flatten(), loss(flat, flat_target).flatten(), 1e-5)


@EVERY
def test_ignored_places_count_for_nothing_even_where_their_logits_are_not_finite(spec):
    logits, target = problem((8, 4), "hard", torch.float32)
    wild = logits.clone()
    marked = target.clone()
    marked[::2], wild[0], wild[2] = 9, torch.nan, torch.inf
    loss = metaloss.load(spec).with_options(ignore_index=9)
    close(loss(wild, marked), metaloss.load(spec)(logits[1::2], target[1::2]), 1e-5)
    each = loss.with_options(reduction="none")(wild, marked)
    assert (each[::2] == 0).all()
    assert (each[1::2] != 0).all()


@EVERY
@pytest.mark.parametrize("weighted", [False, True])
def test_pixels_marked_255_have_no_value_and_no_gradient_and_classes_keep_their_weights(
    spec, weighted
):
    logits, target = problem((2, 4, 3, 5), "hard", torch.float32)
    target[0, 1], target[1, :, 2] = 255, 255
    logits = logits.detach().requires_grad_()
    counts = target != 255
    weight = torch.tensor([0.5, 2.0, 0.1, 1.0]) if weighted else None
    loss = metaloss.load(spec).with_options(weight=weight)
    value = loss.with_options(ignore_index=255)(logits, target)
    close(value, loss(logits.detach().movedim(1, -1)[counts], target[counts]), 1e-5)
    value.backward()
    left_out = ~counts[:, None].expand_as(logits)
    assert logits.grad.isfinite().all()
    assert (logits.grad[left_out] == 0).all()
    assert logits.grad.any()


@EVERY
def test_mean_and_sum_are_those_of_the_single_values(spec):
    for kind in ("hard", "soft"):
        logits, target = problem((3, 4, 2), kind, torch.float32)
        loss = metaloss.load(spec)
        each = loss.with_options(reduction="none")(logits, target)
        assert each.shape == (3, 2)
        assert len(each.unique()) > 1
        close(loss(logits, target), each.mean(), 1e-5)
        close(loss.with_options(reduction="sum")(logits, target), each.sum(), 1e-5)


@EVERY
def test_smoothed_labels_are_smoothed_targets(spec):
    logits, target = problem((6, 4), "hard")
    smooth = 0.8 * one_hot(target, 4, torch.float64) + 0.2 / 4
    close(
        metaloss.load(spec).with_options(label_smoothing=0.2)(logits, target),
        metaloss.load(spec)(logits, smooth),
    )


# --- options ---


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("kind", ["hard", "ignored", "soft"])
@pytest.mark.parametrize("size", SIZES)
def test_ce_is_torch_s_own_with_every_option(size, kind, reduction, weighted, smoothing):
    weight = torch.tensor([0.5, 2.0, 0.0, 1.0], dtype=torch.float64) if weighted else None
    options = {"reduction": reduction, "weight": weight, "label_smoothing": smoothing}
    logits, target = problem(SIZES[size], kind)
    ours = value_and_gradient(metaloss.load("ce").with_options(**options), logits, target)
    close(ours, value_and_gradient(nn.CrossEntropyLoss(**options), logits, target))


@pytest.mark.parametrize("ignored", [-100, -1, 0, 3, 255])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ce_ignores_what_torch_s_ignores(ignored, reduction, smoothing):
    logits, target = problem((8, 4), "hard")
    target[::3] = ignored
    weight = torch.tensor([0.5, 2.0, 0.1, 1.0], dtype=torch.float64)
    options = {
        "ignore_index": ignored,
        "reduction": reduction,
        "label_smoothing": smoothing,
        "weight": weight,
    }
    ours = value_and_gradient(metaloss.load("ce").with_options(**options), logits, target)
    close(ours, value_and_gradient(nn.CrossEntropyLoss(**options), logits, target))


@pytest.mark.parametrize("dtype", HALVES)
def test_ce_of_ordinary_logits_is_torch_s_in_float32(dtype):
    logits, target = problem((50, 10), "hard", torch.float32)
    ours = metaloss.load("ce")(logits.to(dtype), target)
    close(ours, nn.CrossEntropyLoss()(logits.to(dtype).float(), target))


@EVERY
def test_a_weight_of_one_changes_nothing_and_one_of_two_doubles_the_sum(spec):
    for kind in ("ignored", "soft"):
        logits, target = problem((6, 4), kind, torch.float32)
        loss = metaloss.load(spec)
        close(loss.with_options(weight=torch.ones(4))(logits, target), loss(logits, target), 1e-5)
        doubled = loss.with_options(weight=torch.full((4,), 2.0), reduction="sum")
        close(doubled(logits, target), 2 * loss.with_options(reduction="sum")(logits, target), 1e-5)


@EVERY
@pytest.mark.parametrize("classes", [2, 10])
def test_a_normalised_loss_pulls_at_first_as_hard_as_cross_entropy(spec, classes):
    loss = metaloss.load(spec).with_options(normalise=True)
    gain = loss.gain(classes)
    if abs(gain) < 1e-9:
        pytest.skip("pulls at nothing where the classifier is unsure")
    gradients = [
        value_and_gradient(each, torch.zeros(1, classes, dtype=torch.float64), torch.tensor([0]))[1]
        for each in (loss, nn.CrossEntropyLoss())
    ]
    close(*gradients)


def test_normalising_divides_by_the_gain_of_the_number_of_classes_at_hand():
    plain = metaloss.load("mse")
    loss = metaloss.load("mse").with_options(normalise=True)
    for classes in (2, 10):
        logits, target = problem((5, classes), "hard")
        # By hand: -∂/∂z of (1 - p)² + Σ p_c² at p = 1/C is 2/C of cross-entropy's 1 - 1/C.
        assert loss.gain(classes) == pytest.approx(2 / classes, rel=1e-9)
        close(loss(logits, target), plain(logits, target) * classes / 2)


# --- a module like any other ---


@EVERY
def test_it_has_no_parameters_and_is_copied_pickled_and_restored(spec):
    weight = torch.tensor([0.5, 2.0, 0.1, 1.0])
    loss = metaloss.load(spec).with_options(weight=weight, label_smoothing=0.1)
    assert list(loss.parameters()) == []
    assert [name for name, _ in loss.named_buffers()] == ["weight"]
    logits, target = problem((6, 4), "hard", torch.float32)
    expected = loss(logits, target)
    restored = metaloss.load(spec).with_options(weight=torch.ones(4), label_smoothing=0.1)
    assert restored(logits, target) != expected
    restored.load_state_dict(loss.state_dict())
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), restored):
        assert torch.equal(other(logits, target), expected)
        assert (str(other.formula), other.about) == (
            str(loss.formula),
            metaloss.load(spec).about,
        ) or other is restored
        other.weight.zero_()
    assert torch.equal(loss(logits, target), expected)


@EVERY
def test_it_follows_the_device_and_the_numbers_of_its_input(spec):
    loss = metaloss.load(spec).with_options(weight=torch.ones(4))
    logits = torch.empty(6, 4, device="meta")
    # Autocast knows nothing of this device.
    terms = copy.deepcopy(loss).to("meta").terms(logits, logits)
    assert (terms.device.type, terms.shape, terms.dtype) == ("meta", (6, 4), torch.float32)
    logits, target = problem((6, 4), "hard")
    assert loss(logits, target).dtype == loss.double()(logits, target).dtype == torch.float64
    assert loss.double()(logits.float(), target).dtype == torch.float32


@FEW
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_it_compiles_in_one_graph(spec, kind):
    torch.compiler.reset()
    loss = metaloss.load(spec).with_options(label_smoothing=0.1)
    logits, target = problem((6, 4), kind, torch.float32)
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    ours = value_and_gradient(compiled, logits, target)
    theirs = value_and_gradient(loss, logits, target)
    close(ours, theirs)


@FEW
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_of_its_gradient_is_a_loop(spec):
    loss, (logits, _) = metaloss.load(spec), problem((3, 5, 4), "soft", torch.float32)
    for target in (torch.arange(5) % 4, one_hot(torch.arange(5) % 4, 4)):
        found = torch.func.vmap(torch.func.grad(loss), (0, None))(logits, target)
        close(found, torch.stack([value_and_gradient(loss, x, target)[1] for x in logits]), 1e-5)


@EVERY
def test_it_computes_in_float32_inside_autocast(spec):
    loss, (features, target) = metaloss.load(spec), problem((6, 4), "hard", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        half = nn.Linear(4, 4)(features)
        value = loss(half, target)
        soft = loss(half, one_hot(target, 4).bfloat16())
    assert half.dtype == torch.bfloat16
    assert value.dtype == soft.dtype == torch.float32
    assert torch.equal(value, loss(half.float(), target))
    close(soft, value, 1e-5)


@pytest.fixture
def alone(tmp_path):
    """A process group of this process."""
    from torch import distributed

    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


class Scored(nn.Module):
    """A classifier that gives its own loss, so that the loss is inside what is wrapped."""

    def __init__(self, loss):
        super().__init__()
        self.classifier = nn.Linear(4, 3)
        self.loss = loss

    def forward(self, x, target):
        return self.loss(self.classifier(x), target)


@FEW
def test_distributed_training_has_the_same_gradients(spec, alone):
    features = problem((6, 4), "soft", torch.float32)[0]
    target = torch.arange(6) % 3
    model = Scored(metaloss.load(spec).with_options(weight=torch.tensor([1.0, 2.0, 3.0])))
    wrapped = nn.parallel.DistributedDataParallel(copy.deepcopy(model))
    for each in (model, wrapped):
        each(features, target).backward()
    close(wrapped.module.classifier.weight.grad, model.classifier.weight.grad)
    assert model.classifier.weight.grad.abs().max() > 0


@EVERY
def test_it_shows_its_formula(spec):
    loss = metaloss.load(spec)
    assert isinstance(loss, FormulaCriterion)
    assert repr(loss) == f"Criterion({loss.formula})"
    assert (
        f"Criterion({loss.formula}, reduction='sum', label_smoothing=0.1, normalise=True)"
        == repr(loss.with_options(reduction="sum", label_smoothing=0.1, normalise=True))
    )
    latex = loss._repr_latex_()
    assert latex == f"${loss.formula.latex()}$"
    assert r"\hat{y}" in latex


def test_a_loss_that_reads_the_true_class_alone_is_not_computed_for_the_others(monkeypatch):
    shapes = []
    spy = FormulaCriterion._evaluate
    monkeypatch.setattr(
        FormulaCriterion,
        "_evaluate",
        lambda self, e, y, *rest: shapes.append(tuple(y.shape)) or spy(self, e, y, *rest),
    )
    logits, target = problem((6, 1000), "hard", torch.float32)
    for spec in ("ce", "mse", "square(y)*logp", "mse + ce", "baikal"):
        metaloss.load(spec.replace("mse + ce", "square(p - y) - y*logp"))(logits, target)
    assert shapes == [(6, 1), (6, 1000), (6, 1), (6, 1), (6, 1000), (6, 1), (6, 1000)]
    assert math.isclose(
        metaloss.load("ce")(logits, target), nn.CrossEntropyLoss()(logits, target), rel_tol=1e-6
    )
