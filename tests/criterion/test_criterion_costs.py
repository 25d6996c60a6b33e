"""A criterion that is told what each mistake costs, and what is written of it."""

import pytest
import torch
from test_export import program, written

import metaloss
from metaloss.criterion import loss_io
from metaloss.criterion.export import export
from metaloss.errors import SettingsError

COSTS = torch.tensor([[0.0, 1, 2, 3], [5, 0, 1, 1], [2, 2, 0, 7], [4, 1, 1, 0]])
SPECS = (
    "softmax_margin(tau=1.5)",
    "expected_cost",
    "mean(-y*logp*exp(-.5*cost) + p*cost**2)",
    "sum(-y*logp, scale=exp(.1*cost), shift=cost*count**-.25, temperature=.7)",
)
specs = pytest.mark.parametrize("spec", SPECS)


def situation():
    torch.manual_seed(0)
    return torch.randn(7, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 2, 1])


@specs
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("costs", [None, COSTS])
def test_hard_labels_and_the_same_as_soft_ones_have_one_value(spec, smoothing, costs):
    logits, label = situation()
    loss = metaloss.load(spec, costs=costs, label_smoothing=smoothing)
    soft = torch.nn.functional.one_hot(label, 4).double()
    torch.testing.assert_close(loss(logits, label), loss(logits, soft))


@specs
def test_equal_costs_change_nothing_and_others_do(spec):
    logits, label = situation()
    loss = metaloss.load(spec)
    assert loss.reads_costs
    alike = loss.with_options(costs=2 - 2 * torch.eye(4))
    assert torch.equal(loss(logits, label), alike(logits, label))
    assert not torch.allclose(
        loss(logits, label), loss.with_options(costs=COSTS)(logits, label), rtol=1e-3
    )


def test_the_unit_and_what_right_answers_cost_do_not_matter():
    logits, label = situation()
    loss = metaloss.load(SPECS[0], costs=COSTS)
    other = metaloss.load(SPECS[0], costs=(3 * COSTS + torch.arange(4.0)[:, None]).tolist())
    torch.testing.assert_close(loss(logits, label), other(logits, label))


@specs
def test_what_is_written_carries_the_costs(spec, tmp_path):
    logits, label = (x.float() if x.is_floating_point() else x for x in situation())
    loss = metaloss.load(spec, costs=COSTS)
    expected = loss(logits, label)
    torch.testing.assert_close(written(loss, tmp_path / "loss.py")(logits, label), expected)
    torch.testing.assert_close(program(loss, tmp_path / "loss.pt2")(logits, label), expected)
    export(loss, tmp_path / "shared" / "loss.json")
    read = metaloss.load(tmp_path / "shared")
    assert torch.equal(read(logits, label), expected)
    assert loss_io.load(spec).costs is None


def test_normalising_is_by_the_pull_where_mistakes_cost_alike(tmp_path):
    logits, label = (x.float() if x.is_floating_point() else x for x in situation())
    loss = metaloss.load(SPECS[0], costs=COSTS, normalise=True)
    plain = metaloss.load(SPECS[0], costs=COSTS)
    assert loss.gain(4) == metaloss.load(SPECS[0]).gain(4)
    torch.testing.assert_close(loss(logits, label), plain(logits, label) / loss.gain(4))
    torch.testing.assert_close(
        written(loss, tmp_path / "loss.py")(logits, label), loss(logits, label)
    )


@pytest.mark.parametrize("spec", ["mean(-y*logp*exp(-logprior))", "mean(cost*p*prior)"])
def test_a_program_that_normalises_is_by_the_same_pull(spec, tmp_path):
    logits, label = (x.float() if x.is_floating_point() else x for x in situation())
    told = {"prior": [4, 3, 2, 1]} | ({"costs": COSTS} if "cost" in spec else {})
    loss = metaloss.load(spec, normalise=True, **told)
    expected = metaloss.load(spec, **told)(logits, label) / loss.gain(4)
    fresh = metaloss.load(spec, normalise=True, **told)
    torch.testing.assert_close(program(fresh, tmp_path / "x.pt2")(logits, label), expected)


def test_costs_are_in_no_state_dict_and_follow_the_module():
    loss = metaloss.load(SPECS[0], costs=COSTS.long())
    assert not loss.state_dict()
    assert loss.double().costs.dtype == torch.float64
    assert not metaloss.load("ce").reads_costs


@pytest.mark.parametrize("spec", ["ce", "logit_adjustment", "soft_f1", "mln-fashionmnist"])
def test_costs_are_refused_by_a_loss_that_does_not_see_them(spec):
    with pytest.raises(SettingsError, match="does not see what mistakes cost, so costs= would"):
        metaloss.load(spec, costs=COSTS)
    with pytest.raises(SettingsError, match="does not see what mistakes cost"):
        metaloss.load(spec).with_options(costs=COSTS)
    assert metaloss.load(spec, costs=None).costs is None


def test_costs_that_do_not_fit_are_refused(tmp_path):
    logits, label = situation()
    with pytest.raises(ValueError, match="costs has 3 rows, one per class, and the logits have 4"):
        metaloss.load(SPECS[0], costs=COSTS[:3, :3])(logits, label)
    many = metaloss.load(SPECS[0], costs=1 - torch.eye(200))
    with pytest.raises(SettingsError, match="room for the costs of 150 classes, not of 200"):
        loss_io.save(tmp_path, many, "# many\n")
