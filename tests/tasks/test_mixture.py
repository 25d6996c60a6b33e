"""A mixture's tasks are those of ordinary families, whose settings it draws once and for all."""

import dataclasses
from collections import Counter

import pytest
import torch

from metaloss.core import registry
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.errors import DataNotFound, SettingsError
from metaloss.evaluation.family_evaluation import FamilyEvaluation
from metaloss.evaluation.references import tune_references, with_references
from metaloss.losses.base import CrossEntropies
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.tasks import episodic, episodic_family, mixture_family, opening
from metaloss.tasks.mixture import FACTORS, References
from metaloss.tasks.mixture_kinds import cost, draw_kinds, order_of_kinds

KEY = Stream(3).at("tasks", 1)
RANGES = {
    "steps": [2, 6],
    "shots": [1, 3],
    "ways": [2, 4],
    "width": 16,
    "depth": [1, 2],
    "noisy": 0.5,
    "augment": [{"kind": "shift", "copies": 2, "pad": 1}],
}
TABLE = {
    "kind": "mixture",
    "datasets": ["fashionmnist", "mnist"],
    "kinds": 12,
    "val": 3,
    "reference_tasks": 3,
    "ranges": RANGES,
}
SHIPPED = opening.read("fewshot-mix")
RATES = (0.05, 0.2, 0.5)


def family(**changes):
    return mixture_family.of({**TABLE, **changes}, "mix", "mix.toml")


@pytest.fixture
def mixture(dataset, monkeypatch):
    """Opens a mixture of tiny kinds; two data sets that are here are the same images."""

    def load(name, options):
        if name == "kmnist":
            raise DataNotFound("kmnist: not found")
        return dataset

    monkeypatch.setattr(episodic, "load", load)
    return lambda **changes: opening.open_family(family(**changes))


def losses():
    return Formulas.of([Formula.parse(text) for text in ("-y*logp", "square(p - y)", "-y*p")])


# --- the kinds ---


def test_the_kinds_are_those_of_the_mixtures_own_seed():
    sets = {"fashionmnist": 10, "mnist": 10}
    one, same = (draw_kinds(SHIPPED, sets) for _ in range(2))
    other = draw_kinds(dataclasses.replace(SHIPPED, kinds_seed=1), sets)
    assert one == same
    assert one != other
    assert len({kind.family.describe() for kind in one}) > 60


def test_every_setting_lies_in_its_range_and_is_spread_over_it():
    kinds = [kind.family for kind in draw_kinds(SHIPPED, {"fashionmnist": 10, "mnist": 10})]
    steps = sorted(kind.inner.steps for kind in kinds)
    # Even on a logarithmic scale: half of the kinds lie below the geometric mean.
    assert steps[0] >= 10
    assert steps[-1] <= 400
    assert steps[31] < 64 < steps[32]
    assert {kind.ways for kind in kinds} == set(range(2, 11))
    assert {min(kind.shots, 4) for kind in kinds} == {1, 2, 3, 4}
    assert max(kind.shots for kind in kinds) <= 50
    assert {len(kind.classifier["hidden"]) for kind in kinds} == {1, 2, 3}
    assert all(width % 16 == 0 for kind in kinds for width in kind.classifier["hidden"])
    assert all(0.5 <= kind.classifier["init_scale"] <= 2 for kind in kinds)
    assert Counter(kind.dataset for kind in kinds) == {"fashionmnist": 32, "mnist": 32}
    permuted = [k.view.permutation for k in kinds if k.view and k.view.permutation is not None]
    assert len(permuted) == len(set(permuted)) == 16
    assert sum(kind.view is not None and kind.view.inverted for kind in kinds) == 16
    noisy = [kind.noise.share for kind in kinds if kind.noise]
    assert 10 < len(noisy) <= 26
    assert all(0.05 <= share <= 0.4 for share in noisy)
    assert {kind.augment.kind for kind in kinds if kind.augment} == {"shift", "cutout", "mixup"}


def test_no_kind_sees_more_images_than_it_may():
    kinds = draw_kinds(SHIPPED, {"fashionmnist": 10})
    assert all(
        x.family.inner.steps * x.family.ways * x.family.shots <= SHIPPED.ranges.images_seen
        for x in kinds
        if x.family.shots > 1
    )


def convolutional(**ranges):
    return family(kinds=40, ranges={**RANGES, "convolutional": 0.25, "noisy": 0, **ranges})


def test_some_kinds_are_convolutional_and_the_others_stay_as_they_are():
    sets = {"fashionmnist": 4}
    plain = draw_kinds(convolutional(convolutional=0), sets)
    mixed = draw_kinds(convolutional(permuted=1), sets)
    networks = [x.family for x in mixed if x.family.classifier["kind"] == "cnn"]
    assert len(networks) == 10
    assert all(x.classifier["filters"][1] == 2 * x.classifier["filters"][0] for x in networks)
    assert all(8 <= x.classifier["filters"][0] <= 16 for x in networks)
    assert len({x.classifier["filters"][0] for x in networks}) > 3
    assert all(x.view is None or x.view.permutation is None for x in networks)
    same = draw_kinds(convolutional(), sets)
    others = [
        (a, b) for a, b in zip(plain, same, strict=True) if b.family.classifier["kind"] != "cnn"
    ]
    assert len(others) == 30
    assert all(a == b for a, b in others)


def test_convolutional_kinds_see_few_images_by_fewer_shots_and_then_fewer_steps():
    cap = 60
    kinds = draw_kinds(
        convolutional(convolutional=1, convolutional_images_seen=cap, steps=[5, 100], shots=[2, 9]),
        {"fashionmnist": 4},
    )
    settings = [x.family for x in kinds]
    assert all(x.inner.steps * x.ways * x.shots <= cap for x in settings)
    assert {x.shots for x in settings} > {2, 3}
    assert min(x.inner.steps for x in settings) == 5
    assert max(x.inner.steps for x in settings) == 60 // (2 * 2)
    assert convolutional(convolutional=1).parts[2:] == [("classifiers", "cnn")]
    assert convolutional(depth=[0, 1]).parts[2:] == [
        ("classifiers", x) for x in ("linear", "mlp", "cnn")
    ]


def test_a_convolutional_kind_costs_what_its_maps_hold():
    def of(classifier, steps=20, shots=5):
        inner = {"steps": steps}
        table = {"dataset": "fashionmnist", "ways": 5, "shots": shots, "val": 100}
        return episodic_family.of({**table, "classifier": classifier, "inner": inner}, "a", "a")

    small, usual, large = (
        cost(of({"kind": "cnn", "filters": [n, 2 * n]}), (1, 28, 28)) for n in (4, 8, 16)
    )
    assert (usual, large) == (2 * small, 4 * small)
    perceptron = {"kind": "mlp", "hidden": [64, 32]}
    # Milliseconds of a core, as measured: 0.5, 1.5, 3.7, 17.8, 26.9.
    measured = [
        cost(of(perceptron), (1, 28, 28)),
        cost(of(perceptron, 100), (1, 28, 28)),
        cost(of(perceptron, 100, 20), (1, 28, 28)),
        small,
        usual,
    ]
    assert measured == sorted(measured)


def test_convolutional_kinds_train_beside_the_others(mixture):
    opened = mixture(kinds=4, ranges={**RANGES, "convolutional": 0.5, "filters": 1})
    kinds = {kind.family.classifier["kind"] for kind in opened.kinds}
    assert kinds == {"cnn", "mlp"}
    with Local() as engine:
        (scores,) = opened.evaluate(engine, [losses()], "train", KEY, range(8))
    assert scores.shape == (1, 3, 8)
    assert scores.isfinite().all()


def test_one_number_is_a_setting_that_all_kinds_share():
    settings = family(ranges={**RANGES, "steps": 7, "lr_factor": 2, "noisy": 0, "augmented": 0})
    kinds = draw_kinds(settings, {"fashionmnist": 4})
    assert {kind.family.inner.steps for kind in kinds} == {7}
    assert [kind.factor for kind in kinds] == pytest.approx([2] * 12)
    assert {(kind.family.noise, kind.family.augment) for kind in kinds} == {(None, None)}


def test_digits_are_in_no_mixture_that_ships():
    assert not any("digits" in dataset for dataset in SHIPPED.datasets)


def test_data_sets_that_are_not_here_are_left_out_and_one_must_be(mixture):
    opened = mixture(datasets=["kmnist", "mnist"])
    assert opened.absent == ("kmnist",)
    assert {kind.family.dataset for kind in opened.kinds} == {"mnist"}
    assert "not here: kmnist" in opened.data_origin
    assert list(opened.fingerprints()) == ["data mix mnist"]
    with pytest.raises(DataNotFound, match="kmnist"):
        mixture(datasets=["kmnist"])


# --- which tasks are of which kind ---


def test_kinds_of_all_costs_come_before_wherever_their_order_is_cut():
    costs = [round(1.2**i) for i in range(64)]
    for number in range(5):
        order = order_of_kinds(costs, KEY.at(number))
        assert sorted(order.tolist()) == list(range(64))
        for count in (2, 4, 8):
            counts = Counter((order[:count] // (64 // count)).tolist())
            assert max(counts.values()) <= 2
    orders = {tuple(order_of_kinds(costs, KEY.at(g))[:8].tolist()) for g in range(20)}
    assert len(orders) == 20


def test_any_number_of_kinds_has_an_order():
    for count in (1, 2, 3, 7, 13):
        assert sorted(order_of_kinds([1] * count, KEY).tolist()) == list(range(count))


def test_a_tasks_kind_depends_on_key_and_number_alone(mixture):
    opened = mixture()
    kinds = opened.kinds_of(KEY, range(40)).tolist()
    assert opened.kinds_of(KEY, range(3, 9)).tolist() == kinds[3:9]
    assert kinds[::2] == kinds[1::2], "two tasks of a kind follow one another"
    assert sorted(kinds[:24:2]) == list(range(12)), "all kinds before one comes again"
    assert kinds[24:] == kinds[:16]


# --- trainings ---


def test_a_kinds_scores_are_those_of_the_ordinary_family_with_its_settings(mixture):
    opened = mixture(metric="worst_recall")
    opened = opened.with_references(References((0.3,) * 12, (1.0,) * 12))
    kinds = opened.kinds_of(KEY, range(10))
    with Local(workers=1, memory=1 << 26) as engine:
        (scores,) = opened.evaluate(engine, [losses()], "validation", KEY, range(10), val=2)
        assert scores.shape == (1, 3, 10)
        for number in kinds.unique().tolist():
            kind = opened.kinds[number].family
            table = {k: v for k, v in registry.table(kind).items() if k not in ("name", "origin")}
            ordinary = opening.open_family(opening.of(table, "kind", "kind.toml"))
            assert ordinary.family.inner.lr == pytest.approx(0.3 * opened.factors[number])
            (alone,) = ordinary.evaluate(engine, [losses()], "validation", KEY, range(10), val=2)
            assert torch.equal(scores[:, :, kinds == number], alone[:, :, kinds == number])


def test_rates_are_multiples_of_cross_entropys_best_one_at_each_kind(mixture):
    opened = mixture()
    references = References(tuple(0.1 + 0.02 * i for i in range(12)), (1.0,) * 12)
    at_own = opened.with_references(references)
    ones = CrossEntropies.of(2)
    with Local(workers=1, memory=1 << 26) as engine:
        (scores,) = at_own.evaluate(
            engine, [ones], "train", KEY, range(6), rates=[torch.tensor([1.0, 2.0])]
        )
        for column, number in enumerate(at_own.kinds_of(KEY, range(6)).tolist()):
            rate = references.rates[number]
            (alone,) = at_own.kinds[number].evaluate(
                engine,
                [ones],
                "train",
                KEY,
                range(6),
                rates=[torch.tensor([rate, 2 * rate])],
            )
            assert torch.equal(scores[:, :, column], alone[:, :, column])
        with pytest.raises(ValueError, match="not known yet"):
            opened.evaluate(engine, [ones], "train", KEY, range(2), rates=[1.0])


def test_metrics_beside_the_score_follow_in_columns(mixture):
    opened = mixture()
    with Local(workers=1, memory=1 << 26) as engine:
        (scores,) = opened.evaluate(
            engine, [losses()], "train", KEY, range(5), beside=("worst_recall",)
        )
    assert scores.shape == (1, 3, 5, 2)


# --- references ---


def test_references_are_the_best_rates_of_the_kinds_whatever_the_run(mixture, tmp_path):
    opened = mixture()
    with Local(workers=1, memory=1 << 26) as engine:
        (tuned,) = with_references(engine, [opened], RATES, tmp_path)
        references = tuned.references
        assert set(references.rates) <= set(RATES)
        assert len(set(references.rates)) > 1
        assert min(references.spreads) >= 0.005
        assert [x.family.inner.lr for x in tuned.kinds] == pytest.approx(
            [f * rate for f, rate in zip(opened.factors, references.rates, strict=True)]
        )
        key = Stream(opened.family.kinds_seed).at("references", 5)
        (scores,) = opened.kinds[5].evaluate(
            engine,
            [CrossEntropies.of(3)],
            "train",
            key,
            range(3),
            rates=[torch.tensor(RATES)],
        )
        assert references.rates[5] == RATES[int(scores[0].double().mean(1).argmax())]

    class Unused(Local):
        def observe_each(self, trainings):
            raise AssertionError("read from the folder")

    with Unused() as engine:
        (again,) = with_references(engine, [opened], RATES, tmp_path)
    assert again.references == references


def test_cross_entropy_at_its_best_rates_has_nothing_to_regret(mixture):
    opened = mixture(ranges={**RANGES, "lr_factor": 1})
    with Local(workers=1, memory=1 << 26) as engine:
        tuned = opened.with_references(tune_references(engine, opened, RATES, Reporter()))
        evaluation = FamilyEvaluation(engine, tuned, Stream(0))
        baseline = evaluation.tune_baseline(RATES, 6)
        assert (baseline.lr, baseline.steps, baseline.relative) == (1.0, 1, True)
        own = evaluation.scores(CrossEntropies.of(1), "train", KEY, 8)
        reference = evaluation.scores(CrossEntropies.of(1), "train", KEY, 8, lr=1.0)
        assert torch.equal(own, reference)
        assert evaluation.tune([CrossEntropies.of(1)], RATES, 6)[0].lr in FACTORS


def test_kinds_may_train_with_rates_of_their_own(mixture):
    opened = mixture(ranges={**RANGES, "lr": [0.05, 0.2]})
    rates = [kind.family.inner.lr for kind in opened.kinds]
    assert min(rates) < 0.08
    assert max(rates) > 0.12
    assert all(0.05 <= rate <= 0.2 for rate in rates)
    at_own = opened.with_references(References((0.3,) * 12, (1.0,) * 12))
    assert [kind.family.inner.lr for kind in at_own.kinds] == rates
    # A rate that is given is still a multiple of cross-entropy's best one.
    with Local(workers=1, memory=1 << 26) as engine:
        twice = [CrossEntropies.of(1)] * 2
        own, given = at_own.evaluate(engine, twice, "train", KEY, range(6), rates=[None, 0.5])
        numbers = at_own.kinds_of(KEY, range(6)).tolist()
        for column, number in enumerate(numbers):
            for found, rate in ((own, rates[number]), (given, 0.15)):
                (alone,) = at_own.kinds[number].evaluate(
                    engine, twice[:1], "train", KEY, range(6), rates=[rate]
                )
                assert torch.equal(found[:, :, column], alone[:, :, column])


# --- what cannot be ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"datasets": []}, "datasets"),
        ({"datasets": ["mnist", "mnist"]}, "named twice"),
        ({"datasets": ["mnst"]}, "Did you mean 'mnist'"),
        ({"datasets": ["file:table.npz"]}, "needs images"),
        ({"kinds": 1}, "kinds"),
        ({"ranges": {"steps": [20, 10]}}, "two ascending whole numbers"),
        ({"ranges": {"lr_factor": [0, 1]}}, "at least 0.001"),
        ({"ranges": {"lr": 0.1, "lr_factor": 1}}, "give one of them"),
        ({"ranges": {"augment": []}}, "needs augmentations"),
        ({"ranges": {"stepps": 3}}, "steps"),
        ({"shots": 5}, "shots"),
    ],
    ids=str,
)
def test_a_mixture_that_cannot_be_is_refused_in_words(changes, words):
    with pytest.raises(SettingsError, match=words):
        family(**changes)


def test_what_kinds_have_of_their_own_cannot_be_asked_of_a_mixture(mixture):
    opened = mixture()
    with Local(workers=1) as engine, pytest.raises(SettingsError, match="of their own"):
        opened.evaluate(engine, [losses()], "train", KEY, range(2), steps=(5,))
    with pytest.raises(SettingsError, match="stages of an elimination need ordinary families"):
        opened.enlarged(2, 1)
    with pytest.raises(SettingsError, match="tasks of one kind are needed here"):
        episodic_family.read("fewshot-mix")
