"""A criterion that is told how far a training is, and what is written of it."""

import copy
import json
import math
import pickle

import pytest
import torch
from test_export import program, written

import metaloss
from metaloss.criterion.base import clock_readers
from metaloss.criterion.export import export
from metaloss.errors import DamagedFile, SettingsError
from metaloss.losses.base import TrainingTargets

SPECS = (
    "-y*logp*(1 + t)",
    "sum(-y*logp + .1*logn*p*p)",
    "mean(-y*logp*(1 + t), temperature=2, scale=1 + .2*t, shift=.1*logn*y)",
)
specs = pytest.mark.parametrize("spec", SPECS)


def situation():
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 4


def expected(spec, logits, label, step, steps):
    """The value where t and ln N are written as numbers."""
    text = spec.replace("logn", repr(math.log(steps))).replace("*t", f"*{step / steps!r}")
    return metaloss.load(text.replace("+ t", f"+ {step / steps!r}"))(logits, label)


@specs
def test_it_is_what_its_formula_says_at_this_step(spec):
    logits, label = situation()
    loss = metaloss.load(spec)
    torch.testing.assert_close(loss(logits, label), expected(spec, logits, label, 25, 50))
    for step, steps in ((0, 20), (7, 20), (400, 400), (3, 4)):
        assert loss.at(step, steps) is loss
        torch.testing.assert_close(loss(logits, label), expected(spec, logits, label, step, steps))
        soft = torch.nn.functional.one_hot(label, 4).float()
        torch.testing.assert_close(loss(logits, soft), loss(logits, label))
    again = loss.with_options(reduction="mean")
    torch.testing.assert_close(again(logits, label), expected(spec, logits, label, 25, 50))
    with pytest.raises(ValueError, match="got step 21 of 20"):
        loss.at(21, 20)


@specs
def test_what_is_written_carries_the_clock(spec, tmp_path):
    logits, label = situation()
    loss = metaloss.load(spec, steps=400)
    at_first = expected(spec, logits, label, 200, 400)
    module = written(loss, tmp_path / "loss.py")
    exported = program(loss, tmp_path / "loss.pt2")
    export(loss, tmp_path / "shared" / "loss.json")
    read = metaloss.load(tmp_path / "shared")
    assert read.steps == 400
    assert "half-way through 400 steps" in (tmp_path / "shared" / "card.md").read_text()
    assert "half-way through 400 steps" in (tmp_path / "loss.py").read_text()
    for x in (loss, module, exported, read):
        torch.testing.assert_close(x(logits, label), at_first)
    for x in (loss, module, read):
        x.at(1, 10)
    exported.clock.copy_(loss.clock)
    for x in (loss, module, exported, read):
        torch.testing.assert_close(x(logits, label), expected(spec, logits, label, 1, 10))


@pytest.mark.parametrize("steps", [0, 2.5, "many", True, [3]])
def test_a_file_with_a_wrong_number_of_steps_is_damaged(steps, tmp_path):
    export(metaloss.load(SPECS[0], steps=7), tmp_path / "x" / "loss.json")
    path = tmp_path / "x" / "loss.json"
    table = json.loads(path.read_text())
    del table["sha256"]
    path.write_text(json.dumps({**table, "steps": steps}))
    with pytest.raises(DamagedFile, match="steps must be a whole number from 1 on"):
        metaloss.load(tmp_path / "x")


def test_losses_without_a_clock_stay_as_they_are():
    logits, label = situation()
    loss = metaloss.load("focal")
    assert not loss.reads_clock
    assert loss.clock is None
    assert not loss.clock_note
    before = loss(logits, label)
    assert torch.equal(loss.at(3, 20)(logits, label), before)
    with pytest.raises(
        SettingsError, match="does not see how far the training is, so steps= would"
    ):
        metaloss.load("focal", steps=20)


@specs
def test_the_clock_follows_the_module_and_is_in_no_state_dict(spec):
    logits, label = situation()
    loss = metaloss.load(spec).at(3, 20)
    assert not loss.state_dict()
    assert loss.double().clock.dtype == torch.float64
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        torch.testing.assert_close(other(logits, label), loss(logits, label))
        other.at(19, 30)
        assert not torch.allclose(other(logits, label), loss(logits, label))


@specs
def test_normalising_is_by_the_pull_of_the_first_step(spec, tmp_path):
    logits, label = situation()
    loss = metaloss.load(spec, normalise=True)
    module = written(loss, tmp_path / "loss.py")
    for step, steps in ((9, 10), (3, 100)):
        plain = metaloss.load(spec).at(step, steps)
        loss.at(step, steps)
        module.at(step, steps)
        first = metaloss.load(spec).at(0, steps)
        assert plain.gain(4) == pytest.approx(first.gain(4))
        pull = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
        first.double()(pull, label[:1]).backward()
        assert first.gain(4) == pytest.approx(-float(pull.grad[0, 0]) * 4 / 3, rel=1e-5)
        divided = plain(logits, label) / first.gain(4)
        torch.testing.assert_close(loss(logits, label), divided, check_dtype=False)
        torch.testing.assert_close(module(logits, label), divided, check_dtype=False)


def test_compiled_it_is_one_graph_for_all_steps():
    torch.compiler.reset()
    logits, label = situation()
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    loss = metaloss.load(SPECS[0], normalise=True)
    plain = metaloss.load(SPECS[0], normalise=True)
    compiled = torch.compile(loss, backend=backend, fullgraph=True)
    values = []
    for step in range(5):
        loss.at(step, 5)
        values.append(float(compiled(logits, label)))
        assert values[-1] == pytest.approx(float(plain.at(step, 5)(logits, label)))
    assert len(set(values)) == 5
    assert len(graphs) == 1
    torch.compiler.reset()


def test_the_losses_of_a_module_that_see_the_clock_are_found(tmp_path):
    clock, other = metaloss.load(SPECS[0]), metaloss.load("ce")
    exported = written(clock, tmp_path / "loss.py")
    network = torch.nn.ModuleDict({"a": clock, "b": other, "c": torch.nn.Sequential(exported)})
    assert clock_readers(network) == [clock, exported]
    assert clock_readers(clock) == [clock]
    assert clock_readers(other) == []


def test_a_loss_that_is_divided_by_its_gain_is_so_wherever_it_trains(tmp_path):
    logits, label = situation()
    export(metaloss.load("-30*y*logp", normalise=True), tmp_path / "x" / "loss.json")
    loss = metaloss.load(tmp_path / "x")
    assert loss.normalise
    torch.testing.assert_close(loss(logits, label), metaloss.load("ce")(logits, label))
    targets = TrainingTargets(torch.nn.functional.one_hot(label, 4)[None].float())
    ours, ce = (x.losses_as_used().bind(targets) for x in (loss, metaloss.load("ce")))
    z = logits[None, None]
    torch.testing.assert_close(ours.logit_gradient(z), ce.logit_gradient(z))
    assert not loss.with_options(normalise=False).normalise
