"""A criterion that is told how many images each class has, and what is written of it."""

import pytest
import torch
from test_export import program, written

import metaloss
from metaloss.criterion import loss_io
from metaloss.criterion.export import export
from metaloss.errors import SettingsError

COUNTS = torch.tensor([20.0, 5, 2, 0])
LABELS = torch.tensor([0] * 20 + [1] * 5 + [2] * 2)
SPECS = (
    "sum(-y*logp, shift=1.5*logprior)",
    "sum(-y*logp, scale=2, shift=-2*y*count**-.25, temperature=.7)",
    "mean(-y*logp*exp(-logprior) + p*prior)",
    "sum(-y*logp*exp(-.5*logprior), scale=exp(.1*logprior), shift=logprior)",
)
specs = pytest.mark.parametrize("spec", SPECS)


def situation():
    torch.manual_seed(0)
    return torch.randn(7, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 2, 1])


@specs
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_hard_labels_and_the_same_as_soft_ones_have_one_value(spec, smoothing):
    logits, label = situation()
    loss = metaloss.load(spec, prior=COUNTS, label_smoothing=smoothing)
    soft = torch.nn.functional.one_hot(label, 4).double()
    torch.testing.assert_close(loss(logits, label), loss(logits, soft))


@specs
def test_an_even_prior_changes_nothing(spec):
    logits, label = situation()
    one, other = metaloss.load(spec), metaloss.load(spec, prior=[1, 1, 1, 1])
    assert torch.equal(one(logits, label), other(logits, label))


@specs
def test_a_prior_is_fitted_to_labels(spec):
    logits, label = situation()
    loss = metaloss.load(spec).fit_prior(LABELS, classes=4)
    assert loss.prior.tolist() == COUNTS.tolist()
    assert loss.reads_prior
    told = metaloss.load(spec, prior=COUNTS)
    assert torch.equal(loss(logits, label), told(logits, label))
    assert not torch.equal(loss(logits, label), metaloss.load(spec)(logits, label))


@specs
def test_what_is_written_carries_the_prior(spec, tmp_path):
    logits, label = (x.float() if x.is_floating_point() else x for x in situation())
    loss = metaloss.load(spec, prior=COUNTS)
    expected = loss(logits, label)
    torch.testing.assert_close(written(loss, tmp_path / "loss.py")(logits, label), expected)
    torch.testing.assert_close(program(loss, tmp_path / "loss.pt2")(logits, label), expected)
    export(loss, tmp_path / "shared" / "loss.json")
    read = metaloss.load(tmp_path / "shared")
    assert torch.equal(read(logits, label), expected)
    assert loss_io.load(spec).prior is None


def test_normalising_is_by_the_pull_among_even_classes(tmp_path):
    logits, label = (x.float() if x.is_floating_point() else x for x in situation())
    loss = metaloss.load(SPECS[0], prior=COUNTS, normalise=True)
    torch.testing.assert_close(
        loss(logits, label), metaloss.load(SPECS[0], prior=COUNTS)(logits, label)
    )
    torch.testing.assert_close(
        written(loss, tmp_path / "loss.py")(logits, label), loss(logits, label)
    )


def test_a_prior_is_in_no_state_dict_and_follows_the_module():
    loss = metaloss.load(SPECS[0], prior=COUNTS)
    assert not loss.state_dict()
    assert loss.double().prior.dtype == torch.float64


def test_a_loss_without_the_shares_is_the_same_when_it_is_told_of_them(tmp_path):
    logits, label = situation()
    loss = metaloss.load("focal")
    assert not loss.reads_prior
    told = loss.fit_prior(LABELS, 4)
    assert torch.equal(loss(logits, label), told(logits, label))
    metaloss.export(told, tmp_path / "told" / "loss.json")
    assert torch.equal(metaloss.load(tmp_path / "told").prior, told.prior)


@pytest.mark.parametrize("spec", ["focal", "softmax_margin", "dice"])
def test_a_prior_is_refused_by_a_loss_that_does_not_see_it(spec):
    with pytest.raises(SettingsError, match="does not see the classes' shares, so prior= would"):
        metaloss.load(spec, prior=COUNTS)
    assert metaloss.load(spec, prior=None).prior is None


def test_priors_that_do_not_fit_are_refused():
    logits, label = situation()
    with pytest.raises(ValueError, match="prior has 3 numbers, one per class"):
        metaloss.load(SPECS[0], prior=[1, 2, 3])(logits, label)
    for labels, found in (([-1, 2], "-1 to 2"), ([0, 9], "0 to 9"), ([-100], "none")):
        with pytest.raises(ValueError, match=f"class indices from 0 to 3, got {found}"):
            metaloss.load(SPECS[0]).fit_prior(torch.tensor(labels), classes=4)


def test_labels_that_are_no_whole_numbers_are_refused():
    loss = metaloss.load(SPECS[0])
    for labels, found in (([0.0, 1.5], "1.5"), ([0.2, 0.8], "0.2"), ([1.0, torch.nan], "nan")):
        with pytest.raises(ValueError, match=f"whole numbers, got {found}"):
            loss.fit_prior(torch.tensor(labels), classes=4)
    whole = torch.tensor([0.0, 2.0, 2.0, 3.0])
    assert torch.equal(loss.fit_prior(whole, 4).prior, loss.fit_prior(whole.long(), 4).prior)
