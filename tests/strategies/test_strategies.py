"""Every outer algorithm finds simple optima and survives failures.

It is a function of state, fitness and key.
"""

import itertools
from dataclasses import dataclass, field, fields, is_dataclass, replace

import pytest
import torch
from torch import Tensor

from metaloss.core import registry
from metaloss.core.population import Population, Vectors
from metaloss.core.streams import Stream
from metaloss.evolution import generation
from metaloss.search.objectives import mean
from metaloss.storage.codec import pack, unpack
from metaloss.strategies import GradientStrategy
from metaloss.strategies.cma_es import Rates, _weights
from metaloss.strategies.gp import Gp, GpState
from metaloss.strategies.mu_plus_lambda import MuPlusLambda
from metaloss.strategies.regularized import Regularized, RegularizedState

every = pytest.mark.parametrize("kind", registry.names("strategies"))
# Those that draw candidates and learn from their fitness; the others follow gradients.
selecting = pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in registry.names("strategies")
        if not isinstance(registry.build("strategies", {"kind": kind}), GradientStrategy)
    ],
)
# Steps that lead so far within the tests' generations.
SETTINGS = {"gradient": {"lr": 0.05}}
KEY = Stream(0)
OPTIMUM = torch.tensor([0.5, -0.3, 0.1])
FAILED = -torch.inf


@dataclass(frozen=True)
class Space:
    """Vectors of D numbers between `low` and `high`."""

    low: float = -1.0
    high: float = 1.0
    D: int = 3

    vector = True
    classes = None
    populations = (Vectors,)

    def sample(self, n, key):
        return Vectors(key.uniform(n, self.D, low=self.low, high=self.high))

    def mutate(self, parents, strength, key):
        return Vectors(parents.values + strength * key.normal(*parents.values.shape))

    def crossover(self, a, b, key):
        return Vectors((a.values + b.values) / 2)

    def valid(self, population):
        return torch.zeros(len(population), dtype=torch.int64)

    def losses(self, population):
        return population  # the tests' evaluators need nothing else

    def describe(self, population, row):
        return "numbers"


SPACE = Space()


def sphere(x):
    return -(x - OPTIMUM).square().sum(1)


def ellipsoid(x):
    return -((x - OPTIMUM).square() * torch.tensor([1.0, 3.0, 10.0])).sum(1)


def cone(x):
    return -(x - OPTIMUM).abs().sum(1)


FUNCTIONS = {"sphere": (sphere, -0.01), "ellipsoid": (ellipsoid, -0.05), "cone": (cone, -0.2)}
LOOSER = {"random_search": 8.0}  # it never searches where it has found something


def built(kind):
    return registry.build("strategies", {"kind": kind, **SETTINGS.get(kind, {})})


def search(kind, f, generations=80, genome=SPACE, key=KEY, strategy=None):
    """The state after so many generations, through the same function that a run uses."""
    strategy = strategy or built(kind)
    state = strategy.init(genome, key.at("init"))

    def evaluator(population, key):
        return f(population.vectors())[:, None], torch.tensor([0])

    def gradients(population, key):
        x = population.vectors().clone().requires_grad_()
        return torch.autograd.grad(-f(x).sum(), x)[0]

    for number in range(generations):
        state, _ = generation(
            strategy, state, genome, evaluator, mean, key, number, gradients=gradients
        )
    return strategy, state


def step(kind, fitness, genome=SPACE, key=KEY):
    """Strategy, the state before, the candidates, and the state after they got this fitness."""
    strategy = built(kind)
    before = strategy.init(genome, key.at("init"))
    population, asked = strategy.ask(before, genome, key.at("vary"))
    return (
        strategy,
        before,
        population,
        strategy.tell(asked, population, fitness(population.vectors())),
    )


def same(a, b):
    """Equal in every field, tensors bit for bit."""
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if is_dataclass(a):
        return type(a) is type(b) and all(
            same(getattr(a, x.name), getattr(b, x.name)) for x in fields(a)
        )
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def finite(state, name=""):
    """Nothing but a fitness that is kept may be -inf."""
    if isinstance(state, Tensor):
        return bool((state.isfinite() | (state == FAILED) & (name == "fitness")).all())
    return (
        all(finite(getattr(state, x.name), x.name) for x in fields(state))
        if is_dataclass(state)
        else True
    )


# --- it searches ---


@every
@pytest.mark.parametrize(("f", "target"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_it_finds_the_optimum_of_a_simple_function(kind, f, target):
    for seed in range(3):
        strategy, state = search(kind, f, key=Stream(seed))
        assert f(strategy.mean_candidate(state).vectors()).item() > target * LOOSER.get(kind, 1)


@every
def test_selection_raises_fitness(kind):
    for seed in range(5):
        key = Stream(seed).at("raise")
        _, _, population, _ = step(kind, sphere, key=key)
        strategy, after = search(kind, sphere, 20, key=key)
        assert (
            sphere(strategy.mean_candidate(after).vectors()).item()
            > sphere(population.vectors()).mean().item()
        )


@selecting
def test_one_selection_does_not_lower_the_fitness_of_what_it_stands_for(kind):
    """On average over many first generations: one alone may be unlucky."""
    gains = []
    for seed in range(40):
        strategy, before, _, after = step(kind, sphere, key=Stream(seed))
        gains.append(
            sphere(strategy.mean_candidate(after).vectors())
            - sphere(strategy.mean_candidate(before).vectors())
        )
    assert torch.cat(gains).mean().item() > 0


# --- failures ---


@selecting
@pytest.mark.parametrize("failure", [torch.nan, FAILED], ids=["nan", "-inf"])
def test_a_failure_never_wins(kind, failure):
    """Fitness rises with the first number until, past 0.3, every training fails."""

    def cliff(x):
        return torch.where(x[:, 0] < 0.3, x[:, 0], failure)

    strategy, state = search(kind, cliff, 100, Space(-1.0, 0.0))
    assert finite(state)
    assert -0.1 < strategy.mean_candidate(state).vectors()[0, 0].item() < 0.36


@selecting
@pytest.mark.parametrize("failure", [torch.nan, FAILED], ids=["nan", "-inf"])
def test_some_failures_do_not_disturb(kind, failure):
    draws = iter(range(10_000))

    def unreliable(x):
        failed = KEY.at("failed", next(draws)).uniform(len(x)) < 0.2
        return sphere(x).where(~failed, failure)

    strategy, state = search(kind, unreliable)
    assert finite(state)
    assert sphere(strategy.mean_candidate(state).vectors()).item() > -0.03 * LOOSER.get(kind, 1)


@every
def test_where_all_fail_the_start_stays(kind):
    strategy, before, _, after = step(kind, lambda x: torch.full((len(x),), FAILED))
    assert finite(after)
    assert torch.equal(
        strategy.mean_candidate(after).vectors(), strategy.mean_candidate(before).vectors()
    )


@selecting
def test_a_generation_of_failures_does_no_lasting_harm(kind):
    generations = iter(range(1000))

    def interrupted(x):
        return torch.full((len(x),), torch.nan) if next(generations) in (30, 31) else sphere(x)

    strategy, state = search(kind, interrupted)
    assert finite(state)
    assert sphere(strategy.mean_candidate(state).vectors()).item() > -0.01 * LOOSER.get(kind, 1)


# --- a function of state, fitness and key ---


@every
def test_ask_and_tell_depend_on_state_fitness_and_key_alone(kind):
    torch.manual_seed(0)
    _, state, population, after = step(kind, sphere)
    torch.manual_seed(1)
    _, again, same_population, same_after = step(kind, sphere)
    assert same(state, again)
    assert same(population, same_population)
    assert same(after, same_after)


@selecting
def test_another_key_asks_for_other_candidates(kind):
    strategy, _, _, state = step(kind, sphere)
    one, other = (strategy.ask(state, SPACE, KEY.at(g))[0] for g in (0, 1))
    assert len(one) == len(other)
    assert not same(one, other)


@every
def test_asking_and_telling_change_no_state_in_place(kind):
    strategy = built(kind)
    state = strategy.init(SPACE, KEY)
    population, asked = strategy.ask(state, SPACE, KEY)
    copies = [unpack(pack(x), (*strategy.states, Vectors)) for x in (state, asked, population)]
    strategy.tell(asked, population, sphere(population.vectors()))
    assert all(same(x, copy) for x, copy in zip((state, asked, population), copies, strict=True))


@every
@pytest.mark.parametrize(
    "transform",
    [lambda f: 100 * f + 7, torch.exp, lambda f: f.sign() * f.abs().sqrt()],
    ids=["linear", "exp", "root"],
)
def test_only_the_order_of_fitness_matters(kind, transform):
    def ranks(x):
        return KEY.at("ranks").permutation(len(x)).float() / len(x) - 0.5

    strategy, _, _, one = step(kind, ranks)
    other = step(kind, lambda x: transform(ranks(x)))[3]
    # Not the states: fitness itself may be kept, to be compared with that of other generations.
    assert same(strategy.mean_candidate(one), strategy.mean_candidate(other))
    assert same(*(strategy.ask(state, SPACE, KEY.at("next"))[0] for state in (one, other)))


@every
def test_failures_are_worse_than_the_worst_success_but_how_much_does_not_matter(kind):
    def some(worst):
        return lambda x: torch.where(torch.arange(len(x)) % 3 == 0, worst, sphere(x))

    strategy, _, _, after = step(kind, some(FAILED))
    # Not the states: an archive of the unselected may take the unfit and refuse failures.
    assert same(strategy.mean_candidate(after), strategy.mean_candidate(step(kind, some(-1e6))[3]))


# --- states ---


@every
def test_a_state_is_a_frozen_dataclass_of_tensors_populations_and_numbers(kind):
    strategy = built(kind)
    state = strategy.init(SPACE, KEY)
    _, asked = strategy.ask(state, SPACE, KEY)
    for each in (state, asked):
        assert type(each) in strategy.states
        assert type(each).__dataclass_params__.frozen
        assert all(
            isinstance(getattr(each, x.name), Tensor | Population | int | str) for x in fields(each)
        )


@every
def test_a_state_survives_being_stored(kind):
    strategy = built(kind)
    types = (*strategy.states, *SPACE.populations)
    _, state = search(kind, sphere, 3)
    population, asked = strategy.ask(state, SPACE, KEY)
    for each in (state, asked):
        assert same(unpack(pack(each), types), each)
    stored = unpack(pack(state), types)
    assert same(strategy.ask(stored, SPACE, KEY), (population, asked))


@every
def test_every_generation_but_the_first_asks_for_as_many_candidates(kind):
    """The first may ask for more, to have a choice to start from."""
    strategy, _, first, state = step(kind, sphere)
    sizes = set()
    for g in range(3):
        population, state = strategy.ask(state, SPACE, KEY.at(g))
        sizes.add(len(population))
        state = strategy.tell(state, population, sphere(population.vectors()))
    assert len(sizes) == 1
    assert sizes.pop() <= len(first)
    assert len(strategy.mean_candidate(state)) == 1


@every
def test_task_epochs_are_numbered_from_one_and_never_return(kind):
    epochs = [built(kind).epoch(g) for g in range(1, 50)]
    assert epochs[0] == 1
    assert all(0 <= b - a <= 1 for a, b in itertools.pairwise(epochs))


@every
def test_the_tasks_of_a_generation_are_those_of_its_epoch(kind):
    strategy = built(kind)
    seen = []

    def evaluator(population, key):
        seen.append(key)
        return sphere(population.vectors())[:, None], torch.tensor([0])

    state = strategy.init(SPACE, KEY)
    for number in (1, 2, 3):
        state, _ = generation(strategy, state, SPACE, evaluator, mean, KEY, number)
    assert seen == [KEY.at("tasks", strategy.epoch(number)) for number in (1, 2, 3)]


def test_a_baseline_meets_the_same_tasks_and_reaches_the_objective():
    tasks = []

    def evaluator(population, key):
        tasks.append(key)
        return torch.zeros(len(population), 2), torch.tensor([0, 1])

    def baseline(key):
        tasks.append(key)
        return torch.tensor([0.25, 0.5])

    def objective(score, family, baseline):
        return score.sum(1) + baseline.sum()

    strategy = built("random_search")
    _, scored = generation(
        strategy, strategy.init(SPACE, KEY), SPACE, evaluator, objective, KEY, 1, baseline
    )
    assert tasks[0] == tasks[1]
    assert scored.fitness.unique().tolist() == [0.75]


# --- (μ+λ) ---


def test_mu_plus_lambda_keeps_the_best_of_parents_and_children_with_their_step_sizes():
    strategy = MuPlusLambda(mu=3, lambda_=5)
    state = strategy.init(SPACE, KEY)
    population, asked = strategy.ask(state, SPACE, KEY)
    assert torch.equal(population.vectors()[:3], state.parents.vectors())
    fitness = torch.tensor([0.1, 0.9, 0.2, 0.3, 0.8, 0.0, FAILED, 0.7])
    told = strategy.tell(asked, population, fitness)
    best = torch.tensor([1, 4, 7])
    assert torch.equal(told.parents.vectors(), population.vectors()[best])
    assert torch.equal(told.sigma, asked.asked[best])


def test_mu_plus_lambda_prefers_parents_to_children_that_are_no_better():
    strategy = MuPlusLambda(mu=3, lambda_=5)
    state = strategy.init(SPACE, KEY)
    population, asked = strategy.ask(state, SPACE, KEY)
    told = strategy.tell(asked, population, torch.zeros(8))
    assert torch.equal(told.parents.vectors(), state.parents.vectors())
    assert torch.equal(told.sigma, state.sigma)


@pytest.mark.parametrize("crossover", [True, False])
def test_step_sizes_shrink_near_the_optimum_and_grow_far_from_it(crossover):
    near = MuPlusLambda(sigma=0.3, crossover=crossover)
    _, state = search("mu_plus_lambda", sphere, 80, strategy=near)
    assert state.sigma.mean().item() < 0.05
    far = MuPlusLambda(sigma=0.001, crossover=crossover)
    _, state = search("mu_plus_lambda", lambda x: x.sum(1), 80, strategy=far)
    assert state.sigma.mean().item() > 0.01


@pytest.mark.parametrize(("mu", "lambda_"), [(1, 1), (1, 6), (5, 1), (4, 11)])
def test_any_number_of_parents_and_children_will_do(mu, lambda_):
    strategy = MuPlusLambda(mu=mu, lambda_=lambda_)
    state = strategy.init(SPACE, KEY)
    population, asked = strategy.ask(state, SPACE, KEY)
    assert len(population) == mu + lambda_
    assert asked.asked.shape == (mu + lambda_, 3)
    assert len(strategy.tell(asked, population, sphere(population.vectors())).parents) == mu


# --- openai_es ---


def test_openai_es_asks_for_mirrored_pairs():
    strategy = built("openai_es")
    state = strategy.init(SPACE, KEY)
    x = strategy.ask(state, SPACE, KEY)[0].vectors()
    half = len(x) // 2
    torch.testing.assert_close(
        (x[:half] + x[half:]) / 2, state.mean_candidate.vectors().expand(half, -1)
    )


# --- random_search ---


def test_random_search_scores_its_best_again_and_replaces_it_only_by_a_better_one():
    strategy = built("random_search")
    state = strategy.init(SPACE, KEY)
    population, asked = strategy.ask(state, SPACE, KEY)
    assert torch.equal(population.vectors()[:1], state.best.vectors())
    fitness = torch.zeros(len(population))
    assert torch.equal(
        strategy.tell(asked, population, fitness).best.vectors(), state.best.vectors()
    )
    fitness[5] = 1
    assert torch.equal(
        strategy.tell(asked, population, fitness).best.vectors(), population.vectors()[5:6]
    )


# --- gp ---


@dataclass(frozen=True)
class Numbered(Population):
    """Candidates that carry their number and a size."""

    number: Tensor
    size: Tensor

    @property
    def sizes(self):
        return self.size


def numbered(*numbers, size=1):
    n = torch.tensor(numbers, dtype=torch.int64)
    return Numbered(n, torch.as_tensor(size).expand(len(n)).clone())


@dataclass(frozen=True)
class Recorder:
    """Samples are 0, 1, ...; children are 100 and up.

    Their parents are recorded here: a child does not know them.
    """

    crossed: list = field(default_factory=list)
    mutated: list = field(default_factory=list)
    strengths: list = field(default_factory=list)

    def sample(self, n, key):
        return numbered(*range(n))

    def mutate(self, parents, strength, key):
        self.mutated.extend(parents.number.tolist())
        self.strengths.append(strength)
        return numbered(*[100] * len(parents))

    def crossover(self, a, b, key):
        self.crossed.extend(zip(a.number.tolist(), b.number.tolist(), strict=True))
        return numbered(*[200] * len(a))


def lineage(parents, archive=()):
    return GpState(numbered(*parents), numbered(*archive), torch.zeros(0))


def told(strategy, population, fitness, draws=None, archive=()):
    """The state after these candidates got this fitness; a draw of 1 stores no one."""
    draws = torch.ones(len(population)) if draws is None else torch.tensor(draws)
    before = GpState(population[: strategy.mu], numbered(*archive), draws)
    return strategy.tell(before, population, torch.tensor(fitness))


def test_gp_scores_its_parents_again_and_keeps_the_best_of_all_best_first():
    strategy = Gp(mu=3, lambda_=2)
    state = strategy.init(SPACE, KEY)
    population, _ = strategy.ask(state, SPACE, KEY)
    assert torch.equal(population.vectors()[:3], state.parents.vectors())
    after = told(strategy, numbered(0, 1, 2, 3, 4), [0.2, 0.9, FAILED, 0.5, torch.nan])
    assert after.parents.number.tolist() == [1, 3, 0]


def test_gp_never_loses_its_best_where_fitness_has_no_noise():
    strategy = Gp(mu=4, lambda_=8)
    state = strategy.init(SPACE, KEY)
    best = []
    for g in range(20):
        population, state = strategy.ask(state, SPACE, KEY.at(g))
        state = strategy.tell(state, population, sphere(population.vectors()))
        best.append(sphere(state.parents.vectors())[0].item())
    assert best == sorted(best)


def test_gp_prefers_the_smaller_of_two_equals_then_the_older():
    sizes = torch.tensor([5, 3, 3, 2, 9])
    after = told(
        Gp(mu=4, lambda_=1), numbered(0, 1, 2, 3, 4, size=sizes), [0.5, 0.5, 0.5, 0.1, 0.6]
    )
    assert after.parents.number.tolist() == [4, 1, 2, 0]


def test_gp_lets_no_failed_child_replace_a_failed_parent_however_small():
    sizes = torch.tensor([5, 4, 1, 1])
    after = told(
        Gp(mu=2, lambda_=2),
        numbered(0, 1, 2, 3, size=sizes),
        [FAILED, torch.nan, FAILED, torch.nan],
    )
    assert after.parents.number.tolist() == [0, 1]


@pytest.mark.parametrize(("parsimony", "first"), [(0.0, 0), (0.009, 0), (0.011, 1)])
def test_gp_takes_parsimony_off_the_fitness_for_every_unit_of_size(parsimony, first):
    candidates = numbered(0, 1, size=torch.tensor([11, 1]))
    after = told(Gp(mu=2, lambda_=1, parsimony=parsimony), candidates, [0.6, 0.5])
    assert after.parents.number[0] == first


def test_gp_stores_those_of_the_unselected_whose_draw_is_low_but_no_failures():
    strategy = Gp(mu=3, lambda_=5, store=0.5)
    fitness = [0.9, 0.1, FAILED, 0.8, 0.3, 0.7, torch.nan, 0.2]
    draws = [0.0, 0.49, 0.0, 0.0, 0.5, 0.0, 0.0, 0.1]
    after = told(strategy, numbered(*range(8)), fitness, draws)
    assert after.parents.number.tolist() == [0, 3, 5]
    assert sorted(after.archive.number.tolist()) == [1, 7]  # 4 drew 0.5


def test_gp_s_archive_is_no_larger_than_its_population_and_forgets_old_ones():
    strategy = Gp(mu=3, lambda_=2, store=1.0)
    after = told(
        strategy,
        numbered(0, 1, 2, 3, 4),
        [5.0, 4.0, 3.0, 2.0, 1.0],
        [0.0] * 5,
        archive=(10, 11, 12),
    )
    assert {3, 4} < set(after.archive.number.tolist())
    assert len(after.archive) == 3


def test_gp_forgets_each_old_one_as_often():
    strategy = Gp(mu=3, lambda_=1, store=1.0)
    forgotten = []
    for seed in range(600):
        population, asked = strategy.ask(lineage([0, 1, 2], [10, 11, 12]), Recorder(), Stream(seed))
        after = strategy.tell(asked, population, torch.tensor([4.0, 3.0, 2.0, 1.0]))
        forgotten += {10, 11, 12} - set(after.archive.number.tolist())
    assert len(forgotten) == 600
    assert all(150 < forgotten.count(each) < 250 for each in (10, 11, 12))


@pytest.mark.parametrize("store", [0.0, 0.3, 1.0])
def test_gp_stores_with_the_probability_asked_for(store):
    strategy = Gp(mu=20, lambda_=20, store=store)
    stored = 0
    for seed in range(50):
        population, asked = strategy.ask(lineage(range(20)), Recorder(), Stream(seed))
        stored += len(strategy.tell(asked, population, torch.arange(40.0)).archive)
    assert stored / (50 * 20) == pytest.approx(store, abs=0.05)


@pytest.mark.parametrize("recall", [0.0, 0.4, 1.0])
def test_gp_takes_second_parents_from_the_archive_with_the_probability_asked_for(recall):
    genome = Recorder()
    strategy = Gp(mu=3, lambda_=1000, crossover=1.0, recall=recall)
    strategy.ask(lineage([0, 1, 2], [10, 11]), genome, KEY)
    assert len(genome.crossed) == 1000
    assert {a for a, _ in genome.crossed} == {0, 1, 2}
    recalled = [b for _, b in genome.crossed if b >= 10]
    assert len(recalled) / 1000 == pytest.approx(recall, abs=0.05)
    assert recall == 0 or abs(recalled.count(10) - recalled.count(11)) < 0.2 * len(recalled)


def test_gp_crosses_parents_alone_while_the_archive_is_empty():
    genome = Recorder()
    Gp(mu=3, lambda_=100, crossover=1.0, recall=1.0).ask(lineage([0, 1, 2]), genome, KEY)
    assert {b for _, b in genome.crossed} == {0, 1, 2}


@pytest.mark.parametrize("crossover", [0.0, 0.7, 1.0])
def test_gp_crosses_with_the_probability_asked_for_and_else_mutates(crossover):
    genome = Recorder()
    population, _ = Gp(mu=3, lambda_=1000, crossover=crossover, sigma=0.5).ask(
        lineage([0, 1, 2]), genome, KEY
    )
    assert len(population) == 1003
    assert len(genome.crossed) + len(genome.mutated) == 1000
    assert len(genome.crossed) / 1000 == pytest.approx(crossover, abs=0.05)
    assert all((strength == 0.5).all() for strength in genome.strengths)


@pytest.mark.parametrize("tournament", [1, 2, 5])
def test_gp_s_tournaments_favour_the_best_as_much_as_they_are_large(tournament):
    """The best of four wins a tournament of k that it takes part in.

    The probability is 1 - (3/4)^k.
    """
    genome = Recorder()
    Gp(mu=4, lambda_=2000, crossover=0.0, tournament=tournament).ask(lineage(range(4)), genome, KEY)
    assert genome.mutated.count(0) / 2000 == pytest.approx(1 - 0.75**tournament, abs=0.04)


@pytest.mark.parametrize(("mu", "lambda_"), [(1, 1), (1, 6), (5, 1)])
def test_gp_works_with_any_number_of_parents_and_children(mu, lambda_):
    _, state = search("gp", sphere, 5, strategy=Gp(mu=mu, lambda_=lambda_, store=1.0, recall=1.0))
    assert len(state.parents) == len(state.archive) == mu


# --- regularized ---


def ageing(numbers, fitness, born, told):
    return RegularizedState(
        numbered(*numbers), torch.tensor(fitness).double(), torch.tensor(born), told
    )


def numbers(state):
    return sorted(state.living.number.tolist())


def test_regularized_starts_from_the_best_of_the_initial_samples():
    strategy = Regularized(population=2, initial=5)
    population, asked = strategy.ask(strategy.init(Recorder(), KEY), Recorder(), KEY)
    assert population.number.tolist() == [0, 1, 2, 3, 4]
    after = strategy.tell(asked, population, torch.tensor([0.1, torch.nan, 0.9, FAILED, 0.5]))
    assert after.living.number.tolist() == [2, 4]
    assert after.fitness.tolist() == pytest.approx([0.9, 0.5])
    assert strategy.mean_candidate(after).number.tolist() == [2]


def test_regularized_keeps_failures_of_the_start_while_there_is_nothing_better():
    strategy = Regularized(population=2, initial=3, batch=1, tournament=1)
    population, asked = strategy.ask(strategy.init(Recorder(), KEY), Recorder(), KEY)
    after = strategy.tell(asked, population, torch.full((3,), torch.nan))
    assert after.living.number.tolist() == [0, 1]
    after = strategy.tell(after, numbered(7), torch.tensor([0.2]))
    assert numbers(after) == [0, 7]
    assert strategy.mean_candidate(after).number.tolist() == [7]


def test_regularized_lets_a_small_start_grow_before_anyone_dies():
    strategy = Regularized(population=3, initial=1, batch=1)
    state = ageing([0], [0.5], [0], 1)
    for child, living in ((1, [0, 1]), (2, [0, 1, 2]), (3, [1, 2, 3])):
        state = strategy.tell(state, numbered(child), torch.tensor([0.1]))
        assert numbers(state) == living


def test_regularized_lets_the_oldest_die_even_if_it_is_the_best():
    state = ageing([0, 1, 2], [0.9, 0.1, 0.2], [1, 2, 3], 4)
    after = Regularized(population=3, batch=1).tell(state, numbered(7), torch.tensor([0.0]))
    assert numbers(after) == [1, 2, 7]
    assert after.generations == 5
    assert after.born.max() == 4


def test_regularized_lets_the_worst_of_one_age_die_first():
    state = ageing([0, 1, 2, 3], [0.3, 0.1, 0.2, 0.0], [1, 1, 1, 2], 3)
    after = Regularized(population=4, batch=2).tell(state, numbered(7, 8), torch.tensor([0.0, 0.0]))
    assert numbers(after) == [0, 3, 7, 8]


@pytest.mark.parametrize("failure", [torch.nan, FAILED], ids=["nan", "-inf"])
def test_regularized_drops_children_that_failed_and_everyone_ages_all_the_same(failure):
    strategy = Regularized(population=3, batch=2)
    state = ageing([0, 1, 2], [0.9, 0.1, 0.2], [1, 2, 2], 3)
    none = strategy.tell(state, numbered(7, 8), torch.tensor([failure, failure]))
    assert numbers(none) == [0, 1, 2]
    assert none.generations == 4
    one = strategy.tell(none, numbered(7, 8), torch.tensor([failure, 0.3]))
    assert numbers(one) == [1, 2, 8]
    assert sorted(one.born.tolist()) == [2, 2, 4]


@pytest.mark.parametrize("tournament", [1, 2, 5])
def test_regularized_draws_tournaments_with_replacement(tournament):
    """The best of four wins with probability 1 - (3/4)^k, the worst with (1/4)^k.

    The worst wins where it meets no other.
    """
    genome = Recorder()
    state = ageing([0, 1, 2, 3], [0.2, 0.9, 0.1, FAILED], [0, 0, 0, 0], 1)
    Regularized(population=4, batch=2000, tournament=tournament, sigma=0.5).ask(state, genome, KEY)
    assert genome.mutated.count(1) / 2000 == pytest.approx(1 - 0.75**tournament, abs=0.04)
    assert genome.mutated.count(3) / 2000 == pytest.approx(0.25**tournament, abs=0.04)
    assert not genome.crossed
    assert (genome.strengths[0] == 0.5).all()


def test_regularized_chooses_all_parents_of_a_batch_among_those_alive_before_it():
    genome = Recorder()
    strategy = Regularized(population=4, initial=4, batch=3)
    state = strategy.init(genome, KEY)
    for g in range(6):
        alive = set(state.living.number.tolist())
        population, state = strategy.ask(state, genome, KEY.at(g))
        assert set(genome.mutated) <= alive
        genome.mutated.clear()
        fresh = replace(population, number=torch.arange(len(population)) + 10 * g)
        state = strategy.tell(state, fresh, torch.arange(float(len(fresh))))


@pytest.mark.parametrize("refresh", [0, 1, 2, 3])
def test_regularized_scores_the_living_again_exactly_where_an_epoch_begins(refresh):
    strategy = Regularized(population=4, initial=6, batch=3, refresh=refresh)
    state = strategy.init(SPACE, KEY)
    epoch = 0
    for number in range(1, 12):
        population, asked = strategy.ask(state, SPACE, KEY.at(number))
        assert same(population, state.living) == (strategy.epoch(number) != epoch)
        state = strategy.tell(asked, population, sphere(population.vectors()))
        epoch = strategy.epoch(number)
    assert epoch == (-(-11 // refresh) if refresh else 1)


def test_regularized_s_new_epoch_changes_fitness_alone():
    strategy = Regularized(population=3, initial=3, batch=1, refresh=2)
    state = ageing([0, 1, 2], [0.9, 0.1, 0.2], [0, 1, 0], 2)
    population, asked = strategy.ask(state, Recorder(), KEY)
    after = strategy.tell(asked, population, torch.tensor([torch.nan, 0.5, 0.75]))
    rows = dict(
        zip(
            after.living.number.tolist(),
            zip(after.fitness.tolist(), after.born.tolist(), strict=True),
            strict=True,
        )
    )
    assert rows == {0: (FAILED, 0), 1: (0.5, 1), 2: (0.75, 0)}
    assert strategy.mean_candidate(after).number.tolist() == [2]


# --- what is no vector ---


@dataclass(frozen=True)
class Bits(Population):
    bits: Tensor


class Strings:
    """Strings of twenty bits, varied by flips of single ones and by uniform crosses."""

    def sample(self, n, key):
        return Bits(key.integers(2, n, 20))

    def mutate(self, parents, strength, key):
        flip = key.integers(20, len(parents), 1) == torch.arange(20)
        return Bits(torch.where(flip, 1 - parents.bits, parents.bits))

    def crossover(self, a, b, key):
        return Bits(torch.where(key.integers(2, *a.bits.shape) == 1, a.bits, b.bits))


def best_of(kind, seed, evaluations=2000):
    """The most ones among so many candidates."""
    strategy = built(kind)
    genome = Strings()
    key = Stream(seed)
    state = strategy.init(genome, key.at("init"))
    best = 0
    left = evaluations
    g = 0
    while left > 0:
        population, asked = strategy.ask(state, genome, key.at("vary", g))
        ones = population.bits.sum(1).float()
        best = max(best, int(ones[:left].max()))
        state = strategy.tell(asked, population, ones)
        left = left - len(ones)
        g = g + 1
    return best


@pytest.mark.parametrize("kind", ["gp", "regularized"])
def test_on_bit_strings_it_finds_what_random_search_does_not_find_with_as_many_trainings(kind):
    assert [best_of(kind, seed) for seed in range(3)] == [20, 20, 20]
    assert max(best_of("random_search", seed) for seed in range(3)) < 20


# --- covariance matrix adaptation ---


def turned(x, scales):
    """An ellipsoid whose axes lie along no coordinate."""
    rotation = torch.linalg.qr(KEY.at("rotation").normal(len(scales), len(scales)).double()).Q
    return -((x.double() - 0.3) @ rotation * scales).square().sum(1)


def test_the_covariance_takes_the_shape_of_what_is_searched():
    scales = torch.tensor([1.0, 5.0, 20.0, 100.0], dtype=torch.float64)
    _, state = search("cma_es", lambda x: turned(x, scales), 60, Space(D=4))
    assert float(turned(state.mean_candidate.vectors(), scales)) > -1e-3
    found = torch.linalg.eigvalsh(state.covariance).flip(0).sqrt()
    ratios = found[0] / found
    assert (ratios.log() - scales.log()).abs().max() < 1.0


def test_its_rates_are_those_of_the_tutorial():
    """For 10 numbers and 10 candidates, by hand.

    μ_eff, c_1 and c_μ are also what the package `cma` 4 has.
    """
    rates = Rates(_weights(10, 5), 10)
    assert float(rates.weights.sum()) == pytest.approx(1)
    assert bool((rates.weights.diff() < 0).all())
    mu = rates.mu
    assert mu == pytest.approx(3.1672, abs=1e-4)
    assert (rates.sigma, rates.path) == (
        pytest.approx((mu + 2) / (15 + mu)),
        pytest.approx(0.2950, abs=1e-4),
    )
    assert (rates.one, rates.many) == (
        pytest.approx(0.01528, abs=1e-5),
        pytest.approx(0.02355, abs=1e-5),
    )
    assert rates.damping == pytest.approx(1 + rates.sigma)


def test_no_number_of_threads_changes_a_sample():
    strategy = built("cma_es")
    genome = Space(D=300)
    state = strategy.init(genome, KEY)
    noise = KEY.normal(300, 300).double()
    state = replace(state, covariance=noise @ noise.mT / 300)
    samples = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        samples.append(strategy.ask(state, genome, KEY)[0].vectors())
        assert torch.get_num_threads() == threads
    torch.set_num_threads(1)
    assert torch.equal(*samples)


# --- gradients ---


def test_the_first_step_down_a_gradient_is_as_long_as_the_rate_in_every_number():
    strategy = built("gradient")
    state = strategy.init(SPACE, KEY)
    before = strategy.mean_candidate(state).vectors()
    state = strategy.follow(state, torch.tensor([[3.0, -0.02, 0.0]]))
    expected = before - torch.tensor([[0.05, -0.05, 0.0]])
    torch.testing.assert_close(strategy.mean_candidate(state).vectors(), expected)


def test_who_asks_for_no_gradients_gets_none():
    def refused(population, key):
        raise AssertionError

    strategy = built("cma_es")
    state = strategy.init(SPACE, KEY)

    def evaluator(population, key):
        return sphere(population.vectors())[:, None], torch.tensor([0])

    generation(strategy, state, SPACE, evaluator, mean, KEY, 1, gradients=refused)
