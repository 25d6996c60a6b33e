"""Started from random trees where the best loss is known, a search finds one with the same
phenotype.

The task family is made for it: 3-way 2-shot tasks of the embedded Fashion-MNIST images and a tiny
MLP, but validation labels are what the classifier answers that a hidden teacher trains from the
same start. The score is the accuracy on them, the share of images on which a loss's classifier
agrees with the teacher's. So the teacher reaches exactly 100 %, and no loss more; on 1,800 images a
generation, one that trains otherwise does not reach it. The teacher is focal loss with γ = 1 (Lin
2017), -y (1 - p) log p, written without a constant for the trees to draw.
"""

from dataclasses import dataclass, replace

import pytest
import torch
from test_run_folder import only_the_subset

from metaloss.core.streams import Stream
from metaloss.evolution import evaluate, generation
from metaloss.genomes.tree import Tree
from metaloss.inner.loop import train
from metaloss.losses import phenotype
from metaloss.losses.base import TrainingTargets
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.search.cached_evaluator import CachedEvaluator
from metaloss.search.novelty import SAME, NoveltyFilter
from metaloss.search.objectives import mean
from metaloss.search.trained_losses import TrainedLosses
from metaloss.strategies.gp import Gp
from metaloss.tasks import episodic, episodic_family
from metaloss.tasks.episodic import Episodes

TEACHER = Formula.parse("-y * (1 - p) * logp")
FAMILY = {
    "dataset": "fashionmnist",
    "ways": 3,
    "shots": 2,
    "val": 150,
    "classifier": {"kind": "mlp", "hidden": [8]},
    "inner": {"steps": 10, "lr": 0.5},
}
TASKS = 4
GENERATIONS = 30
TREES = Tree(functions=("add", "sub", "mul", "square"), max_size=20, max_height=5)
STRATEGY = Gp(mu=16, lambda_=16)


@pytest.fixture
def episodes(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    return episodic.open_episodes(episodic_family.of(FAMILY, "taught", "taught"))


@dataclass(frozen=True)
class Taught:
    """Trains losses on tasks whose validation labels are the teacher's predictions."""

    episodes: Episodes
    teacher: Formula = TEACHER

    def __call__(self, losses, key):
        model = self.episodes.model
        inner = self.episodes.family.inner
        keys = [key.at(t) for t in range(TASKS)]
        tasks = self.episodes.sample(keys)
        bound = model.bind(tasks, keys)
        teacher = Formulas.of([self.teacher]).bind(TrainingTargets(tasks.train.target))
        params = train(teacher, model, bound.init(1), bound.train, inner=inner)
        answers = model(params, bound.val)[0].argmax(-1)
        taught = replace(tasks, val=replace(tasks.val, label=answers))
        score = evaluate(losses, model, bound, taught, inner=inner, block=len(bound.val))[0]
        return score, torch.zeros(TASKS, dtype=torch.int64)


def curve(formula):
    return phenotype.curve(Formulas.of([formula]))


def distance(formula):
    """Between a loss's normalised curve and the teacher's."""
    return float(
        (phenotype.normalised(curve(formula)) - phenotype.normalised(curve(TEACHER))).norm()
    )


def scale(formula):
    """What a loss's curve spans, relative to the teacher's."""
    return float(curve(formula).aminmax().max - curve(formula).aminmax().min) / float(
        curve(TEACHER).max()
    )


def searched(episodes, seed):
    """The losses of the start, and the first loss that always agrees with the teacher, if any."""
    key = Stream(seed)
    ledger = TrainedLosses(TREES.filters)
    evaluator = CachedEvaluator(Taught(episodes))
    novelty_filter = NoveltyFilter(TREES, ledger.seen)
    novelty_filter.start_generation()
    state = STRATEGY.init(novelty_filter, key.at("init"))
    start = TREES.formulas(state.parents)
    for number in range(1, GENERATIONS + 1):
        if number > 1:
            novelty_filter.start_generation()
        state, scored = generation(STRATEGY, state, novelty_filter, evaluator, mean, key, number)
        formulas = TREES.formulas(scored.population)
        ledger.add({"losses": [(str(f), None) for f in formulas], "control": evaluator.control})
        if float(scored.fitness.max()) == 1:
            return start, formulas[int(scored.fitness.argmax())]
    return start, None


def test_the_teacher_and_nothing_near_it_agrees_with_the_teacher_on_every_image(episodes):
    others = ("-y * logp", "-y * (1.05 - p) * logp", "-1.05 * y * (1 - p) * logp", "square(p - y)")
    losses = Formulas.of([TEACHER, *map(Formula.parse, others)])
    score, _ = Taught(episodes)(losses, Stream(0))
    assert (score[0] == 1).all()
    assert (score[1:].mean(1) < 1).all()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_search_from_random_trees_finds_the_loss_that_its_tasks_were_made_with(episodes, seed):
    start, found = searched(episodes, seed)
    assert min(map(distance, start)) > SAME, "found before the search began"
    assert found is not None
    assert distance(found) <= SAME
    assert scale(found) == pytest.approx(1, rel=0.01), "the tasks tell the scale, too"
