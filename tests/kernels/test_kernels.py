"""Compiled loops give what torch gives, whatever else is in the batch.

Without them torch does the same.
"""

import pytest
import torch

from metaloss import kernels
from metaloss.core import registry
from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.engines.chunking import model_of, plan_chunks
from metaloss.engines.local import Local
from metaloss.genomes._compiled import CompiledEquivariant
from metaloss.genomes._equivariant import Equivariant
from metaloss.inner.classifiers._compiled import CompiledMlp, CompiledProduct, fits
from metaloss.inner.classifiers.shared import SharedMlp
from metaloss.inner.loop import Inner, train
from metaloss.inner.observers import accuracy
from metaloss.inner.optimisers import move
from metaloss.losses.base import CrossEntropies, TrainingTargets
from metaloss.storage.environment import describe_environment

pytest.importorskip("numba")
product = pytest.importorskip("metaloss.kernels.instructions.product")
perceptron = pytest.importorskip("metaloss.kernels.classifiers.perceptron")
exponential = pytest.importorskip("metaloss.kernels.functions.exponential")
count_right = pytest.importorskip("metaloss.kernels.validation.accuracy").count_right

P = 3
T = 2
KEYS = [Stream(0).at("task", t) for t in range(T)]
STARTS = [Stream(0).at("init", t) for t in range(T)]
CPU = torch.device("cpu")


@pytest.fixture
def without(monkeypatch):
    """As where numba is not installed."""
    monkeypatch.setattr(kernels, "compiler", lambda: "none")


def normal(*shape):
    return Stream(7).at("normal", *shape).normal(*shape)


# --- products ---


@pytest.mark.parametrize("rows", [1, 5, 6, 14])
@pytest.mark.parametrize("inner", [0, 1, 7])
@pytest.mark.parametrize("columns", [16, 48, 64, 80, 144])
@pytest.mark.parametrize("type_", [torch.float32, torch.float64], ids=str)
def test_products_are_added_for_every_number_of_rows_and_columns(rows, inner, columns, type_):
    c, a, b = (
        normal(*shape).to(type_) for shape in ((rows, columns), (rows, inner), (inner, columns))
    )
    for add, left in (
        (product.add_product, a),
        (product.add_transposed_product, a.mT.contiguous()),
    ):
        found = c.clone()
        add(found.numpy(), left.numpy(), b.numpy())
        torch.testing.assert_close(found, c + a @ b)


def test_exponentials_are_right_to_their_last_bits_and_nan_stays():
    x = torch.cat([torch.linspace(-87, 88, 10_001), normal(999)])
    wanted = x.double().exp()
    found = torch.tensor([exponential.exp(v) for v in x.numpy()], dtype=torch.float64)
    assert ((found / wanted - 1).abs() < 2 * 2**-23).all()
    assert torch.tensor(exponential.exp(torch.tensor([torch.nan]).numpy()[0])).isnan()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    "rate", [0.3, torch.tensor([0.3, 0.0, 2.0])], ids=["one rate", "a rate each"]
)
def test_a_weight_descends_by_a_product_as_by_the_matrix_itself(turned, rate):
    left = normal(P, T, 7, 5).mT.contiguous().mT if turned else normal(P, T, 7, 5)
    right = normal(P, T, 5, 32)
    weight = normal(P, T, 7, 32)
    wanted = weight.clone()
    move(wanted, left @ right, rate)
    move(weight, CompiledProduct(left, right), rate)
    torch.testing.assert_close(weight, wanted)


# --- accuracy ---


def logits(C=4, V=37):
    return normal(P, T, C, V).mT, Stream(3).integers(C, T, V)


def test_right_answers_are_counted_as_torch_counts_them(without):
    z, label = logits()
    z[0, 0, 3] = z[0, 0, 5] = 0.0  # a tie is the first class's
    wanted = accuracy(z, label)
    assert 0 < wanted.min() < wanted.max() < 1
    by_class = z.mT.contiguous().flatten(0, 1).numpy()
    right = torch.empty(P * T)
    count_right(by_class, label.numpy(), right.numpy())
    assert torch.equal(right.view(P, T) / z.shape[2], wanted)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_one_logit_that_is_not_finite_makes_that_classifiers_accuracy_nan(bad):
    z, label = logits()
    fine = accuracy(z, label)
    z[1, 1, 36, 2] = bad
    found = accuracy(z, label)
    assert found[1, 1].isnan()
    assert found.isnan().sum() == 1
    assert torch.equal(found.nan_to_num(0)[0], fine[0])


# --- classifiers; `test_inner` compares their training with the plain perceptron's ---


def bound_to(episodes, model, P=P):
    tasks = episodes.sample(KEYS)
    bound = model.bind(tasks, STARTS)
    params = {k: x + 0.1 * Stream(1).at(k).normal(*x.shape) for k, x in bound.init(P).items()}
    return tasks, bound, params


def test_a_classifier_gives_the_same_bits_in_any_company(episodes):
    model = CompiledMlp(hidden=(48, 16))
    tasks, bound, params = bound_to(episodes, model)
    whole = model(params, bound.val)
    losses = CrossEntropies.of(P).bind(TrainingTargets(tasks.train.target))
    gradients = model.gradients(params, bound.train, losses.logit_gradient)
    for p in range(P):
        some = {k: x[p : p + 1] for k, x in params.items()}
        assert torch.equal(model(some, bound.val), whole[p : p + 1])
        alone = model.gradients(some, bound.train, losses[p : p + 1].logit_gradient)
        for name, x in alone.items():
            one, other = (
                y.dense() if isinstance(y, CompiledProduct) else y for y in (x, gradients[name])
            )
            torch.testing.assert_close(one, other[p : p + 1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_classifier_that_diverges_says_nan_and_leaves_the_others_alone(episodes, bad):
    model = CompiledMlp(hidden=(16,))
    tasks, bound, params = bound_to(episodes, model)
    before = accuracy(model(params, bound.val), tasks.val.label)
    params["w1"][1] = bad
    after = accuracy(model(params, bound.val), tasks.val.label)
    assert after[1].isnan().all()
    assert torch.equal(after[[0, 2]], before[[0, 2]])


def test_more_images_than_pass_at_once_are_all_looked_at(open_tiny):
    shared = SharedMlp(hidden=(16,))
    quick = CompiledMlp(hidden=(16,))
    _, bound, params = bound_to(open_tiny(), shared)
    start, kernel = (x.repeat(1, 20, 1) for x in (bound.val.start, bound.val.kernel))
    many = type(bound.val)(start, kernel)
    assert len(many) > 2 * perceptron.ROWS
    assert len(many) % perceptron.ROWS
    torch.testing.assert_close(quick(params, many), shared(params, many))


def test_the_engine_compiles_layers_of_whole_vectors_and_scores_as_without(open_tiny, monkeypatch):
    episodes = open_tiny(classifier={"kind": "mlp", "hidden": [32, 16]})
    tasks = episodes.sample(KEYS)
    losses = networks(P)
    chunks = plan_chunks(episodes, episodes.family.inner, P, T, 1 << 20)
    assert chunks.shared
    assert type(model_of(episodes, chunks)) is CompiledMlp
    found = []
    for _ in range(2):
        with Local(workers=2) as engine:
            found.append(engine.score(losses, episodes, tasks, STARTS))
        monkeypatch.setattr(kernels, "compiler", lambda: "none")
        assert type(model_of(episodes, chunks)) is SharedMlp
    assert (found[0] - found[1]).abs().max() <= 1 / 12 + 1e-6  # one of 12 validation images
    assert found[0].std() > 0


def test_other_layers_and_devices_stay_with_torch(without, monkeypatch):
    assert not fits((32,), CPU)
    monkeypatch.setattr(kernels, "compiler", lambda: "1")
    assert fits((32, 16), CPU)
    assert not fits((32, 20), CPU)
    assert not fits((32,), torch.device("meta"))


def test_with_what_loops_are_compiled_is_a_condition_of_a_run(without):
    assert describe_environment(CPU)["numba"] == "none"


# --- Meta-Loss Networks ---


def networks(n=P, **settings):
    genome = registry.build(
        "genomes", {"kind": "mln", "start": "random", "features": 3, "hidden": 7, **settings}
    )
    return genome.losses(Vectors(normal(n, genome.size)))


def plain(losses):
    return Equivariant(
        losses.weights,
        losses.channels,
        losses.activation,
        losses.reference_classes,
        losses.sees_prior,
    )


def labels(T=T, B=5, C=10):
    return torch.nn.functional.one_hot(Stream(5).integers(C, T, B), C).float()


def agree(one, other):
    torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-6)


CHANNELS = [("p",), ("logp",), ("logit",), ("p", "logp"), ("logit", "logp", "p")]


@pytest.mark.parametrize("channels", CHANNELS, ids="+".join)
@pytest.mark.parametrize("context", ["none", "mean", "label"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("classes", [2, 10])
def test_the_compiled_gradient_is_torchs(channels, context, activation, classes):
    losses = networks(channels=channels, context=context, activation=activation)
    assert type(losses) is CompiledEquivariant
    target = labels(C=classes)
    z = 3 * normal(P, T, classes, 5).mT
    bound = losses.bind(TrainingTargets(target))
    assert bound.kernel_args
    agree(bound.logit_gradient(z), plain(losses).bind(TrainingTargets(target)).logit_gradient(z))
    torch.testing.assert_close(bound(z), plain(losses).bind(TrainingTargets(target))(z))


@pytest.mark.parametrize("channels", [("p", "logp", "logprior"), ("logprior", "logit")])
def test_a_network_that_reads_the_prior_is_compiled(channels):
    losses = networks(channels=channels)
    index = torch.tensor([[4, 0], [2, 2]])
    z = 3 * normal(P, T, 10, 5).mT
    gradients = []
    for counts in (None, 1.0 + Stream(6).integers(20, T, 10)):
        targets = TrainingTargets(labels(), counts=counts)
        bound, wanted = losses.bind(targets), plain(losses).bind(targets)
        assert bound.kernel_args
        gradients.append(bound.logit_gradient(z))
        agree(gradients[-1], wanted.logit_gradient(z))
        agree(
            bound[1:].minibatch(index).logit_gradient(z[1:, :, :2]),
            wanted[1:].minibatch(index).logit_gradient(z[1:, :, :2]),
        )
    assert not torch.allclose(*gradients)


@pytest.mark.parametrize("images", [1, 31, 32, 33, 70])
def test_any_number_of_images_will_do(images):
    losses = networks()
    target = labels(B=images)
    z = normal(P, T, 10, images).mT
    agree(
        losses.bind(TrainingTargets(target)).logit_gradient(z),
        plain(losses).bind(TrainingTargets(target)).logit_gradient(z),
    )


def test_minibatches_and_rows_of_bound_networks():
    images = 9
    losses = networks()
    target = labels(B=images)
    z = normal(P, T, 10, 4).mT
    index = torch.stack([Stream(0).at(t).permutation(images)[:4] for t in range(T)])
    rows = torch.tensor([2, 0])
    wanted = plain(losses).bind(TrainingTargets(target)).minibatch(index)
    agree(
        losses.bind(TrainingTargets(target)).minibatch(index).logit_gradient(z),
        wanted.logit_gradient(z),
    )
    agree(
        losses.bind(TrainingTargets(target))[rows].minibatch(index).logit_gradient(z[rows]),
        wanted.logit_gradient(z)[rows],
    )
    agree(
        losses[rows].bind(TrainingTargets(target)).minibatch(index)[1:].logit_gradient(z[:1]),
        wanted[rows][1:].logit_gradient(z[:1]),
    )


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_a_bad_network_or_logit_leaves_the_others_their_bits(bad):
    losses = networks()
    target = labels()
    z = normal(P, T, 10, 5).mT
    before = losses.bind(TrainingTargets(target)).logit_gradient(z)
    z[1, 0, 2, 3] = bad
    after = losses.bind(TrainingTargets(target)).logit_gradient(z)
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    if bad != 1e30:
        assert not after[1, 0].isfinite().all()
    weights = {k: x.clone() for k, x in losses.weights.items()}
    weights["w_pred"][1] = bad
    broken = CompiledEquivariant(
        weights, losses.channels, losses.activation, losses.reference_classes
    )
    assert torch.equal(
        broken.bind(TrainingTargets(target)).logit_gradient(z)[[0, 2]], before[[0, 2]]
    )


@pytest.mark.parametrize(
    ("settings", "target"),
    [({}, 0.9 * labels() + 0.01), ({}, labels().double()), ({"activation": "softplus"}, labels())],
    ids=["soft labels", "float64", "softplus"],
)
def test_what_the_loop_does_not_know_is_torchs(settings, target):
    losses = networks(**settings)
    z = normal(P, T, 10, 5).mT.to(target)
    bound = losses.bind(TrainingTargets(target))
    wanted = plain(losses).bind(TrainingTargets(target))
    assert not bound.kernel_args
    assert torch.equal(bound.logit_gradient(z), wanted.logit_gradient(z))
    index = torch.tensor([[0, 3], [1, 4]])
    assert torch.equal(
        bound.minibatch(index)[1:].logit_gradient(z[1:, :, :2]),
        wanted.minibatch(index)[1:].logit_gradient(z[1:, :, :2]),
    )


def test_without_a_compiler_networks_are_torchs(without):
    assert type(networks()) is Equivariant


def test_training_with_a_network_gives_what_torch_gives(open_tiny):
    episodes = open_tiny(classifier={"kind": "mlp", "hidden": [16]})
    tasks = episodes.sample(KEYS)
    losses = networks(features=4, hidden=8)
    inner = Inner(steps=5, lr=0.05, batch=4)
    found = []
    for model, some in (
        (CompiledMlp(hidden=(16,)), losses),
        (SharedMlp(hidden=(16,)), plain(losses)),
    ):
        bound = model.bind(tasks, STARTS)
        found.append(
            train(
                some.bind(TrainingTargets(tasks.train.target)),
                model,
                bound.init(P),
                bound.train,
                inner=inner,
                keys=STARTS,
            )
        )
    for name, x in found[0].items():
        torch.testing.assert_close(x, found[1][name], rtol=1e-4, atol=1e-5)
