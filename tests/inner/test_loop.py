"""P·T classifiers trained at once equal P·T ordinary torch loops, for every optimiser setting."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from metaloss import kernels
from metaloss.core.streams import Stream
from metaloss.inner.classifiers._compiled import CompiledMlp
from metaloss.inner.classifiers._compiled_cnn import CompiledCnn
from metaloss.inner.classifiers.cnn import Cnn
from metaloss.inner.classifiers.linear import Linear, SharedLinear
from metaloss.inner.classifiers.mlp import Mlp
from metaloss.inner.classifiers.shared import SharedMlp
from metaloss.inner.loop import Inner, batches, train
from metaloss.inner.observers import accuracy
from metaloss.losses.base import CrossEntropies, TrainingTargets, logit_gradient_by_autograd

T = 2
STEPS = 6
KEYS = [Stream(0).at("task", t) for t in range(T)]
STARTS = [Stream(0).at("init", t) for t in range(T)]
SMOOTHING = torch.tensor([0.0, 0.1, 0.4], dtype=torch.float64)  # one candidate each
SGD = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.8, "nesterov": True},
    "decay": {"weight_decay": 0.1},
    "everything": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
    "batch": {"batch": 4},
    "cosine": {"schedule": "cosine"},
    "all at once": {
        "batch": 4,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 0.05,
        "schedule": "linear",
    },
}
ADAM = {
    "adam": {"optimiser": "adam", "betas": (0.8, 0.9), "eps": 1e-6},
    "adam with decay": {"optimiser": "adam", "weight_decay": 0.1, "batch": 4},
    "adamw": {"optimiser": "adamw", "weight_decay": 0.1, "schedule": "cosine"},
}
optimisers = pytest.mark.parametrize("settings", SGD.values(), ids=SGD)
every_optimiser = pytest.mark.parametrize(
    "settings", [*SGD.values(), *ADAM.values()], ids=[*SGD, *ADAM]
)
few_optimisers = pytest.mark.parametrize(
    "settings", [{}, SGD["all at once"]], ids=["plain", "all at once"]
)
candidates = pytest.mark.parametrize("P", [1, 3])
CONVOLUTIONS = [Cnn]
FORMS = {"one layer": (SharedMlp, (5,)), "three layers": (SharedMlp, (6, 5, 4))}
if kernels.available():
    CONVOLUTIONS += [CompiledCnn]
    FORMS |= {
        "one layer, compiled": (CompiledMlp, (16,)),
        "three layers, compiled": (CompiledMlp, (80, 16, 48)),
    }


def inner_of(settings):
    return Inner(steps=STEPS, lr=0.1, **settings)


def batched(model, bound, tasks, P, inner, lr=None):
    """The trained parameters of P cross-entropies, and their logits on the validation images."""
    losses = CrossEntropies(SMOOTHING[:P]).bind(TrainingTargets(tasks.train.target.double()))
    params = train(losses, model, bound.init(P), bound.train, inner=inner, lr=lr, keys=STARTS)
    return params, model(params, bound.val).detach()


def torchs_own(inner, network, lr):
    """torch's optimiser and schedule of these settings."""
    if inner.optimiser == "sgd":
        settings = {
            "momentum": inner.momentum,
            "nesterov": inner.nesterov,
            "weight_decay": inner.weight_decay,
        }
        optimiser = torch.optim.SGD(network.parameters(), lr=lr, **settings)
    else:
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[inner.optimiser]
        settings = {"betas": inner.betas, "eps": inner.eps, "weight_decay": inner.weight_decay}
        optimiser = kind(network.parameters(), lr=lr, **settings)
    return optimiser, {
        "constant": lambda: torch.optim.lr_scheduler.ConstantLR(optimiser, 1),
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS),
        "linear": lambda: torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0, STEPS),
    }[inner.schedule]()


def one_by_one(networks, tasks, P, inner, lr):
    """Networks [P][T] and their logits, each an ordinary module trained in a loop of its own."""
    trained = []
    logits = []
    x = tasks.train.x()
    order = list(batches(x.shape[1], inner, STARTS))
    for p in range(P):
        for t in range(T):
            network = copy.deepcopy(networks[t]).double()
            optimiser, schedule = torchs_own(inner, network, float(lr[p]))
            for index in order:
                rows = slice(None) if index is None else index[t]
                optimiser.zero_grad()
                value = cross_entropy(
                    network(x[t][rows]),
                    tasks.train.label[t][rows],
                    label_smoothing=float(SMOOTHING[p]),
                )
                value.backward()
                optimiser.step()
                schedule.step()
            trained.append(network)
            logits.append(network(tasks.val.x()[t]).detach())
    return [trained[p * T : (p + 1) * T] for p in range(P)], torch.stack(logits).unflatten(
        0, (P, T)
    )


def linear(weight, bias):
    return loaded(nn.Linear(*reversed(weight.shape)), weight, bias)


def loaded(layer, weight, bias):
    layer = layer.double()
    with torch.no_grad():
        layer.weight.copy_(weight.reshape(layer.weight.shape))
        layer.bias.copy_(bias.flatten())
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
@every_optimiser
@pytest.mark.parametrize("hidden", [(), (5,), (6, 5, 4)], ids=len)
def test_batched_perceptrons_equal_torchs_own_loops(episodes, float64, hidden, settings, P):
    tasks = tasks_of(episodes)
    model = Mlp(hidden=hidden)
    bound = model.bind(tasks, STARTS)
    params, logits = batched(model, bound, tasks, P, inner_of(settings))
    networks, expected = one_by_one(
        perceptrons(bound.start, len(hidden)), tasks, P, inner_of(settings), [0.1] * P
    )
    close(logits, expected)
    for p in range(P):
        for t in range(T):
            layers = [x for x in networks[p][t] if isinstance(x, nn.Linear)]
            for i, layer in enumerate(layers):
                close(params[f"w{i}"][p, t], layer.weight)
                close(params[f"b{i}"][p, t, 0], layer.bias)
    right = (expected.argmax(-1) == tasks.val.label).float().mean(-1)
    assert torch.equal(accuracy(logits, tasks.val.label), right)


@candidates
@optimisers
@pytest.mark.parametrize("form", [*FORMS.values()], ids=FORMS)
def test_the_shared_first_layer_changes_nothing(episodes, float64, form, settings, P):
    kind, hidden = form
    tasks = tasks_of(episodes)
    plain = Mlp(hidden=hidden)
    shared = kind(hidden=hidden)
    lr = torch.tensor([0.1, 0.3, 0.02])[:P]
    start = plain.bind(tasks, STARTS)
    params, logits = batched(plain, start, tasks, P, inner_of(settings), lr)
    others, same = batched(shared, shared.bind(tasks, STARTS), tasks, P, inner_of(settings), lr)
    close(same, logits)
    x = tasks.train.x().flatten(2)
    close(others["c"] * start.start["w0"] + others["a"].mT @ x, params["w0"])
    close(others["c"] * start.start["b0"] + others["a"].sum(-2, keepdim=True), params["b0"])
    for name in params.keys() - {"w0", "b0"}:
        close(others[name], params[name])


@candidates
@every_optimiser
def test_batched_linear_layers_equal_torchs_own_loops(episodes, float64, settings, P):
    tasks = tasks_of(episodes)
    bound = Linear(init_scale=1).bind(tasks, STARTS)
    start = {"w0": bound.start["w"], "b0": bound.start["b"]}
    params, logits = batched(Linear(), bound, tasks, P, inner_of(settings))
    networks, expected = one_by_one(perceptrons(start, 0), tasks, P, inner_of(settings), [0.1] * P)
    close(logits, expected)
    for p in range(P):
        for t in range(T):
            close(params["w"][p, t], networks[p][t][1].weight)
            close(params["b"][p, t, 0], networks[p][t][1].bias)


@candidates
@optimisers
def test_a_linear_layer_kept_in_the_span_of_the_images_is_the_same(episodes, float64, settings, P):
    tasks = tasks_of(episodes)
    lr = torch.tensor([0.1, 0.3, 0.02])[:P]
    start = Linear(init_scale=1).bind(tasks, STARTS)
    params, logits = batched(Linear(), start, tasks, P, inner_of(settings), lr)
    bound = SharedLinear(init_scale=1).bind(tasks, STARTS)
    others, same = batched(SharedLinear(), bound, tasks, P, inner_of(settings), lr)
    close(same, logits)
    x = tasks.train.x().flatten(2)
    close(others["c"] * start.start["w"] + others["a"].mT @ x, params["w"])
    close(others["c"] * start.start["b"] + others["a"].sum(-2, keepdim=True), params["b"])


def convolutions(start, filters, kernel):
    """Ordinary convolutional networks with these initial parameters, one per task."""
    networks = []
    before = (kernel - 1) // 2
    after = kernel // 2
    for t in range(T):
        layers = []
        channels = start["w0"].shape[2]
        for i, width in enumerate(filters):
            conv = loaded(nn.Conv2d(channels, width, kernel), start[f"w{i}"][t], start[f"b{i}"][t])
            layers += [
                nn.ZeroPad2d((before, after, before, after)),
                conv,
                nn.ReLU(),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
            channels = width
        w = start["w_head"][t]
        b = start["b_head"][t]
        networks.append(
            nn.Sequential(*layers, nn.Flatten(), loaded(nn.Linear(*reversed(w.shape)), w, b))
        )
    return networks


@pytest.mark.parametrize("form", CONVOLUTIONS)
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("filters", [(3,), (3, 4), (2, 3, 2, 4)], ids=len)
@few_optimisers
def test_batched_convolutions_equal_torchs_own_loops(
    episodes, float64, form, filters, kernel, settings
):
    P = 2
    tasks = tasks_of(episodes)
    model = form(filters=filters, kernel=kernel)
    bound = model.bind(tasks, STARTS)
    params, logits = batched(model, bound, tasks, P, inner_of(settings))
    trained, expected = one_by_one(
        convolutions(bound.start, filters, kernel), tasks, P, inner_of(settings), [0.1] * P
    )
    close(logits, expected)
    names = [f"{kind}{i}" for i in (*range(len(filters)), "_head") for kind in "wb"]
    for p in range(P):
        for t in range(T):
            for name, weight in zip(names, trained[p][t].parameters(), strict=True):
                close(params[name][p, t], weight)


@few_optimisers
def test_every_candidate_may_have_its_own_learning_rate(episodes, float64, settings):
    tasks = tasks_of(episodes)
    model = Mlp(hidden=(5,))
    lr = torch.tensor([0.5, 0.01, 0.1], dtype=torch.float64)
    bound = model.bind(tasks, STARTS)
    _, logits = batched(model, bound, tasks, 3, inner_of(settings), lr)
    _, expected = one_by_one(perceptrons(bound.start, 1), tasks, 3, inner_of(settings), lr)
    close(logits, expected)


def test_one_learning_rate_for_all_goes_before_the_familys(episodes, float64):
    tasks = tasks_of(episodes)
    model = Mlp(hidden=(5,))
    bound = model.bind(tasks, STARTS)
    _, one = batched(model, bound, tasks, 3, Inner(steps=STEPS, lr=0.7), 0.1)
    _, other = batched(
        model,
        bound,
        tasks,
        3,
        Inner(steps=STEPS, lr=0.1),
        torch.full((3,), 0.1, dtype=torch.float64),
    )
    close(one, other)


@candidates
@pytest.mark.parametrize(
    "model", [Mlp(hidden=(5,)), SharedMlp(hidden=(5,)), Cnn(filters=(3,))], ids=repr
)
def test_training_leaves_the_start_as_it_was(episodes, model, P):
    tasks = tasks_of(episodes)
    bound = model.bind(tasks, STARTS)
    before = {name: x.clone() for name, x in bound.start.items()}
    losses = CrossEntropies.of(P).bind(TrainingTargets(tasks.train.target))
    once = train(losses, model, bound.init(P), bound.train, inner=Inner(steps=2))
    assert all(torch.equal(bound.start[name], before[name]) for name in before)
    again = train(losses, model, bound.init(P), bound.train, inner=Inner(steps=2))
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_the_probe_sees_the_parameters_after_every_step(episodes):
    tasks = tasks_of(episodes)
    model = Mlp(hidden=(5,))
    seen = []
    bound = model.bind(tasks, STARTS)
    losses = CrossEntropies.of(2).bind(TrainingTargets(tasks.train.target))

    def look(step, params):
        seen.append((step, params["w0"].clone()))

    train(losses, model, bound.init(2), bound.train, inner=Inner(steps=3), probe=look)
    assert [step for step, _ in seen] == [1, 2, 3]
    for step, weight in seen:
        shorter = train(losses, model, bound.init(2), bound.train, inner=Inner(steps=step))
        assert torch.equal(weight, shorter["w0"])


class Constant:
    """A loss that no logit changes, beside one that they do."""

    tasks_per_call = 1

    def __init__(self, losses):
        self.losses = losses

    def bind(self, target):
        return self

    def terms(self, logits):
        return self.losses.terms(logits) * torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)

    def __call__(self, logits):
        return self.terms(logits).sum(-1).mean(-1)

    def logit_gradient(self, logits):
        return logit_gradient_by_autograd(self, logits)

    def minibatch(self, index):
        return self

    def __len__(self):
        return 2

    def __getitem__(self, rows):
        return self


def test_a_loss_without_gradient_leaves_its_classifiers_untrained(episodes):
    tasks = tasks_of(episodes)
    model = Mlp(hidden=(5,))
    bound = model.bind(tasks, STARTS)
    losses = Constant(CrossEntropies.of(2).bind(TrainingTargets(tasks.train.target)))
    params = train(losses, model, bound.init(2), bound.train, inner=Inner(steps=3))
    assert torch.equal(params["w1"][0], bound.start["w1"])
    assert not torch.equal(params["w1"][1], bound.start["w1"])


# --- settings ---


def test_a_form_in_the_span_of_the_images_refuses_to_train_where_it_is_not_exact(episodes):
    tasks = tasks_of(episodes)
    model = SharedMlp(hidden=(5,))
    bound = model.bind(tasks, STARTS)
    losses = CrossEntropies.of(1).bind(TrainingTargets(tasks.train.target))
    with pytest.raises(ValueError, match="SharedMlp does not train exactly with 'adam'"):
        train(losses, model, bound.init(1), bound.train, inner=Inner(optimiser="adam"))


def test_an_epoch_visits_every_image_once_and_drops_the_rest():
    inner = Inner(steps=7, batch=3)
    index = torch.stack(list(batches(11, inner, STARTS)))  # [steps T batch]
    assert index.shape == (7, T, 3)
    for epoch in (index[:3], index[3:6]):
        for t in range(T):
            assert len(epoch[:, t].unique()) == 9
    assert not torch.equal(index[:3], index[3:6])
    assert not torch.equal(index[:, 0], index[:, 1])
    alone = torch.stack(list(batches(11, inner, STARTS[1:])))
    assert torch.equal(alone[:, 0], index[:, 1])


def test_batches_as_large_as_the_task_are_all_its_images():
    assert list(batches(5, Inner(steps=2, batch=5), ())) == [None, None]


@pytest.mark.parametrize(
    ("settings", "scales"),
    [
        ({}, [1, 1, 1, 1, 1, 1]),
        ({"warmup": 4}, [0.25, 0.5, 0.75, 1, 1, 1]),
        ({"schedule": "linear", "warmup": 2}, [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ({"schedule": "cosine", "warmup": 2}, [0.5, 1, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_the_rate_follows_its_schedule(settings, scales):
    inner = inner_of(settings)
    assert [inner.scale(step) for step in range(1, STEPS + 1)] == pytest.approx(scales, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimiser": "adam", "momentum": 0.9}, "belong to 'sgd'"),
        ({"nesterov": True}, "needs momentum"),
        ({"steps": 5, "warmup": 5}, "warmup must be below steps = 5"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Inner(**settings)


# --- accuracy ---


def test_accuracy_is_the_share_of_right_answers():
    logits = torch.tensor([[[[2.0, 1.0], [0.0, 1.0], [5.0, -1.0], [0.0, 0.1]]]])
    assert accuracy(logits, torch.tensor([[0, 0, 0, 1]])).tolist() == [[0.75]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_logit_that_is_not_finite_fails_its_classifier_alone(bad):
    logits = torch.zeros(2, 3, 4, 5)
    label = torch.zeros(3, 4, dtype=torch.int64)
    logits[1, 2, 3, 4] = bad
    score = accuracy(logits, label)
    assert score.isnan().nonzero().tolist() == [[1, 2]]
    assert (score[~score.isnan()] == 1).all()
