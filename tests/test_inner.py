"""P·T classifiers trained at once equal P·T ordinary torch loops, one after the other, in every optimiser setting."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from metaloss.classifiers.cnn import Cnn
from metaloss.classifiers.mlp import Mlp
from metaloss.classifiers.shared import SharedMlp
from metaloss.inner import Inner, accuracy, train
from metaloss.losses import CrossEntropies
from metaloss.streams import Stream

T, STEPS = 2, 6
KEYS = [Stream(0).at("task", t) for t in range(T)]
STARTS = [Stream(0).at("init", t) for t in range(T)]
SMOOTHING = torch.tensor([0.0, 0.1, 0.4], dtype=torch.float64)  # one candidate each
OPTIMISERS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.8, "nesterov": True},
    "decay": {"weight_decay": 0.1},
    "everything": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
}
optimisers = pytest.mark.parametrize("optimiser", OPTIMISERS.values(), ids=OPTIMISERS)
candidates = pytest.mark.parametrize("P", [1, 3])


def inner_of(optimiser):
    return Inner(steps=STEPS, lr=0.1, **optimiser)


def batched(model, bound, tasks, P, inner, lr=None):
    """The trained parameters of P cross-entropies, and their logits on the validation images."""
    losses = CrossEntropies(SMOOTHING[:P]).bind(tasks.train.target.double())
    params = train(losses, model, bound.init(P), bound.train, inner=inner, lr=lr)
    return params, model(params, bound.val).detach()


def one_by_one(networks, tasks, P, optimiser, lr):
    """The same with ordinary modules, each in a loop of its own: trained networks [P][T] and their logits."""
    trained, logits = [], []
    for p in range(P):
        for t in range(T):
            network = copy.deepcopy(networks[t]).double()
            sgd = torch.optim.SGD(network.parameters(), lr=float(lr[p]), **optimiser)
            for _ in range(STEPS):
                sgd.zero_grad()
                value = cross_entropy(
                    network(tasks.train.x()[t]), tasks.train.label[t], label_smoothing=float(SMOOTHING[p])
                )
                value.backward()
                sgd.step()
            trained.append(network)
            logits.append(network(tasks.val.x()[t]).detach())
    return [trained[p * T : (p + 1) * T] for p in range(P)], torch.stack(logits).unflatten(0, (P, T))


def linear(weight, bias):
    layer = nn.Linear(*weight.shape)
    return loaded(layer, weight.T, bias)


def loaded(layer, weight, bias):
    layer = layer.double()
    with torch.no_grad():
        layer.weight.copy_(weight.reshape(layer.weight.shape))
        layer.bias.copy_(bias[0])
    return layer


def perceptrons(start, depth):
    """Ordinary networks with these initial parameters, one per task."""
    networks = []
    for t in range(T):
        layers = [nn.Flatten()]
        for i in range(depth + 1):
            layers += [linear(start[f"w{i}"][t], start[f"b{i}"][t]), nn.ReLU()]
        networks.append(nn.Sequential(*layers[:-1]))
    return networks


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def tasks_of(episodes):
    return episodes.sample(KEYS)


@candidates
@optimisers
@pytest.mark.parametrize("hidden", [(), (5,), (5, 4), (6, 5, 4)], ids=len)
def test_batched_perceptrons_equal_torchs_own_loops(episodes, float64, hidden, optimiser, P):
    tasks, model = tasks_of(episodes), Mlp(hidden=hidden)
    bound = model.bind(tasks, STARTS)
    params, logits = batched(model, bound, tasks, P, inner_of(optimiser))
    networks, expected = one_by_one(perceptrons(bound.start, len(hidden)), tasks, P, optimiser, [0.1] * P)
    close(logits, expected)
    for p in range(P):
        for t in range(T):
            layers = [x for x in networks[p][t] if isinstance(x, nn.Linear)]
            for i, layer in enumerate(layers):
                close(params[f"w{i}"][p, t].T, layer.weight)
                close(params[f"b{i}"][p, t, 0], layer.bias)
    right = (expected.argmax(-1) == tasks.val.label).float().mean(-1)
    assert torch.equal(accuracy(logits, tasks.val.label), right)


@candidates
@optimisers
@pytest.mark.parametrize("hidden", [(5,), (6, 5, 4)], ids=len)
def test_the_shared_first_layer_changes_nothing(episodes, float64, hidden, optimiser, P):
    tasks, plain, shared = tasks_of(episodes), Mlp(hidden=hidden), SharedMlp(hidden=hidden)
    lr = torch.tensor([0.1, 0.3, 0.02])[:P]
    start = plain.bind(tasks, STARTS)
    params, logits = batched(plain, start, tasks, P, inner_of(optimiser), lr)
    others, same = batched(shared, shared.bind(tasks, STARTS), tasks, P, inner_of(optimiser), lr)
    close(same, logits)
    x = tasks.train.x().flatten(2)
    close(others["c"] * start.start["w0"] + x.transpose(1, 2) @ others["a"], params["w0"])
    for name in params.keys() - {"w0"}:
        close(others[name], params[name])


@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("filters", [(3,), (3, 4)], ids=len)
@pytest.mark.parametrize("optimiser", [OPTIMISERS["plain"], OPTIMISERS["everything"]], ids=["plain", "everything"])
def test_batched_convolutions_equal_torchs_own_loops(episodes, float64, filters, kernel, optimiser):
    P, tasks, model = 2, tasks_of(episodes), Cnn(filters=filters, kernel=kernel)
    bound = model.bind(tasks, STARTS)
    params, logits = batched(model, bound, tasks, P, inner_of(optimiser))
    start, before, after = bound.start, (kernel - 1) // 2, kernel // 2
    networks = []
    for t in range(T):
        layers, channels = [], 1
        for i, width in enumerate(filters):
            conv = loaded(nn.Conv2d(channels, width, kernel), start[f"w{i}"][t].T, start[f"b{i}"][t])
            layers += [nn.ZeroPad2d((before, after, before, after)), conv, nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
            channels = width
        networks.append(nn.Sequential(*layers, nn.Flatten(), linear(start["w_head"][t], start["b_head"][t])))
    trained, expected = one_by_one(networks, tasks, P, optimiser, [0.1] * P)
    close(logits, expected)
    for p in range(P):
        for t in range(T):
            close(params["w0"][p, t].T.reshape(filters[0], 1, kernel, kernel), trained[p][t][1].weight)
            close(params["w_head"][p, t].T, trained[p][t][-1].weight)


@pytest.mark.parametrize("optimiser", [OPTIMISERS["plain"], OPTIMISERS["everything"]], ids=["plain", "everything"])
def test_every_candidate_may_have_its_own_learning_rate(episodes, float64, optimiser):
    tasks, model, lr = tasks_of(episodes), Mlp(hidden=(5,)), torch.tensor([0.5, 0.01, 0.1], dtype=torch.float64)
    bound = model.bind(tasks, STARTS)
    _, logits = batched(model, bound, tasks, 3, inner_of(optimiser), lr)
    _, expected = one_by_one(perceptrons(bound.start, 1), tasks, 3, optimiser, lr)
    close(logits, expected)


def test_one_learning_rate_for_all_goes_before_the_familys(episodes, float64):
    tasks, model = tasks_of(episodes), Mlp(hidden=(5,))
    bound = model.bind(tasks, STARTS)
    _, one = batched(model, bound, tasks, 3, Inner(steps=STEPS, lr=0.7), 0.1)
    _, other = batched(model, bound, tasks, 3, Inner(steps=STEPS, lr=0.1), torch.full((3,), 0.1, dtype=torch.float64))
    close(one, other)


@candidates
@pytest.mark.parametrize("model", [Mlp(hidden=(5,)), SharedMlp(hidden=(5,)), Cnn(filters=(3,))], ids=repr)
def test_training_leaves_the_start_as_it_was(episodes, model, P):
    tasks = tasks_of(episodes)
    bound = model.bind(tasks, STARTS)
    before = {name: x.clone() for name, x in bound.start.items()}
    losses = CrossEntropies.of(P).bind(tasks.train.target)
    once = train(losses, model, bound.init(P), bound.train, inner=Inner(steps=2))
    assert all(torch.equal(bound.start[name], before[name]) for name in before)
    again = train(losses, model, bound.init(P), bound.train, inner=Inner(steps=2))
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_the_probe_sees_the_parameters_after_every_step(episodes):
    tasks, model, seen = tasks_of(episodes), Mlp(hidden=(5,)), []
    bound = model.bind(tasks, STARTS)
    losses = CrossEntropies.of(2).bind(tasks.train.target)

    def look(step, params):
        seen.append((step, params["w0"].clone()))

    train(losses, model, bound.init(2), bound.train, inner=Inner(steps=3), probe=look)
    assert [step for step, _ in seen] == [1, 2, 3]
    for step, weight in seen:
        shorter = train(losses, model, bound.init(2), bound.train, inner=Inner(steps=step))
        assert torch.equal(weight, shorter["w0"])


class Constant:
    """A loss that no logit changes, beside one that they do."""

    def __init__(self, losses):
        self.losses = losses

    def bind(self, target):
        return self

    def terms(self, logits):
        return self.losses.terms(logits) * torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)

    def __call__(self, logits):
        return self.terms(logits).sum(-1).mean(-1)

    def __len__(self):
        return 2

    def __getitem__(self, rows):
        return self


def test_a_loss_without_gradient_leaves_its_classifiers_untrained(episodes):
    tasks, model = tasks_of(episodes), Mlp(hidden=(5,))
    bound = model.bind(tasks, STARTS)
    losses = Constant(CrossEntropies.of(2).bind(tasks.train.target))
    params = train(losses, model, bound.init(2), bound.train, inner=Inner(steps=3))
    assert torch.equal(params["w1"][0], bound.start["w1"])
    assert not torch.equal(params["w1"][1], bound.start["w1"])


# --- accuracy ---


def test_accuracy_is_the_share_of_right_answers():
    logits = torch.tensor([[[[2.0, 1.0], [0.0, 1.0], [5.0, -1.0], [0.0, 0.1]]]])
    assert accuracy(logits, torch.tensor([[0, 0, 0, 1]])).tolist() == [[0.75]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_logit_that_is_not_finite_fails_its_classifier_alone(bad):
    logits, label = torch.zeros(2, 3, 4, 5), torch.zeros(3, 4, dtype=torch.int64)
    logits[1, 2, 3, 4] = bad
    score = accuracy(logits, label)
    assert score.isnan().nonzero().tolist() == [[1, 2]]
    assert (score[~score.isnan()] == 1).all()
