"""The Meta-Loss Network against a plain reading of its definition.

It does not see the order of the classes, and starts as cross-entropy.
"""

import pytest
import torch

from metaloss.core import registry
from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.genomes.mln import MetaLossNetwork, imitate
from metaloss.losses import zoo
from metaloss.losses.base import TrainingTargets, logit_gradient_by_autograd, one_hot
from metaloss.losses.formulas import Formulas
from metaloss.search import settings

T = 2
B = 3
SMALL = {"features": 3, "hidden": 4, "start": "random"}
GENOMES = {
    "label": MetaLossNetwork(**SMALL),
    "mean": MetaLossNetwork(context="mean", **SMALL),
    "none": MetaLossNetwork(
        context="none", channels=("logit", "p", "logp"), activation="softplus", **SMALL
    ),
    "figure3": MetaLossNetwork(architecture="figure3", fixed_classes=4, kernel=2, **SMALL),
}
every = pytest.mark.parametrize("genome", GENOMES.values(), ids=GENOMES)
CONTEXTS = ("label", "mean", "none")
equivariant = pytest.mark.parametrize("genome", [GENOMES[k] for k in CONTEXTS], ids=CONTEXTS)


def population(genome, P=3):
    """Random networks, larger than they start, so that every part of them matters."""
    vectors = genome.sample(P, Stream(0)).vectors()
    return Vectors((vectors + 0.3 * Stream(1).normal(*vectors.shape)).double())


def situation(P=3, C=4, soft=False):
    """Logits and targets."""
    logits = 2 * Stream(2).normal(P, T, B, C).double()
    if soft:
        return logits, Stream(3).normal(T, B, C).double().softmax(-1)
    return logits, one_hot(Stream(4).integers(C, T, B), C).double()


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


# --- against a plain reading of the definition: one network, one image at a time ---


def parts(genome, vector):
    """The weight matrices of one vector, by name."""
    found = {}
    at = 0
    for name, (rows, columns) in genome.shapes.items():
        found[name] = vector[at : at + rows * columns].reshape(rows, columns)
        at += rows * columns
    assert at == len(vector)
    return found


def channels(genome, z):
    """What the ŷ channel reads of one image's logits: [channels C].

    A uniform and a certain prediction look as they do among the reference number of classes.
    """
    C = len(z)
    home = genome.classes or genome.home_classes
    surer = (z.softmax(0) - 1 / C) / (1 - 1 / C)  # 0 for a guess, 1 for certainty
    p = 1 / home + surer * (1 - 1 / home)
    logp = z.log_softmax(0) + torch.tensor(C / home, dtype=torch.float64).log()
    read = {"p": p, "logp": logp, "logit": z - z.mean()}
    return torch.stack([read[c] for c in genome.channels])


def activation(genome):
    return {"tanh": torch.tanh, "softplus": torch.nn.functional.softplus}[genome.activation]


def by_classes(genome, w, z, y):
    """One image's value under an equivariant network."""
    act = activation(genome)
    x = channels(genome, z)
    pred = [act(w["w_pred"] @ x[:, c] + w["b_pred"][:, 0]) for c in range(len(z))]
    label = [act(w["w_label"][:, 0] * y[c] + w["b_label"][:, 0]) for c in range(len(z))]
    value = 0.0
    for c in range(len(z)):
        u = w["w_mix_pred"] @ pred[c] + w["w_mix_label"] @ label[c] + w["b_mix"][:, 0]
        if "w_mean" in w:
            u = u + w["w_mean"] @ (sum(pred) / len(z))
        if "w_true" in w:
            u = u + w["w_true"] @ sum(y[k] * pred[k] for k in range(len(z)))
        value = value + w["w_out"][0] @ act(u)
    return value


def by_rows(genome, w, z, y):
    """One image's value under the network of figure 3.

    Two rows of features, a 2×kernel convolution along them.
    """
    act = activation(genome)
    x = channels(genome, z).flatten()
    pred = w["w_pred_out"] @ act(w["w_pred"] @ x + w["b_pred"][:, 0])
    label = w["w_label_out"] @ act(w["w_label"] @ y + w["b_label"][:, 0])
    kernels = w["w_conv"].reshape(genome.hidden, 1, 2, genome.kernel)
    image = torch.stack([pred, label])[None, None]
    # [hidden places].
    maps = torch.nn.functional.conv2d(image, kernels, bias=w["b_conv"][:, 0])[0, :, 0]
    return (w["w_out"][0] @ act(maps)).mean()


@every
@pytest.mark.parametrize("soft", [False, True])
def test_values_follow_the_definition(genome, soft):
    candidates, (logits, target) = population(genome), situation(soft=soft)
    reading = by_rows if genome.architecture == "figure3" else by_classes
    found = genome.losses(candidates).bind(TrainingTargets(target))(logits)
    for p in range(3):
        w = parts(genome, candidates.vectors()[p])
        for t in range(T):
            images = [reading(genome, w, logits[p, t, b], target[t, b]) for b in range(B)]
            close(found[p, t], torch.stack(images).mean())


@every
def test_terms_add_up_to_the_value(genome):
    logits, target = situation()
    losses = genome.losses(population(genome)).bind(TrainingTargets(target))
    terms = losses.terms(logits)
    assert terms.shape == (3, T, B, 4 if genome.classes is None else 1)
    close(terms.sum(-1).mean(-1), losses(logits))


# --- symmetry and class counts ---


@equivariant
def test_the_order_of_the_classes_does_not_matter(genome):
    order = torch.tensor([2, 0, 3, 1])
    logits, target = situation()
    losses = genome.losses(population(genome))
    close(
        losses.bind(TrainingTargets(target[..., order]))(logits[..., order]),
        losses.bind(TrainingTargets(target))(logits),
    )
    close(
        losses.bind(TrainingTargets(target[..., order])).terms(logits[..., order]),
        losses.bind(TrainingTargets(target)).terms(logits)[..., order],
    )


@every
def test_a_shift_of_all_logits_does_not_matter(genome):
    logits, target = situation()
    losses = genome.losses(population(genome)).bind(TrainingTargets(target))
    close(losses(logits + 5), losses(logits))


@equivariant
@pytest.mark.parametrize("C", [2, 3, 7, 20])
@pytest.mark.parametrize("soft", [False, True])
def test_any_number_of_classes_will_do(genome, C, soft):
    logits, target = situation(C=C, soft=soft)
    value = genome.losses(population(genome)).bind(TrainingTargets(target))(logits)
    assert value.shape == (3, T)
    assert value.isfinite().all()


def test_figure3_works_for_one_number_of_classes_and_settings_say_so():
    assert GENOMES["figure3"].classes == 4
    assert all(GENOMES[k].classes is None for k in CONTEXTS)
    table = {"tasks": ["fashionmnist"], "genome": {"kind": "mln", "architecture": "figure3"}}
    assert settings.resolve(table).genome["fixed_classes"] == 10
    with pytest.raises(SettingsError) as caught:
        settings.resolve({**table, "tasks": ["fashionmnist", "fashionmnist-5way"]})
    assert (
        str(caught.value)
        == "this genome works for 10 classes alone, and fashionmnist-5way has 5-way tasks"
    )
    table["genome"]["fixed_classes"] = 5
    assert settings.resolve({**table, "tasks": ["fashionmnist-5way"]}).families[0].ways == 5


def test_a_kernel_wider_than_the_features_is_refused():
    with pytest.raises(SettingsError, match="kernel must be at most features = 3, got 5"):
        registry.build(
            "genomes", {"kind": "mln", "architecture": "figure3", "features": 3, "kernel": 5}
        )


# --- as losses of a population ---


@every
@pytest.mark.parametrize("soft", [False, True])
def test_the_slope_is_the_gradient_of_every_value(genome, soft):
    logits, target = situation(soft=soft)
    losses = genome.losses(population(genome)).bind(TrainingTargets(target))
    close(losses.logit_gradient(logits), logit_gradient_by_autograd(losses, logits))


@every
@pytest.mark.parametrize("classes", [2, 7])
def test_the_slope_is_right_for_other_numbers_of_classes(genome, classes):
    if genome.classes:
        pytest.skip("made for one number of classes")
    logits = Stream(4).normal(3, T, B, classes).double()
    target = Stream(5).normal(T, B, classes).double().softmax(-1)
    losses = genome.losses(population(genome)).bind(TrainingTargets(target))
    close(losses.logit_gradient(logits), logit_gradient_by_autograd(losses, logits))


@every
def test_a_minibatch_is_a_batch_of_its_images(genome):
    logits, target = situation(soft=True)
    index = torch.tensor([[1, 0], [2, 2]])[:T]
    x, y = (
        v.gather(-2, index[..., None].expand(*v.shape[:-2], 2, v.shape[-1]))
        for v in (logits, target)
    )
    losses = genome.losses(population(genome))
    picked = losses.bind(TrainingTargets(target)).minibatch(index)
    alone = losses.bind(TrainingTargets(y))
    close(picked(x), alone(x))
    close(picked.logit_gradient(x), alone.logit_gradient(x))


@every
def test_what_is_bound_stays_right_for_other_logits(genome):
    """The label's channel is computed once a generation; it may not keep anything of the logits."""
    logits, target = situation()
    losses = genome.losses(population(genome))
    bound = losses.bind(TrainingTargets(target))
    bound(logits)
    close(bound(3 - logits), losses.bind(TrainingTargets(target))(3 - logits))
    other = target.roll(1, 0)
    close(bound.bind(TrainingTargets(other))(logits), losses.bind(TrainingTargets(other))(logits))


@every
@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([2, 0, 2])], ids=["slice", "indices"])
def test_taking_rows_and_binding_may_be_done_in_either_order(genome, rows):
    logits, target = situation()
    losses = genome.losses(population(genome))
    assert len(losses) == 3
    close(
        losses[rows].bind(TrainingTargets(target))(logits[rows]),
        losses.bind(TrainingTargets(target))(logits)[rows],
    )
    close(
        losses.bind(TrainingTargets(target))[rows](logits[rows]),
        losses.bind(TrainingTargets(target))(logits)[rows],
    )


@every
@pytest.mark.parametrize("bad", [float("nan"), 1e30, 0.0])
def test_a_row_sees_only_its_own_weights_and_logits(genome, bad):
    logits, target = situation()
    logits.requires_grad_()
    vectors = population(genome).vectors()
    value = genome.losses(Vectors(vectors)).bind(TrainingTargets(target))(logits)
    for p in range(3):
        (gradient,) = torch.autograd.grad(value[p].sum(), logits, retain_graph=True)
        assert [bool(g.any()) for g in gradient] == [p == 0, p == 1, p == 2]
    vectors[1] = bad
    changed = genome.losses(Vectors(vectors)).bind(TrainingTargets(target))(logits)
    assert torch.equal(changed[[0, 2]], value[[0, 2]])


@every
def test_the_gradient_is_right(genome):
    _, target = situation(soft=True)
    logits = situation(P=2)[0].requires_grad_()
    vectors = population(genome, 2).vectors().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z, v: genome.networks(v).bind(TrainingTargets(target))(z), (logits, vectors)
    )


@every
def test_weights_take_the_type_of_the_targets(genome):
    single = Vectors(population(genome).vectors().float())
    for dtype in (torch.float32, torch.float64):
        logits, target = (x.to(dtype) for x in situation())
        assert genome.losses(single).bind(TrainingTargets(target))(logits).dtype == dtype


# --- variation ---


@every
def test_a_random_start_differs_by_row_and_is_the_same_for_the_same_key(genome):
    vectors = genome.sample(4, Stream(5)).vectors()
    assert vectors.shape == (4, genome.size)
    assert len(vectors.unique(dim=0)) == 4
    assert torch.equal(genome.sample(4, Stream(5)).vectors(), vectors)
    assert torch.equal(genome.sample(2, Stream(5)).vectors(), vectors[:2])
    assert not torch.equal(genome.sample(4, Stream(6)).vectors(), vectors)


@every
def test_mutation_moves_every_weight_by_its_own_step_size(genome):
    parents = genome.sample(200, Stream(5))
    strength = torch.full((200, genome.size), 0.1)
    strength[:, 0] = 0
    strength[:, 1] = 10
    moved = genome.mutate(parents, strength, Stream(6)).vectors() - parents.vectors()
    assert (moved[:, 0] == 0).all()
    spread = moved[:, 1:].std(0) / strength[0, 1:]
    assert (spread - 1).abs().max() < 5 / 400**0.5
    assert moved.mean(0).div(strength[0]).nan_to_num(0).abs().max() < 5 / 200**0.5


@every
def test_a_child_has_genes_of_both_parents(genome):
    a = genome.sample(3, Stream(7))
    b = genome.sample(3, Stream(8))
    child = genome.crossover(a, b, Stream(9)).vectors()
    one = a.vectors()
    other = b.vectors()
    assert (child >= torch.minimum(one, other) - 1e-6).all()
    assert (child <= torch.maximum(one, other) + 1e-6).all()
    for p in range(3):
        assert not torch.equal(child[p], one[p])
        assert not torch.equal(child[p], other[p])
    assert torch.equal(genome.crossover(a, a, Stream(9)).vectors(), one)


@every
def test_every_vector_is_a_network(genome):
    assert genome.valid(genome.sample(3, Stream(5))).tolist() == [0, 0, 0]


@every
def test_a_description_is_one_line_with_the_number_of_weights(genome):
    line = genome.describe(genome.sample(1, Stream(5)), 0)
    assert str(genome.size) in line
    assert "\n" not in line


# --- the start that imitates cross-entropy ---


def cosine(vector, genome, C=10, loss="ce"):
    """The agreement of the network's gradient with a loss's, and the ratio of their sizes.

    Over many random situations at once.
    """
    gradients = []
    logits = Stream(20).normal(1, 4, 50, C) * Stream(21).uniform(1, 4, 50, 1, high=5.0)
    target = one_hot(Stream(22).integers(C, 4, 50), C)
    for losses in (genome.losses(Vectors(vector)), Formulas.of([zoo.read(loss)])):
        x = logits.clone().requires_grad_()
        gradients.append(
            torch.autograd.grad(losses.bind(TrainingTargets(target))(x).sum(), x)[0].flatten()
        )
    ours, theirs = gradients
    return float(ours @ theirs / ours.norm() / theirs.norm()), float(ours.norm() / theirs.norm())


def test_the_default_network_starts_with_cross_entropys_gradient():
    genome = MetaLossNetwork()
    vector = imitate(genome, 0)
    similarity, size = cosine(vector, genome, C=10)
    assert similarity > 0.99
    assert 0.9 < size < 1.1
    for C in (3, 15):  # away from home, where what it reads is stretched
        similarity, size = cosine(vector, genome, C=C)
        assert similarity > 0.95
        assert 0.8 < size < 1.25


@pytest.mark.parametrize(
    ("start", "gain"), [("a2", 0.91), ("focal(gamma=2)", 1.22), ("mse", 0.2), ("-y*logp+p*p", 1.0)]
)
def test_a_network_may_start_with_any_losss_gradient_scaled_to_cross_entropys_first_pull(
    start, gain
):
    genome = MetaLossNetwork(start=start)
    similarity, size = cosine(imitate(genome, 0), genome, loss=start)
    assert similarity > 0.97
    assert size * gain == pytest.approx(1, abs=0.1)


def test_a_start_that_is_no_loss_is_refused():
    with pytest.raises(SettingsError, match=r"unknown loss 'cee'\. Did you mean 'ce'"):
        registry.build("genomes", {"kind": "mln", "start": "cee"})


def test_all_candidates_start_from_the_same_imitation():
    genome = MetaLossNetwork()
    vectors = genome.sample(3, Stream(0).at("sample")).vectors()
    assert torch.equal(vectors, imitate(genome, 0).expand(3, -1))
    assert not vectors.requires_grad


def test_figure3_starts_near_cross_entropy_too():
    genome = MetaLossNetwork(architecture="figure3")
    assert cosine(imitate(genome, 0), genome)[0] > 0.85


def test_the_imitation_is_the_same_every_time_and_on_every_number_of_threads():
    genome = MetaLossNetwork(**SMALL | {"start": "ce"})
    fit = imitate.__wrapped__
    first = fit(genome, 3, steps=5)
    torch.manual_seed(1)
    torch.set_num_threads(2)
    try:
        assert torch.equal(fit(genome, 3, steps=5), first)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert not torch.equal(fit(genome, 4, steps=5), first)


@pytest.mark.parametrize("C", [2, 5, 10, 40])
def test_a_guess_and_certainty_look_the_same_for_any_number_of_classes(C):
    network = MetaLossNetwork(start="random").networks(torch.zeros(1, MetaLossNetwork().size))
    guess = torch.zeros(1, 1, 1, C)
    sure = torch.zeros(1, 1, 1, C)
    sure[..., 0] = 60.0
    torch.testing.assert_close(
        network._inputs(guess.log_softmax(-1).mT)[0, :, 0, 0, 0],
        torch.tensor([0.1, 0.1]).log().where(torch.tensor([False, True]), torch.tensor(0.1)),
    )
    torch.testing.assert_close(
        network._inputs(sure.log_softmax(-1).mT)[0, 0, 0, 0, 0], torch.tensor(1.0)
    )


def test_at_home_the_network_reads_plain_probabilities():
    network = MetaLossNetwork(start="random").networks(torch.zeros(1, MetaLossNetwork().size))
    logp = Stream(5).normal(1, 1, 10, 2).log_softmax(-2)
    assert (network._inputs(logp)[0, 0] == logp[0].exp()).all()
    assert (network._inputs(logp)[0, 1] == logp[0]).all()
