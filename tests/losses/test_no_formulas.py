"""Losses that are no formula of one class: against numpy, with padding, side by side, in use."""

import importlib.util
import json

import numpy as np
import pytest
import torch

import metaloss
from metaloss.core.streams import Stream
from metaloss.criterion.export import export
from metaloss.errors import DamagedFile, SettingsError
from metaloss.losses import phenotype, zoo
from metaloss.losses.base import TrainingTargets, one_hot
from metaloss.losses.batch_losses import BatchLosses
from metaloss.losses.image_losses import ImageLosses
from metaloss.losses.zoo_no_formulas import NO_FORMULAS
from metaloss.tasks.single_training import as_criterion

P, T, B, C = 2, 2, 8, 4


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# --- references: logits [B C], targets [B C], weights [B]; sums over the images one by one ---


def divided(above, below):
    return above / below if below else 0.0


def counts(share, y, w):
    """TP, FP, FN and TN of every class."""
    for c in range(y.shape[1]):
        f, t = share[:, c], y[:, c]
        pairs = ((t, f), (1 - t, f), (t, 1 - f), (1 - t, 1 - f))
        yield [sum(w[n] * a[n] * b[n] for n in range(len(w))) for a, b in pairs]


def dice(z, y, w, smooth=0.0):
    values = []
    for tp, fp, fn, _ in counts(softmax(z), y, w):
        value = 1 - (2 * tp + smooth) / (2 * tp + fp + fn + smooth)
        values.append(value if tp + fn > 0 else 0.0)
    return np.mean(values)


def soft_f1(z, y, w):
    return np.mean(
        [1 - divided(2 * tp, 2 * tp + fp + fn) for tp, fp, fn, _ in counts(softmax(z), y, w)]
    )


def double_soft_f1(z, y, w):
    return np.mean(
        [
            1 - divided(tp, 2 * tp + fp + fn) - divided(tn, 2 * tn + fp + fn)
            for tp, fp, fn, tn in counts(softmax(z), y, w)
        ]
    )


def expected(z, mu, delta):
    """The integral of the raised cosine up to p."""
    p = softmax(z).clip(mu - delta, mu + delta)
    return 0.5 * (1 + (p - mu) / delta + np.sin(np.pi * (p - mu) / delta) / np.pi)


def confusion(z, y, w, mu=0.5, delta=0.5):
    return np.mean(
        [
            1 - (divided(tp, tp + fn) + divided(tn, tn + fp) - 1)
            for tp, fp, fn, tn in counts(expected(z, mu, delta), y, w)
        ]
    )


def confusion_f1(z, y, w, mu, delta):
    values = []
    for tp, fp, fn, _ in counts(expected(z, mu, delta), y, w):
        precision, recall = divided(tp, tp + fp), divided(tp, tp + fn)
        values.append(1 - divided(2 * precision * recall, precision + recall))
    return np.mean(values)


def mean(values, w):
    return (values * w).sum() / w.sum()


def bootstrap_hard(z, y, w, beta=0.8, top=None):
    p = softmax(z)
    top = np.eye(z.shape[1])[p.argmax(1)] if top is None else top
    return mean(-((beta * y + (1 - beta) * top) * np.log(p)).sum(1), w)


def nce_rce(z, y, w, alpha=1.0, beta=1.0):
    logp = np.log(softmax(z))
    nce = (y * logp).sum(1) / logp.sum(1)
    rce = -(np.exp(logp) * np.log(y.clip(1e-4, 1))).sum(1)
    return mean(alpha * nce + beta * rce, w)


CASES = {
    "dice": dice,
    "dice(smooth=2)": lambda z, y, w: dice(z, y, w, 2),
    "soft_f1": soft_f1,
    "soft_f1(double=True)": double_soft_f1,
    "confusion": confusion,
    "confusion(mu=0.3, delta=0.25)": lambda z, y, w: confusion(z, y, w, 0.3, 0.25),
    "confusion(mu=0.4, delta=1, f1=True)": lambda z, y, w: confusion_f1(z, y, w, 0.4, 1),
    "bootstrap_hard": bootstrap_hard,
    "bootstrap_hard(beta=0.3)": lambda z, y, w: bootstrap_hard(z, y, w, 0.3),
    "nce_rce": nce_rce,
    "nce_rce(alpha=10, beta=0.1)": lambda z, y, w: nce_rce(z, y, w, 10, 0.1),
}
BATCH = [spec for spec in CASES if spec.partition("(")[0] in ("dice", "soft_f1", "confusion")]
specs = pytest.mark.parametrize("spec", CASES)


def losses(spec, n=P):
    return metaloss.load(spec).losses()[torch.zeros(n, dtype=torch.int64)]


def situation(dtype=torch.float64):
    """Logits, and labels among which the last class never is."""
    logits = (2 * Stream(5).normal(P, T, B, C)).to(dtype)
    return logits, one_hot(Stream(6).integers(C - 1, T, B), C).to(dtype)


@specs
@pytest.mark.parametrize("weighed", [False, True])
def test_values_and_gradients_are_those_of_the_formula_in_numpy(spec, weighed):
    logits, target = situation()
    weight = torch.tensor([2.0, 1, 0.5, 1, 3, 1, 1, 0]).double().expand(T, -1) if weighed else None
    bound = losses(spec).bind(TrainingTargets(target, weight))
    found, gradient = bound(logits), bound.logit_gradient(logits)
    for p, t in np.ndindex(P, T):
        z, y = logits[p, t].numpy(), target[t].numpy()
        w = np.ones(B) if weight is None else weight[t].numpy()
        assert float(found[p, t]) == pytest.approx(CASES[spec](z, y, w), rel=1e-10)
        slope = np.zeros_like(z)
        for place in np.ndindex(*z.shape):
            step = np.zeros_like(z)
            step[place] = 1e-6
            slope[place] = (CASES[spec](z + step, y, w) - CASES[spec](z - step, y, w)) / 2e-6
        np.testing.assert_allclose(gradient[p, t].numpy(), slope, rtol=1e-5, atol=1e-8)


@specs
@pytest.mark.parametrize("beyond", [0.0, torch.nan, torch.inf])
def test_an_image_that_pads_a_task_has_neither_value_nor_gradient(spec, beyond):
    logits, target = situation()
    weight = torch.tensor([1.0, 1, 1, 1, 1, 1, 0, 0]).double().expand(T, -1)
    real = losses(spec).bind(TrainingTargets(target[:, :6]))
    logits[:, :, 6:] += beyond
    padded = losses(spec).bind(TrainingTargets(target, weight))
    torch.testing.assert_close(padded(logits), real(logits[:, :, :6]))
    gradient = padded.logit_gradient(logits)
    torch.testing.assert_close(gradient[:, :, :6], real.logit_gradient(logits[:, :, :6]))
    assert gradient[:, :, 6:].eq(0).all()


@specs
def test_a_minibatch_is_its_images_alone(spec):
    logits, target = situation()
    index = torch.tensor([[5, 0, 1], [2, 5, 3]])
    weight = torch.tensor([0.5, 2, 1, 3, 1, 0, 1, 1]).double().expand(T, -1)
    rows = torch.arange(T)[:, None]
    part = losses(spec).bind(TrainingTargets(target[rows, index], weight[rows, index]))
    picked = losses(spec).bind(TrainingTargets(target, weight)).minibatch(index)
    some = logits[:, rows, index]
    torch.testing.assert_close(picked(some), part(some))
    torch.testing.assert_close(picked.logit_gradient(some), part.logit_gradient(some))


@specs
@pytest.mark.parametrize("images", [5, 8, 19, 50])
def test_a_classifier_s_bits_do_not_depend_on_its_neighbours(spec, images):
    logits = 2 * Stream(7).normal(5, 3, C, images).mT
    target = one_hot(Stream(8).integers(C, 3, images), C)
    weight = (Stream(9).uniform(3, images) > 0.2).float()
    every = losses(spec, 5).bind(TrainingTargets(target, weight)).logit_gradient(logits)
    for p, t in ((0, 0), (3, 1), (4, 2)):
        one = slice(p, p + 1), slice(t, t + 1)
        alone = losses(spec, 1).bind(TrainingTargets(target[one[1]], weight[one[1]]))
        assert torch.equal(every[one], alone.logit_gradient(logits[one].mT.contiguous().mT))


@pytest.mark.parametrize("entry", NO_FORMULAS, ids=lambda entry: entry.name)
def test_rows_have_parameters_of_their_own(entry):
    logits, target = situation()
    if not entry.grid:
        assert entry.variants == [entry.name]
        return
    each = [metaloss.load(spec).losses() for spec in (entry.variants[0], entry.variants[-1])]
    joined = type(each[0])(each[0].form, torch.cat([x.parameters for x in each]))
    assert [joined.row(i) for i in range(2)] == [x.form for x in each]
    together = joined.bind(TrainingTargets(target)).logit_gradient(logits)
    for i in range(2):
        row = slice(i, i + 1)
        alone = each[i].bind(TrainingTargets(target)).logit_gradient(logits[row])
        assert torch.equal(together[row], alone)
        assert torch.equal(
            joined[torch.tensor([i])].bind(TrainingTargets(target)).logit_gradient(logits[row]),
            alone,
        )


@specs
def test_training_and_episodes_have_one_value(spec):
    logits, target = situation()
    module = metaloss.load(spec)
    z = logits[0, 0].clone().requires_grad_()
    for y in (target[0].argmax(1), target[0], 0.8 * target[0] + 0.2 / C):
        soft = y if y.is_floating_point() else target[0]
        bound = losses(spec, 1).bind(TrainingTargets(soft[None]))
        value = module(z, y)
        torch.testing.assert_close(value, bound(logits[:1, :1])[0, 0])
        (gradient,) = torch.autograd.grad(value, z)
        torch.testing.assert_close(gradient, bound.logit_gradient(logits[:1, :1])[0, 0])
    ignored = module.with_options(ignore_index=-1)
    torch.testing.assert_close(
        ignored(torch.cat([z, 9 * z[:2]]), torch.cat([target[0].argmax(1), -torch.ones(2).long()])),
        module(z, target[0].argmax(1)),
    )
    assert float(ignored(z.detach(), -torch.ones(B).long())) == 0
    assert as_criterion(module.losses()).describe() == module.describe() == spec


@specs
def test_far_logits_leave_value_and_gradient_finite(spec):
    target = one_hot(torch.tensor([[0, 0, 1]]), C)
    for scale in (1e2, 1e4):
        logits = torch.zeros(1, 1, 3, C)
        logits[0, 0, 0, 0], logits[0, 0, 1, 0], logits[0, 0, 2, 3] = scale, -scale, scale
        bound = losses(spec, 1).bind(TrainingTargets(target))
        assert bound(logits).isfinite().all()
        assert bound.logit_gradient(logits).isfinite().all()


def test_one_class_alone_in_a_batch_is_defined():
    logits, _ = situation(torch.float32)
    target = one_hot(torch.zeros(T, B, dtype=torch.int64), C)
    for spec in BATCH:
        bound = losses(spec).bind(TrainingTargets(target))
        assert bound(logits).isfinite().all()
        assert bound.logit_gradient(logits).isfinite().all()


def test_soft_f1_has_the_gradient_of_dice_also_where_a_class_is_nowhere():
    logits, target = situation()
    one, two = (losses(x).bind(TrainingTargets(target)) for x in ("soft_f1", "dice"))
    torch.testing.assert_close(one.logit_gradient(logits), two.logit_gradient(logits))
    torch.testing.assert_close(one(logits), two(logits) + 1 / C)


@pytest.mark.parametrize(
    ("spec", "other"),
    [("bootstrap_hard(beta=1)", "ce"), ("nce_rce(alpha=0)", "sce(alpha=0, beta=1)")],
)
def test_what_an_image_loss_reduces_to(spec, other):
    logits, target = situation()
    one, two = (losses(x).bind(TrainingTargets(target)) for x in (spec, other))
    torch.testing.assert_close(one(logits), two(logits))
    torch.testing.assert_close(one.logit_gradient(logits), two.logit_gradient(logits))


def test_equally_probable_classes_share_the_choice():
    bound = losses("bootstrap_hard(beta=0)", 1).bind(TrainingTargets(torch.eye(C)[None, :1]))
    assert bound.logit_gradient(torch.zeros(1, 1, 1, C)).abs().max() < 1e-7


def test_single_images_are_refused_clearly():
    for spec in BATCH:
        with pytest.raises(SettingsError, match="reads a whole batch"):
            phenotype.curve(metaloss.load(spec).losses())
        with pytest.raises(ValueError, match="reduction must be 'mean'"):
            metaloss.load(spec, reduction="none")
        with pytest.raises(SettingsError, match="reads a whole batch"):
            zoo.read(spec)
    with pytest.raises(SettingsError, match="sees all classes of an image at once"):
        zoo.read("nce_rce")
    with pytest.raises(SettingsError, match="f1 must be True or False"):
        metaloss.load("confusion(f1=2)")


def test_an_image_loss_has_curves_gains_and_a_place_in_the_mean():
    assert phenotype.gain(losses("bootstrap_hard", 1), 10) == pytest.approx(0.8)
    assert len(phenotype.curve(losses("nce_rce", 1), 10)) == phenotype.POINTS
    logits, target = situation()
    each = metaloss.load("nce_rce", reduction="none")(logits[0, 0], target[0])
    assert each.shape == (B,)
    weights = torch.tensor([1.0, 2, 3, 4])
    found = metaloss.load("nce_rce", weight=weights)(logits[0, 0], target[0].argmax(1))
    w = weights.double()[target[0].argmax(1)]
    torch.testing.assert_close(found, (each * w).sum() / w.sum())


@specs
def test_files_hold_it(spec, tmp_path):
    loss = metaloss.load(spec)
    logits, target = situation(torch.float32)
    logits, label = logits[0, 0], target[0].argmax(1)
    export(loss, tmp_path / "kept" / "loss.json")
    kept = metaloss.load(tmp_path / "kept")
    assert kept.describe() == loss.describe() == spec
    assert kept.identity == loss.identity
    assert torch.equal(kept(logits, label), loss(logits, label))
    export(loss, tmp_path / "alone.py")
    place = importlib.util.spec_from_file_location("alone", tmp_path / "alone.py")
    alone = importlib.util.module_from_spec(place)
    place.loader.exec_module(alone)
    torch.testing.assert_close(alone.Loss()(logits, label), loss(logits, label))
    export(loss, tmp_path / "loss.tex")
    assert "frac" in (tmp_path / "loss.tex").read_text() or spec.startswith("bootstrap")


@pytest.mark.parametrize("spec", ["confusion", "nce_rce"])
def test_a_program_holds_it(spec, tmp_path):
    loss = metaloss.load(spec, normalise=spec == "nce_rce")
    logits, target = situation(torch.float32)
    export(loss, tmp_path / "loss.pt2")
    program = torch.export.load(tmp_path / "loss.pt2").module()
    label = target[0].argmax(1)
    torch.testing.assert_close(program(logits[0, 0], label), loss(logits[0, 0], label))


def test_a_file_with_a_wrong_parameter_is_damaged(tmp_path):
    export(metaloss.load("confusion"), tmp_path / "loss.json")
    table = json.loads((tmp_path / "loss.json").read_text())
    del table["sha256"]
    for change in ({"delta": "0.5"}, {"mu": 7.0}, {"f1": 1}):
        (tmp_path / "loss.json").write_text(json.dumps({**table, **change}))
        with pytest.raises(DamagedFile):
            metaloss.load(tmp_path)


def test_each_is_of_its_kind_and_has_a_reference():
    assert {entry.name for entry in NO_FORMULAS} == {spec.partition("(")[0] for spec in CASES}
    for entry in NO_FORMULAS:
        kind = BatchLosses if entry.name in ("dice", "soft_f1", "confusion") else ImageLosses
        assert isinstance(metaloss.load(entry.name).losses(), kind)
