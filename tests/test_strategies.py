"""Every outer algorithm finds simple optima, survives failures, and is a function of state, fitness and key."""

from dataclasses import dataclass, fields, is_dataclass

import pytest
import torch
from torch import Tensor

from metaloss import registry
from metaloss.codec import pack, unpack
from metaloss.evolution import generation
from metaloss.objectives import mean
from metaloss.population import Population, Vectors
from metaloss.strategies.mu_plus_lambda import MuPlusLambda
from metaloss.streams import Stream

every = pytest.mark.parametrize("kind", registry.names("strategies"))
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
    return registry.build("strategies", {"kind": kind})


def search(kind, f, generations=80, genome=SPACE, key=KEY, strategy=None):
    """The state after so many generations, through the same function that a run uses."""
    strategy = strategy or built(kind)
    state = strategy.init(genome, key.at("init"))

    def evaluator(population, key):
        return f(population.vectors())[:, None], torch.tensor([0])

    for number in range(generations):
        state, _ = generation(strategy, state, genome, evaluator, mean, key, number)
    return strategy, state


def step(kind, fitness, genome=SPACE, key=KEY):
    """Strategy, the state before, the candidates, and the state after they got this fitness."""
    strategy = built(kind)
    before = strategy.init(genome, key.at("init"))
    population, asked = strategy.ask(before, genome, key.at("vary"))
    return strategy, before, population, strategy.tell(asked, population, fitness(population.vectors()))


def same(a, b):
    """Equal in every field, tensors bit for bit."""
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, x.name), getattr(b, x.name)) for x in fields(a))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def finite(state):
    if isinstance(state, Tensor):
        return bool(state.isfinite().all())
    return all(finite(getattr(state, x.name)) for x in fields(state)) if is_dataclass(state) else True


# --- it searches ---


@every
@pytest.mark.parametrize(("f", "target"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_it_finds_the_optimum_of_a_simple_function(kind, f, target):
    for seed in range(3):
        strategy, state = search(kind, f, key=Stream(seed))
        assert f(strategy.centre(state).vectors()).item() > target * LOOSER.get(kind, 1)


@every
def test_selection_raises_fitness(kind):
    for seed in range(5):
        key = Stream(seed).at("raise")
        _, _, population, _ = step(kind, sphere, key=key)
        strategy, after = search(kind, sphere, 20, key=key)
        assert sphere(strategy.centre(after).vectors()).item() > sphere(population.vectors()).mean().item()


@every
def test_one_selection_does_not_lower_the_fitness_of_what_it_stands_for(kind):
    """On average over many first generations: one alone may be unlucky."""
    gains = []
    for seed in range(40):
        strategy, before, _, after = step(kind, sphere, key=Stream(seed))
        gains.append(sphere(strategy.centre(after).vectors()) - sphere(strategy.centre(before).vectors()))
    assert torch.cat(gains).mean().item() > 0


# --- failures ---


@every
@pytest.mark.parametrize("failure", [torch.nan, FAILED], ids=["nan", "-inf"])
def test_a_failure_never_wins(kind, failure):
    """Fitness rises with the first number until, past 0.3, every training fails."""

    def cliff(x):
        return torch.where(x[:, 0] < 0.3, x[:, 0], failure)

    strategy, state = search(kind, cliff, 100, Space(-1.0, 0.0))
    assert finite(state)
    assert -0.1 < strategy.centre(state).vectors()[0, 0].item() < 0.36


@every
@pytest.mark.parametrize("failure", [torch.nan, FAILED], ids=["nan", "-inf"])
def test_some_failures_do_not_disturb(kind, failure):
    draws = iter(range(10_000))

    def unreliable(x):
        failed = KEY.at("failed", next(draws)).uniform(len(x)) < 0.2
        return sphere(x).where(~failed, failure)

    strategy, state = search(kind, unreliable)
    assert finite(state)
    assert sphere(strategy.centre(state).vectors()).item() > -0.03 * LOOSER.get(kind, 1)


@every
def test_where_all_fail_the_start_stays(kind):
    strategy, before, _, after = step(kind, lambda x: torch.full((len(x),), FAILED))
    assert finite(after)
    assert torch.equal(strategy.centre(after).vectors(), strategy.centre(before).vectors())


@every
def test_a_generation_of_failures_does_no_lasting_harm(kind):
    generations = iter(range(1000))

    def interrupted(x):
        return torch.full((len(x),), torch.nan) if next(generations) in (30, 31) else sphere(x)

    strategy, state = search(kind, interrupted)
    assert finite(state)
    assert sphere(strategy.centre(state).vectors()).item() > -0.01 * LOOSER.get(kind, 1)


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


@every
def test_another_key_asks_for_other_candidates(kind):
    strategy = built(kind)
    state = strategy.init(SPACE, KEY)
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
    "transform", [lambda f: 100 * f + 7, torch.exp, lambda f: f.sign() * f.abs().sqrt()], ids=["linear", "exp", "root"]
)
def test_only_the_order_of_fitness_matters(kind, transform):
    def ranks(x):
        return KEY.at("ranks").permutation(len(x)).float() / len(x) - 0.5

    assert same(step(kind, ranks)[3], step(kind, lambda x: transform(ranks(x)))[3])


@every
def test_failures_are_worse_than_the_worst_success_but_how_much_does_not_matter(kind):
    def some(worst):
        return lambda x: torch.where(torch.arange(len(x)) % 3 == 0, worst, sphere(x))

    assert same(step(kind, some(FAILED))[3], step(kind, some(-1e6))[3])


# --- states ---


@every
def test_a_state_is_a_frozen_dataclass_of_tensors_populations_and_numbers(kind):
    strategy = built(kind)
    state = strategy.init(SPACE, KEY)
    _, asked = strategy.ask(state, SPACE, KEY)
    for each in (state, asked):
        assert type(each) in strategy.states
        assert type(each).__dataclass_params__.frozen
        assert all(isinstance(getattr(each, x.name), Tensor | Population | int | str) for x in fields(each))


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
def test_every_generation_asks_for_as_many_candidates(kind):
    strategy = built(kind)
    state, sizes = strategy.init(SPACE, KEY), set()
    for g in range(3):
        population, state = strategy.ask(state, SPACE, KEY.at(g))
        sizes.add(len(population))
        state = strategy.tell(state, population, sphere(population.vectors()))
    assert len(sizes) == 1
    assert len(strategy.centre(state)) == 1


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
    torch.testing.assert_close((x[:half] + x[half:]) / 2, state.centre.vectors().expand(half, -1))


# --- random_search ---


def test_random_search_scores_its_best_again_and_replaces_it_only_by_a_better_one():
    strategy = built("random_search")
    state = strategy.init(SPACE, KEY)
    population, asked = strategy.ask(state, SPACE, KEY)
    assert torch.equal(population.vectors()[:1], state.best.vectors())
    fitness = torch.zeros(len(population))
    assert torch.equal(strategy.tell(asked, population, fitness).best.vectors(), state.best.vectors())
    fitness[5] = 1
    assert torch.equal(strategy.tell(asked, population, fitness).best.vectors(), population.vectors()[5:6])
