"""A training's score is known by all that decides it, and by nothing else; a kill loses nothing."""

import json
import math

import pytest
import torch

from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.errors import DamagedFile
from metaloss.genomes.mln import MetaLossNetwork
from metaloss.losses import zoo
from metaloss.losses.base import CrossEntropies
from metaloss.losses.formulas import Formulas
from metaloss.tasks.training_cache import FILE, open_cache
from metaloss.tasks.training_family import of
from metaloss.tasks.worker_pool import TrainingRequest

FAMILY = of({"kind": "training", "training": {"lr": 0.05}}, "full", "full.toml")
CONDITIONS = {"torch": "2.11", "data full": "abc"}
SPACE = MetaLossNetwork(start="random")
WEIGHTS = SPACE.sample(2, Stream(0)).vectors()


KEY = Stream(0).at("task", 0)


def job(one=None, pool="train", key=KEY, lr=0.1, steps=3):
    return TrainingRequest(one or Formulas.of([zoo.read("ce")]), pool, key, lr, steps)


def trained(memory, jobs, results=0.5, family=FAMILY):
    """What the memory says of jobs, and those that had to be trained."""
    done = []

    def train(new):
        for x in new:
            done.append(x)
            yield x, results.get(x.lr, 0.5) if isinstance(results, dict) else results

    return memory.results(family, jobs, train), done


OTHERS = {
    "loss": job(Formulas.of([zoo.read("mae")])),
    "written otherwise": job(Formulas.of([zoo.read("ce").parse("-logp * y")])),
    "kind": job(CrossEntropies.of(1)),
    "smoothing": job(CrossEntropies.of(1, 0.1)),
    "network": job(SPACE.networks(WEIGHTS[:1])),
    "weights": job(SPACE.networks(WEIGHTS[1:])),
    "pool": job(pool="validation"),
    "task": job(key=Stream(0).at("task", 1)),
    "rate": job(lr=0.2),
    "steps": job(steps=4),
}


def test_a_training_is_known_by_all_that_decides_it(tmp_path):
    jobs = [job(), *OTHERS.values()]
    rates = [(i + 1) / 100 for i in range(len(jobs))]
    values = dict(zip(jobs, rates, strict=True))
    found = open_cache(tmp_path, CONDITIONS).results(
        FAMILY, jobs, lambda new: ((x, values[x]) for x in new)
    )
    assert found == rates
    again = open_cache(tmp_path, CONDITIONS)
    assert trained(again, jobs) == (rates, [])
    copies = [
        job(SPACE.networks(Vectors(WEIGHTS[1:].clone()).values)),
        job(CrossEntropies.of(3)[1:2]),
    ]
    assert trained(again, copies) == ([values[OTHERS["weights"]], values[OTHERS["kind"]]], [])


def test_other_conditions_or_settings_make_another_training(tmp_path):
    first = open_cache(tmp_path, CONDITIONS)
    trained(first, [job()])
    assert len(trained(open_cache(tmp_path, {**CONDITIONS, "torch": "2.12"}), [job()])[1]) == 1
    longer = of({"kind": "training", "training": {"lr": 0.05, "epochs": 20}}, "full", "full.toml")
    assert len(trained(first, [job()], family=longer)[1]) == 1
    workers = of({"kind": "training", "workers": 4, "training": {"lr": 0.05}}, "full", "full.toml")
    assert trained(first, [job()], family=workers)[1] == []


def test_two_candidates_that_are_one_are_trained_once(tmp_path):
    jobs = [job(SPACE.networks(WEIGHTS[rows])) for rows in ([0], [1], [0])]
    found, done = trained(open_cache(tmp_path, CONDITIONS), jobs)
    assert found == [0.5] * 3
    assert len(done) == 2


def test_a_divergence_is_kept_and_what_raised_is_not(tmp_path):
    jobs = [job(lr=0.1), job(lr=0.2), job(lr=0.3)]
    results = {0.2: math.nan, 0.3: ValueError("broken")}
    (first, second, third), _ = trained(open_cache(tmp_path, CONDITIONS), jobs, results)
    assert first == 0.5
    assert math.isnan(second)
    assert isinstance(third, ValueError)
    (first, second, third), done = trained(open_cache(tmp_path, CONDITIONS), jobs, 0.25)
    assert first == 0.5
    assert math.isnan(second)
    assert third == 0.25
    assert done == [jobs[2]]


def test_what_ended_before_an_interruption_is_kept(tmp_path):
    def train(jobs):
        yield jobs[0], 0.75
        raise KeyboardInterrupt

    jobs = [job(lr=0.1), job(lr=0.2)]
    with pytest.raises(KeyboardInterrupt):
        open_cache(tmp_path, CONDITIONS).results(FAMILY, jobs, train)
    assert trained(open_cache(tmp_path, CONDITIONS), jobs) == ([0.75, 0.5], [jobs[1]])


def test_a_last_line_that_was_cut_off_is_trained_again(tmp_path):
    jobs = [job(lr=0.1), job(lr=0.2)]
    path = tmp_path / FILE
    trained(open_cache(tmp_path, CONDITIONS), jobs)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert trained(open_cache(tmp_path, CONDITIONS), jobs) == ([0.5, 0.5], [jobs[1]])
    assert path.read_bytes() == whole


def test_a_line_that_was_changed_is_named(tmp_path):
    trained(open_cache(tmp_path, CONDITIONS), [job(lr=0.1), job(lr=0.2)])
    path = tmp_path / FILE
    path.write_text(path.read_text().replace("0.5", "0.6", 1))
    with pytest.raises(DamagedFile, match=r"trainings.jsonl: line 1 is damaged"):
        open_cache(tmp_path, CONDITIONS)


def test_a_line_can_be_read(tmp_path):
    trained(open_cache(tmp_path, CONDITIONS), [job()])
    line = json.loads((tmp_path / FILE).read_text())
    assert {
        key: line[key] for key in ("family", "loss", "pool", "seed", "lr", "steps", "accuracy")
    } == {
        **{"family": "full", "loss": str(zoo.read("ce")), "pool": "train"},
        **{"seed": [0, "task", 0], "lr": 0.1, "steps": 3, "accuracy": 0.5},
    }


def test_equal_numbers_of_another_shape_or_type_are_told_apart(tmp_path):
    from metaloss.tasks.training_cache import fingerprint

    x = torch.zeros(2, 3)
    assert fingerprint(x) == fingerprint(x.clone()) == fingerprint(x.T.contiguous().T)
    assert fingerprint(x) not in (fingerprint(x.T), fingerprint(x.double()), fingerprint(x + 1))
