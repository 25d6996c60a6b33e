"""The engine's contract.

Candidates do not see their neighbours, fail alone, have equal bits for any number of workers, and
stay within the memory.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

import metaloss.engines.blocks
from metaloss import kernels
from metaloss.core import registry
from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.engines import chunked
from metaloss.engines.chunking import model_of, plan_chunks, sharing_saves_work
from metaloss.engines.local import Local
from metaloss.errors import Interrupted
from metaloss.evolution import evaluate
from metaloss.inner.classifiers.cnn import Cnn
from metaloss.inner.classifiers.linear import SharedLinear
from metaloss.inner.classifiers.mlp import Mlp
from metaloss.inner.classifiers.shared import SharedMlp
from metaloss.inner.loop import Inner, train
from metaloss.inner.observers import scores, validate
from metaloss.losses.base import CrossEntropies, TrainingTargets
from metaloss.losses.formulas import Formulas

P = 5
T = 6
KEYS = [Stream(0).at("task", t) for t in range(T)]
STARTS = [Stream(0).at("init", t) for t in range(T)]
SMALL = 40_000  # bytes: several chunks for P x T trainings of tiny tasks
classifiers = pytest.mark.parametrize("classifier", registry.names("classifiers"))
SETTINGS = {
    "linear": {"init_scale": 1},
    "mlp": {"hidden": [8]},
    "shared": {"hidden": [8]},
    "cnn": {"filters": [3]},
}


@pytest.fixture
def engine():
    """Makes engines with two workers, and closes them."""
    made = []

    def make(memory=SMALL, workers=2, **more):
        made.append(Local(memory=memory, workers=workers, **more))
        return made[-1]

    yield make
    for each in made:
        each.__exit__()


def candidates(kind="mln", n=P, **settings):
    """A population whose rows differ, by the genome's own means."""
    genome = registry.build("genomes", {"kind": kind, **settings})
    start = genome.sample(n, Stream(0))
    strength = torch.full((n, start.genes), 0.3)
    return genome, genome.mutate(start, strength, Stream(1))


def networks(n=P):
    genome, population = candidates(n=n)
    return genome.losses(population)


def score(engine, losses, episodes, **more):
    return engine.score(losses, episodes, episodes.sample(KEYS), STARTS, **more)


def same(one, other):
    """Equal bit for bit, NaN where NaN."""
    return torch.equal(one.nan_to_num(nan=-1), other.nan_to_num(nan=-1))


def family_with(open_tiny, classifier, **changes):
    return open_tiny(classifier={"kind": classifier, **SETTINGS.get(classifier, {})}, **changes)


# --- scores ---


@classifiers
@pytest.mark.parametrize("settings", [{}, {"clock": True}], ids=["plain", "clock"])
def test_a_score_is_what_one_training_at_a_time_gives(engine, open_tiny, classifier, settings):
    episodes = family_with(open_tiny, classifier)
    genome, population = candidates(**settings)
    losses = genome.losses(population)
    found = score(engine(), losses, episodes)
    tasks = episodes.sample(KEYS)
    for p in (0, P - 1):
        for t in (0, T - 1):
            one = slice(t, t + 1)
            bound = episodes.model.bind(tasks[one], STARTS[one])
            inner = episodes.family.inner
            alone = evaluate(
                losses[p : p + 1], episodes.model, bound, tasks[one], inner=inner, block=12
            )
            assert abs(alone[0, 0, 0] - found[p, t]) <= 1 / 12 + 1e-6


def test_training_helps(engine, episodes):
    found = score(engine(), CrossEntropies.of(2), episodes, inner=Inner(steps=40, lr=0.2))
    assert found.mean() > 0.8


def test_every_candidate_may_have_its_own_learning_rate(engine, episodes):
    lr = torch.tensor([0.3, 0.1, 1.0, 0.01, 0.5])
    together = score(engine(), CrossEntropies.of(P), episodes, lr=lr)
    for p in range(P):
        alike = score(engine(), CrossEntropies.of(P), episodes, lr=torch.full((P,), float(lr[p])))
        assert torch.equal(alike[p], together[p])


@pytest.mark.parametrize("block", [1, 5, 12, 100])
def test_the_size_of_the_blocks_of_validation_images_does_not_matter(episodes, float64, block):
    tasks = episodes.sample(KEYS)
    model = episodes.model
    bound = model.bind(tasks, STARTS)
    params = bound.init(2)
    params["b0"][1, 2] = torch.nan
    expected = (model(params, bound.val).argmax(-1) == tasks.val.label).double().mean(-1)
    found = validate(model, params, bound.val, tasks.val.label, block)
    assert found.isnan().nonzero().tolist() == [[1, 2]]
    keep = ~found.isnan()
    torch.testing.assert_close(found[keep].double(), expected[keep])


# --- a candidate is blind to its neighbours ---


@classifiers
@pytest.mark.parametrize("settings", [{}, {"clock": True}], ids=["plain", "clock"])
@pytest.mark.parametrize("kind", registry.names("genomes"))
def test_a_candidate_is_blind_to_its_neighbours(engine, open_tiny, classifier, kind, settings):
    if settings and classifier != "mlp":
        pytest.skip("a loss does not know the classifier")
    if settings.keys() - registry.part("genomes", kind).__dataclass_fields__.keys():
        pytest.skip("has no clock")
    episodes = family_with(open_tiny, classifier)
    genome, population = candidates(kind, **settings)
    before = score(engine(), genome.losses(population), episodes)
    others = [population[torch.tensor([0, 1, 1, 3, 4])]]
    if genome.vector:
        for bad in (torch.nan, torch.inf, 1e30, 1e3, 0.0):
            vectors = population.vectors().clone()
            vectors[2] = bad
            others.append(population.from_vectors(vectors))
    for changed in others:
        after = score(engine(), genome.losses(changed), episodes)
        neighbours = torch.tensor([0, 1, 3, 4])
        assert torch.equal(after[neighbours], before[neighbours])


@classifiers
@pytest.mark.parametrize("bad", [torch.nan, 1e30], ids=["nan", "huge"])
def test_trained_parameters_are_blind_to_neighbours_bit_for_bit(open_tiny, classifier, bad):
    """Accuracies are coarse; weights would show the smallest trace."""
    episodes = family_with(open_tiny, classifier)
    tasks = episodes.sample(KEYS)
    model = episodes.model
    bound = model.bind(tasks, STARTS)
    genome, population = candidates()
    vectors = population.vectors().clone()
    vectors[2] = bad
    trained = [
        train(
            genome.losses(some).bind(TrainingTargets(tasks.train.target)),
            model,
            bound.init(P),
            bound.train,
            inner=episodes.family.inner,
        )
        for some in (population, Vectors(vectors))
    ]
    neighbours = torch.tensor([0, 1, 3, 4])
    for name, x in trained[0].items():
        assert torch.equal(x[neighbours], trained[1][name][neighbours])


def test_a_diverged_training_is_nan_and_its_neighbours_are_not(engine, episodes):
    lr = torch.tensor([0.2, 1e30, 0.2, 0.2, torch.inf])
    found = score(engine(), CrossEntropies.of(P), episodes, lr=lr)
    assert found.isnan().all(1).tolist() == [False, True, False, False, True]
    assert found[[0, 2, 3]].isfinite().all()


# --- candidates that raise ---


@dataclass(frozen=True)
class Fragile:
    """Losses some of which raise an error.

    They raise it when they are bound, or when classifiers ask for their gradient.
    """

    losses: object
    bad: torch.Tensor
    when: str
    error: type = ZeroDivisionError
    tasks_per_call: ClassVar[int] = 1

    def _check(self, when):
        if self.when == when and self.bad.any():
            raise self.error("a candidate raised")

    def bind(self, targets):
        self._check("bind")
        return replace(self, losses=self.losses.bind(targets))

    def terms(self, logits):
        return self.losses.terms(logits)

    def __call__(self, logits):
        return self.losses(logits)

    def logit_gradient(self, logits):
        self._check("logit_gradient")
        return self.losses.logit_gradient(logits)

    def minibatch(self, index):
        return replace(self, losses=self.losses.minibatch(index))

    def __len__(self):
        return len(self.losses)

    def __getitem__(self, rows):
        return replace(self, losses=self.losses[rows], bad=self.bad[rows])


@pytest.mark.parametrize("when", ["bind", "logit_gradient"])
@pytest.mark.parametrize(
    "memory", [SMALL, 8_000, 1 << 30], ids=["chunks", "one by one", "one chunk"]
)
@pytest.mark.parametrize("rows", [[2], [0, 1], [4], [1, 2, 3, 4]], ids=str)
def test_a_candidate_that_raises_fails_alone(engine, episodes, when, memory, rows):
    losses = networks()
    bad = torch.zeros(P, dtype=torch.bool)
    bad[rows] = True
    expected = score(engine(memory), losses, episodes)
    found = score(engine(memory), Fragile(losses, bad, when), episodes)
    assert found[bad].isnan().all()
    assert torch.equal(found[~bad], expected[~bad])


@pytest.mark.parametrize("memory", [SMALL, 8_000], ids=["chunks", "one by one"])
def test_where_every_candidate_raises_so_does_the_engine(engine, episodes, memory):
    with pytest.raises(ZeroDivisionError, match="a candidate raised"):
        score(
            engine(memory),
            Fragile(networks(), torch.ones(P, dtype=torch.bool), "logit_gradient"),
            episodes,
        )


# --- the same result everywhere ---


@classifiers
def test_the_number_of_workers_does_not_matter(engine, open_tiny, classifier):
    episodes = family_with(open_tiny, classifier)
    losses = networks()
    results = [score(engine(workers=n), losses, episodes) for n in (1, 2, 3)]
    assert torch.equal(results[1], results[0])
    assert torch.equal(results[2], results[0])


def test_the_callers_number_of_threads_does_not_matter_and_is_left_alone(engine, episodes):
    expected = score(engine(), networks(), episodes)
    torch.set_num_threads(2)
    try:
        assert torch.equal(score(engine(), networks(), episodes), expected)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_chunk_runs_on_one_thread_of_torch_whatever_the_caller_set(engine):
    torch.set_num_threads(2)
    try:
        pool = engine(workers=2).threads.pool
        x = torch.ones(512, 512)
        for _ in range(4):
            pool.submit(lambda: (x + x) @ x).result()
            assert pool.submit(torch.get_num_threads).result() == 1
    finally:
        torch.set_num_threads(1)


def test_a_default_engine_takes_all_cores_of_this_process(engine):
    assert engine(workers=0).workers >= 1


@classifiers
def test_across_chunk_sizes_scores_agree_within_one_image(engine, open_tiny, classifier):
    episodes = family_with(open_tiny, classifier)
    losses = networks()
    sizes = {}
    for memory in (1 << 30, SMALL, 8_000):
        one = engine(memory)
        chunks = one.plan(episodes, episodes.family.inner, P, T)
        sizes[chunks.candidates, chunks.tasks] = score(one, losses, episodes)
    assert len(sizes) >= 2
    first, *others = sizes.values()
    for other in others:
        assert (other - first).abs().max() <= 1 / 12 + 1e-6


def test_scores_stand_at_their_own_candidate_and_task(engine, episodes):
    """However the work is cut, row p is candidate p and column t is task t."""
    losses = networks()
    whole = score(engine(1 << 30), losses, episodes)
    order = torch.tensor([3, 0, 4, 2, 1])
    turned = engine(8_000).score(losses[order], episodes, episodes.sample(KEYS[::-1]), STARTS[::-1])
    assert (turned.flip(1) - whole[order]).abs().max() <= 1 / 12 + 1e-6


# --- memory, interruption ---


def failing(monkeypatch, times, error):
    """Makes the first trainings run out of memory; gives how often it did."""
    failed = []

    def limited(*args, **more):
        if len(failed) < times:
            failed.append(1)
            raise error
        return evaluate(*args, **more)

    monkeypatch.setattr(metaloss.engines.blocks, "evaluate", limited)
    return failed


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 9 bytes"
        ),
    ],
    ids=["torch", "python", "allocator"],
)
def test_out_of_memory_halves_the_chunk_and_goes_on(engine, episodes, monkeypatch, error):
    losses = networks()
    expected = score(engine(SMALL // 2), losses, episodes)
    one = engine(SMALL, workers=1)
    before = one.plan(episodes, episodes.family.inner, P, T)
    failed = failing(monkeypatch, 1, error)
    found = score(one, losses, episodes)
    after = one.plan(episodes, episodes.family.inner, P, T)
    assert (len(failed), one.halvings) == (1, 1)
    assert after.candidates * after.tasks < before.candidates * before.tasks
    assert torch.equal(found, expected)


def test_where_one_training_alone_does_not_fit_the_error_comes_through(
    engine, episodes, monkeypatch
):
    failing(monkeypatch, 10**6, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        score(engine(), networks(), episodes)


def test_another_error_of_torch_is_not_taken_for_lack_of_memory(engine, episodes, monkeypatch):
    failing(monkeypatch, 10**6, RuntimeError("sizes do not match"))
    one = engine()
    with pytest.raises(RuntimeError, match="sizes do not match"):
        score(one, networks(), episodes)
    assert one.halvings == 0


@pytest.mark.parametrize("after", [0, 1, 3])
def test_work_is_dropped_when_stop_asks_for_it(engine, episodes, after):
    asked = []
    stopping = [True]

    def stop():
        asked.append(1)
        return stopping[0] and len(asked) > after

    one = engine(stop=stop)
    with pytest.raises(Interrupted):
        score(one, networks(), episodes)
    stopping[0] = False
    assert torch.equal(score(one, networks(), episodes), score(engine(), networks(), episodes))


# --- curves ---


@classifiers
def test_a_curve_passes_through_the_scores_of_shorter_trainings(engine, open_tiny, classifier):
    episodes = family_with(open_tiny, classifier)
    losses = networks()
    marks = (1, 4, 7)
    one = engine()
    tasks = episodes.sample(KEYS)
    curve = one.curve(losses, episodes, tasks, STARTS, Inner(steps=7, lr=0.2), marks=marks)
    assert curve.shape == (3, P, T)
    for mark, row in zip(marks, curve, strict=True):
        inner = Inner(steps=mark, lr=0.2)
        assert one.plan(episodes, inner, P, T) == one.plan(episodes, Inner(steps=7, lr=0.2), P, T)
        assert torch.equal(row, score(one, losses, episodes, inner=inner))


def test_a_training_that_diverges_late_is_nan_from_there_on(engine, episodes):
    inner = Inner(steps=60, lr=1e6, weight_decay=1e-3)
    curve = engine().curve(
        CrossEntropies.of(1), episodes, episodes.sample(KEYS), STARTS, inner, marks=(1, 60)
    )
    assert curve[0].isfinite().all()
    assert curve[1].isnan().all()


# --- plans ---


@pytest.mark.parametrize(("rows", "tasks"), [(1, 1), (1, 100), (64, 8), (500, 300), (7, 3)])
def test_a_plan_stays_within_the_memory_and_grows_with_it(episodes, rows, tasks):
    family = episodes.family
    inner = episodes.family.inner
    # Of one training: activations, gradients and temporaries; the loss.
    numbers = 6 * (3 * (8 + 3) + 64 * 3)
    last = 0
    for memory in [4 * numbers * n for n in (1, 2, 3, 7, 8, 9, 20, 50, 64, 100, 1000, 10**6)]:
        chunks = plan_chunks(episodes, inner, rows, tasks, memory)
        trainings = chunks.candidates * chunks.tasks
        assert trainings * 4 * numbers <= memory
        assert last <= trainings <= rows * tasks
        assert chunks.candidates <= rows
        assert chunks.tasks <= tasks
        assert 1 <= chunks.images <= family.ways * family.val
        last = trainings
    assert last == rows * tasks


def test_a_chunk_has_one_task_and_many_candidates_unless_losses_ask_for_more(episodes):
    numbers = 6 * (3 * (8 + 3) + 64 * 3)  # as above
    shapes = {
        columns: (chunks.candidates, chunks.tasks)
        for columns in (1, 4, 8, 100)
        for chunks in [
            plan_chunks(
                episodes, episodes.family.inner, 100, 50, 4 * numbers * 32, tasks_per_call=columns
            )
        ]
    }
    assert shapes == {1: (25, 1), 4: (8, 4), 8: (4, 8), 100: (2, 16)}


@classifiers
def test_losses_that_are_cut_differently_are_observed_as_each_is_alone(
    engine, open_tiny, classifier, monkeypatch
):
    monkeypatch.setattr(Formulas, "tasks_per_call", 8)
    episodes = family_with(open_tiny, classifier)
    one = engine()
    genome, population = candidates("tree")
    many = [networks(), genome.losses(population), CrossEntropies.of(P)]
    tasks = episodes.sample(KEYS)
    plans = {
        one.plan(episodes, episodes.family.inner, P, T, losses.tasks_per_call) for losses in many
    }
    together = one.observe(many, episodes, tasks, STARTS, scores)
    assert len(plans) == 2
    for losses, found in zip(many, together, strict=True):
        assert same(found[0], score(one, losses, episodes))


def test_a_plan_for_less_memory_than_one_training_needs_trains_one_at_a_time(episodes):
    chunks = plan_chunks(episodes, episodes.family.inner, 10, 10, 1)
    assert (chunks.candidates, chunks.tasks) == (1, 1)


def test_the_plan_does_not_depend_on_the_number_of_workers(engine, episodes):
    plans = {
        engine(1 << 30, workers=n).plan(episodes, episodes.family.inner, P, T) for n in (1, 2, 16)
    }
    assert len(plans) == 1
    assert plans.pop().tasks == T // 2  # work for two workers at least


def test_the_shared_form_is_chosen_where_it_saves_operations(open_tiny, dataset, monkeypatch):
    """The operations of the first layer's products.

    With D features; or with the B images of the task and, once for all candidates, with D, too.
    """
    from metaloss.tasks import episodic

    for size in (6, 2):
        small = replace(dataset, pixels=dataset.pixels[..., :size, :size].contiguous())
        episodes = open_tiny(classifier={"kind": "mlp", "hidden": [8]})
        with monkeypatch.context() as patch:
            patch.setattr(episodic, "load", lambda name, options, small=small: small)
            for ways, shots, steps in [
                (2, 1, 1),
                (3, 2, 5),
                (4, 2, 5),
                (4, 5, 1),
                (4, 5, 100),
                (2, 1, 100),
            ]:
                family = replace(episodes.family, ways=ways, shots=shots, val=1)
                opened = episodic.open_episodes(family)
                B = ways * shots
                V = ways
                D = size**2
                # Forward and gradient, then validation; 8 hidden units.
                plain = 8 * (steps * (B * D + D * B) + V * D)
                span = 8 * (steps * B * B + V * B)
                for candidates in (1, 3, 1000):
                    once = (B + V) * D * (8 + B)  # all images with the start and with the B images
                    assert sharing_saves_work(opened, Inner(steps=steps), candidates) == (
                        once / candidates + span < plain
                    )


def test_families_that_train_at_once_have_the_results_that_they_have_alone(open_tiny, monkeypatch):
    families = [
        open_tiny(ways=2, inner={"steps": 3}),
        open_tiny(classifier={"kind": "linear"}, inner={"steps": 7, "lr": 0.5}),
        open_tiny(shots=[1, 2], val=2),
    ]
    monkeypatch.setattr(chunked, "WAVE", 3)
    ce = CrossEntropies.of(5)
    trainings = [
        family.trainings(
            [ce, ce],
            "train",
            Stream(2).at("joint"),
            range(n),
            scores,
            rates=[None, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])],
            steps=(2, family.steps),
        )
        for family, n in zip(families, (4, 1, 5), strict=True)
    ]
    with Local(workers=2, memory=1 << 26) as engine:
        alone = [engine.observe_each([x])[0] for x in trainings]
        together = engine.observe_each(trainings)
    for one, other, n in zip(alone, together, (4, 1, 5), strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.shape == (2, 5, n)
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"kind": "mlp", "hidden": [8]}, SharedMlp(hidden=(8,))),
        ({"kind": "linear"}, SharedLinear()),
        ({"kind": "linear", "init_scale": 0.5}, SharedLinear(init_scale=0.5)),
        ({"kind": "mlp", "hidden": [8], "init_scale": 2}, SharedMlp(hidden=(8,), init_scale=2.0)),
        ({"kind": "mlp", "hidden": []}, Mlp(hidden=())),
        ({"kind": "shared", "hidden": [8]}, SharedMlp(hidden=(8,))),
        ({"kind": "cnn", "filters": [3]}, Cnn(filters=(3,))),
    ],
    ids=str,
)
def test_a_perceptron_with_a_hidden_layer_and_a_linear_layer_are_replaced_by_the_shared_form(
    open_tiny, monkeypatch, table, expected
):
    monkeypatch.setattr(kernels, "compiler", lambda: "none")
    episodes = open_tiny(classifier=table)
    chunks = plan_chunks(episodes, episodes.family.inner, 1, 1, 1 << 20)
    assert model_of(episodes, chunks) == expected


def test_minibatches_count_in_the_formula_and_adam_never_shares(open_tiny):
    # 6 images of 36 features, 12 to validate on.
    episodes = open_tiny(classifier={"kind": "mlp", "hidden": [8]})
    assert sharing_saves_work(episodes, Inner(batch=2), 100)
    assert not sharing_saves_work(episodes, Inner(optimiser="adam"), 100)
    assert (
        type(model_of(episodes, plan_chunks(episodes, Inner(optimiser="adamw"), 1, 1, 1 << 20)))
        is Mlp
    )


@classifiers
@pytest.mark.parametrize(
    "settings",
    [{"batch": 4, "momentum": 0.9}, {"optimiser": "adam", "schedule": "cosine"}],
    ids=["batch", "adam"],
)
def test_every_optimiser_scores_a_task_by_its_own_keys_alone(
    engine, open_tiny, classifier, settings
):
    if classifier == "shared" and "optimiser" in settings:
        pytest.skip("not exact, so refused")
    episodes = family_with(open_tiny, classifier)
    losses = networks()
    inner = Inner(steps=5, lr=0.05, **settings)
    tasks = episodes.sample(KEYS)
    together = engine(1 << 20).score(losses, episodes, tasks, STARTS, inner)
    alone = engine(1 << 20).score(losses, episodes, tasks[2:3], STARTS[2:3], inner)
    assert (together[:, 2:3] - alone).abs().max() <= 1 / 12 + 1e-6
    assert len(together.unique()) > 3


def test_a_schedule_that_ends_at_0_gives_every_number_of_steps_a_training_of_its_own(
    engine, open_tiny
):
    from metaloss.evaluation.family_evaluation import FamilyEvaluation

    losses = networks()
    key = Stream(0).at("role")
    episodes = open_tiny(inner={"steps": 6, "lr": 0.1, "schedule": "linear"})
    evaluation = FamilyEvaluation(engine(), episodes, Stream(0))
    both = evaluation.scores(losses, "train", key, T, steps=(3, 6))
    for steps, found in zip((3, 6), both, strict=True):
        assert same(evaluation.scores(losses, "train", key, T, steps=(steps,))[0], found)
    assert same(evaluation.scores(losses, "train", key, T)[0], both[1])


# --- on a GPU ---


@pytest.mark.gpu
@classifiers
def test_a_gpu_agrees_with_the_cpu_within_two_images(engine, open_tiny, classifier):
    from metaloss.tasks.episodic import open_episodes

    episodes = family_with(open_tiny, classifier)
    losses = networks()
    there = open_episodes(episodes.family, "cuda")
    found = score(engine(device="cuda"), losses, there)
    assert found.device.type == "cpu"
    assert (found - score(engine(), losses, episodes)).abs().max() <= 2 / 12 + 1e-6
