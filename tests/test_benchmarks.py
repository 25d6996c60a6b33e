"""The benchmarks' rivals do the same trainings as the engine, and every script prints its rows."""

import importlib
import json
import sys
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import metaloss
from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.genomes._filters import examine
from metaloss.genomes.mln import MetaLossNetwork
from metaloss.losses.base import CrossEntropies, TrainingTargets, one_hot
from metaloss.losses.language.formula import Formula
from metaloss.search.novelty import NoveltyFilter, SeenLosses

FOLDER = Path(metaloss.__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="benchmarks live in the checkout")
needs_jax = pytest.mark.skipif(find_spec("jax") is None, reason="needs jax (the extra bench)")
SMALL = {"candidates": 3, "tasks": 2, "shots": 2, "val": 20, "steps": 6}
TINY = {"ways": 4, "shots": 1, "val": 4, "steps": 2}
IMAGES = 3  # validation images whose answers rounding may turn
cases_of = pytest.mark.parametrize(
    ("classifier", "loss"), [(c, x) for c in ("mlp", "cnn", "linear") for x in ("mln", "ce")]
)


@pytest.fixture
def load(monkeypatch):
    """Imports a module of benchmarks/, which is a folder of scripts and no package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    # A plain name such as "search" must not stay behind for others.
    for name in [
        k for k, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(str(FOLDER))
    ]:
        del sys.modules[name]


def ours(load, case):
    x = load("cases").problem(case)
    with Local() as engine:
        return x, engine.score(x.losses, x.episodes, x.tasks, x.keys)


def assert_same(score, reference, case):
    assert score.shape == reference.shape
    assert float((score - reference).abs().max()) * case.ways * case.val < IMAGES + 0.5


# --- losses ---


def situation(C=4, B=5):
    logits = 2 * Stream(2).normal(B, C).double()
    label = Stream(4).integers(C, B)
    return logits.requires_grad_(), label, one_hot(label, C).double()


def value_and_gradient(value, logits):
    return value.detach(), torch.autograd.grad(value, logits)[0]


def test_the_rivals_network_gives_the_numbers_of_ours(load):
    genome = MetaLossNetwork(start="random", home_classes=4)
    population = genome.sample(1, Stream(0))
    logits, label, y = situation()
    (weights,) = load("cases").matrices(genome, population)
    double = {k: w.double() for k, w in weights.items()}
    plain = value_and_gradient(load("rivals").mln(double, logits, label, y), logits)
    bound = genome.losses(population).bind(TrainingTargets(y[None]))
    torch.testing.assert_close(value_and_gradient(bound(logits[None, None])[0, 0], logits), plain)


def test_the_rivals_cross_entropy_gives_the_numbers_of_ours(load):
    logits, label, y = situation()
    plain = load("rivals").ce({}, logits, label, y)
    torch.testing.assert_close(
        CrossEntropies.of(1).bind(TrainingTargets(y[None]))(logits[None, None])[0, 0], plain
    )


# --- trainings ---


@cases_of
@pytest.mark.parametrize(
    ("rival", "chunk"), [("sequential", 1), ("vmap", 1), ("vmap", 2), ("vmap", 16)]
)
def test_a_rival_trains_as_our_engine_does(load, classifier, loss, rival, chunk):
    lr = 0.01 if classifier == "linear" else 0.1
    case = load("cases").Case(classifier, loss, lr=lr, **SMALL)
    x, score = ours(load, case)
    assert_same(load("rivals").RIVALS[rival](x, chunk), score, case)
    assert score.std() > 0


def test_the_plain_loop_takes_the_optimisers_that_ours_takes(load):
    for optimiser in ({"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1}):
        case = load("cases").Case("mlp", "ce", optimiser=optimiser, **SMALL)
        x, score = ours(load, case)
        assert_same(load("rivals").sequential(x), score, case)


@pytest.mark.parametrize(
    "optimiser", [{"optimiser": "adam"}, {"optimiser": "adamw", "weight_decay": 0.1}]
)
def test_the_plain_loop_knows_adam(load, optimiser):
    cases = load("cases")
    rivals = load("rivals")
    case = cases.Case(optimiser=optimiser, lr=1e-3)
    model = torch.nn.Linear(2, 2)
    assert type(rivals.optimiser(case, model)).__name__.lower() == optimiser["optimiser"]


def test_minibatches_of_the_plain_loop_visit_every_image_once_an_epoch(load):
    case = load("cases").Case(ways=2, shots=3, steps=6, optimiser={"batch": 2})
    rows = torch.stack(list(load("rivals").minibatches(case)))
    assert rows.shape == (6, 2)
    assert all(sorted(epoch.flatten().tolist()) == list(range(6)) for epoch in rows.split(3))


@needs_jax
@pytest.mark.parametrize("loss", ["mln", "ce"])
def test_jax_trains_as_our_engine_does(load, loss):
    # In a process of its own: JAX's threads would make every later fork of this one warn.
    case = load("cases").Case("mlp", loss, **SMALL)
    _, score = ours(load, case)
    with load("worker").Worker() as worker:
        for chunk in (1, 2, 16):
            worker.ask("jax", case, chunk)
            assert_same(torch.tensor(worker.answer()["score"]), score, case)


def test_a_worker_gives_the_rivals_own_scores(load):
    case = load("cases").Case("mlp", "ce", **TINY)
    with load("worker").Worker() as worker:
        worker.ask("sequential", case)
        answer = worker.answer()
    expected = load("rivals").sequential(load("cases").problem(case))
    torch.testing.assert_close(torch.tensor(answer["score"]), expected)
    assert answer["rate"] > 0


# --- numbers ---


def test_the_operations_of_one_training_are_those_of_the_issue(load):
    assert round(load("cases").Case().operations() / 1e6) == 127


def test_the_operations_are_those_of_the_cheaper_form(load):
    case = load("cases").Case(ways=10, shots=20, steps=200)
    later = 128 * 64 + 64 * 10
    span = 200 * (2 * 128 * 200**2 + 6 * 200 * later) + 2 * 2000 * (200 * 128 + later)
    assert case.operations() == span
    # From 1,568 = 2 · 784 images on, a step with the features is the cheaper one.
    assert replace(case, shots=160).operations() == (
        200 * (4 * 128 * 1600 * 784 + 6 * 1600 * later) + 2 * 2000 * (784 * 128 + later)
    )


@pytest.mark.parametrize(("most", "kept"), [(1, (1, 1)), (8, (4, 2)), (3, (3, 1)), (100, (4, 6))])
def test_a_share_of_a_case_keeps_candidates_first(load, most, kept):
    share = load("cases").Case(candidates=4, tasks=6).share(most)
    assert (share.candidates, share.tasks) == kept


def test_an_exponent_is_found_again(load):
    assert load("timing").slope((1, 2, 4), (3, 12, 48)) == pytest.approx(2)


def test_quartiles_of_one_number_are_that_number(load):
    timing = load("timing")
    assert timing.quartiles([3.0]) == [3.0, 3.0]
    assert timing.quartiles([1.0, 2.0, 3.0]) == [1.5, 2.5]


def test_a_table_shows_what_was_not_measured_as_a_dash(load):
    assert (
        load("timing").table(("a", "b"), [[1234.0, None]], markdown=True).splitlines()[-1]
        == "| 1,234 | – |"
    )


def test_the_memory_that_a_function_holds_is_seen_while_it_runs(load):
    timing = load("timing")
    before = timing.held()

    kept = []
    assert timing.held_by(lambda: kept.append(torch.ones(32 << 20))) - before > 64 << 20


def test_the_peak_is_a_number_of_operations(load, monkeypatch):
    timing = load("timing")
    monkeypatch.setattr(timing, "SIZES", (32,))
    threads = torch.get_num_threads()
    assert timing.peak(0.0) > 1e6
    assert torch.get_num_threads() == threads


# --- scripts ---


@pytest.fixture
def printed(load, capsys, monkeypatch):
    """Runs a script's `main` with arguments and returns what it prints."""
    monkeypatch.setattr(load("timing"), "SIZES", (32,))

    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
        load(script).main()
        return capsys.readouterr().out

    return run


def test_the_engine_benchmark_prints_both_sides_of_every_row(printed):
    rows = json.loads(printed("engine", "--quick", "--json", "--repeats", "1", "--sizes", "1x2"))
    assert [row["name"] for row in rows] == ["mlp-mln-1x2", "mlp-ce-1x2"]
    for row in rows:
        numbers = (
            "trainings_per_second",
            "ratio_to_sequential",
            "ratio_to_vmap",
            "peak_share",
            "peak_memory",
        )
        assert all(row[key] > 0 for key in numbers)
        assert row["jax"] is None
        assert row["ratio_to_jax"] is None
    assert rows[0]["share_of_ce"] > 0
    assert rows[1]["share_of_ce"] is None


def test_the_engine_benchmark_prints_markdown_without_rivals(printed):
    out = printed("engine", "--quick", "--markdown", "--repeats", "1", "--sizes", "1x1", "--rivals")
    assert [line.count("|") for line in out.splitlines()[-4:]] == [21] * 4


@pytest.mark.parametrize("kind", ["long", "head"])
def test_cases_apart_have_rows_of_their_own(printed, load, monkeypatch, kind):
    cases = load("cases")
    monkeypatch.setitem(cases.APART, kind, {**cases.APART[kind], "shots": 2, "val": 5})
    rows = json.loads(
        printed("engine", "--quick", f"--{kind}", "--json", "--repeats", "1", "--sizes", "1x2")
    )
    classifier = {"long": "mlp", "head": "linear"}[kind]
    assert [row["name"] for row in rows] == [
        f"{classifier}-{loss}-{kind}-1x2" for loss in ("mln", "ce")
    ]
    for row in rows:
        assert row["ratio_to_sequential"] > 0
        assert row["vmap"] is None
        assert (row["peak_share"] is None) == (kind == "head")


def test_populations_of_formulas_stand_beside_the_network(printed, load, monkeypatch):
    engine = load("engine")
    monkeypatch.setattr(
        engine,
        "WITHOUT_RIVALS",
        {"formulas": (), "targets": (), "taylor": (), "tree": ((3, 1),), "graph": ((3, 1),)},
    )
    rows = json.loads(
        printed("engine", "--quick", "--json", "--repeats", "1", "--sizes", "3x1", "--rivals")
    )
    assert [row["loss"] for row in rows] == ["mln", "ce", "tree", "graph"]
    assert [row["share_of_mln"] is None for row in rows] == [True, True, False, False]
    for row in rows[2:]:
        assert row["share_of_mln"] == pytest.approx(
            row["trainings_per_second"] / rows[0]["trainings_per_second"]
        )


@pytest.mark.parametrize("genome", ["tree", "graph"])
def test_a_population_of_formulas_is_what_a_search_would_train_first(load, genome):
    cases = load("cases")
    losses = cases.problem(cases.Case(loss=genome, candidates=6, tasks=1)).losses
    filters = registry.build("genomes", {"kind": genome}).filters
    assert not any(examine(f.expression, filters).reason for f in losses.formulas)
    assert len({f.canonical() for f in losses.formulas}) == 6
    assert (
        losses.formulas
        == cases.problem(cases.Case(loss=genome, candidates=6, tasks=1)).losses.formulas
    )


def test_rows_for_optimisers_are_those_this_version_knows(load):
    engine = load("engine")
    names = {
        engine.optimiser_of(case) for cases in engine.sections(engine.QUICK, True) for case in cases
    }
    assert {"sgd", "momentum", "nesterov", "decay"} <= names


def test_growth_prints_an_exponent_for_every_size(printed, load, monkeypatch):
    growth = load("growth")
    monkeypatch.setattr(growth, "SMALL", load("cases").Case(**TINY))
    monkeypatch.setattr(growth, "DOUBLED", {"candidates": (1, 2), "steps": (1, 2)})
    rows = json.loads(printed("engine", "--growth", "--quick", "--json", "--repeats", "1"))
    assert len(rows) == 8
    assert {row["grows"] for row in rows} == {"candidates", "steps"}
    assert "to the power" in printed("engine", "--growth", "--quick", "--repeats", "1")


def test_one_training_at_a_time_gives_the_scores_of_the_population(load):
    search = load("search")
    case = load("cases").Case(**SMALL)
    x, score = ours(load, case)
    rates = torch.tensor([0.1, 0.1, 0.1])
    with search.OneByOne() as engine:
        assert_same(engine.score(x.losses, x.episodes, x.tasks, x.keys), score, case)
        assert_same(engine.score(x.losses, x.episodes, x.tasks, x.keys, None, rates), score, case)


def settings_of_a_search(**changes):
    small = {
        "generations": 3,
        "tasks_per_generation": 1,
        "baseline_tasks": 2,
        "report_every": 1,
        "rates": (0.1,),
        "validation": 4,
        "val": 4,
        "seed": 0,
        "inner": {"steps": 1},
        "strategy": {"mu": 2, "lambda_": 2},
        "genome": {"start": "random", "features": 2, "hidden": 2},
    }
    return {**small, **changes}


def test_both_searches_are_timed_to_the_same_goal(load):
    metaloss_row, alone, loop = load("search").rows(-1.0, 30, 30, settings_of_a_search())
    assert metaloss_row["reached"]
    assert metaloss_row["generations"] == 1
    assert not metaloss_row["extrapolated"]
    assert not alone["extrapolated"]
    assert loop["extrapolated"]
    assert alone["largest_difference"] < 0.1
    # One rate and one look at two tasks each, and four candidates on one task.
    assert metaloss_row["trainings"] == 2 + 2 + 4


def test_a_goal_out_of_reach_compares_all_generations(load, monkeypatch):
    search = load("search")
    monkeypatch.setattr(search, "loop_speed", lambda seconds: 50.0)
    rows = search.rows(2.0, 30, 30, settings_of_a_search())
    assert [row["generations"] for row in rows] == [3, 3, 3]
    assert not rows[0]["reached"]
    assert "did not get there" in search.caption(rows)
    assert len(search.table(search.HEAD, [search.cells(row) for row in rows]).splitlines()) == 4


def test_what_was_not_run_is_extrapolated_from_its_own_generations(load):
    watch = load("search").Watch(goal=1.0, limit=1.0, generations=20)
    watch.ready = 2.0
    watch.times = [3.0, 4.0]
    assert watch.seconds(2) == 4.0
    assert watch.seconds(10) == 12.0
    watch.times = []
    with pytest.raises(SystemExit, match="higher --limit"):
        watch.seconds(1)


# --- filters ---

TAUGHT = """
dataset = "fashionmnist"
ways = 3
shots = 1
val = 3
classifier = { kind = "mlp", hidden = [4] }
inner = { steps = 2 }
"""


@pytest.fixture
def tiny(tmp_path):
    """The path of a tiny task family."""
    (tmp_path / "tiny.toml").write_text(TAUGHT)
    return str(tmp_path / "tiny.toml")


@pytest.mark.parametrize("genome", ["tree", "graph"])
def test_the_filters_benchmark_prints_what_filters_cost_and_did(
    printed, load, monkeypatch, tiny, genome
):
    small = {"tasks_per_generation": 1, "baseline_tasks": 2, "rates": (0.1,)}
    strategy = {"kind": "gp", "mu": 6, "lambda_": 6}
    monkeypatch.setattr(load("filters"), "SMALL", {**small, "strategy": strategy})
    (row,) = json.loads(
        printed("filters", "--genome", genome, "--generations", "2", "--tasks", tiny, "--json")
    )
    assert (row["genome"], row["generations"]) == (genome, 2)
    assert 0 < row["variation_and_filters"] < row["seconds"]
    assert row["share"] == pytest.approx(row["variation_and_filters"] / row["seconds"])
    assert (
        0 < row["differ"] <= row["differ_with_scale"] <= row["losses"] - row["without_a_phenotype"]
    )
    assert row["refused"]["integrity"] > 0
    assert row["trainings"] >= row["losses"]


def test_the_filters_benchmark_prints_reasons_beside_each_other(load):
    filters = load("filters")
    rows = [{"refused": {"range": 2}}, {"refused": {"gain": 3, "range": 1}}]
    assert sorted(filters.refusals(rows)) == [["gain", 0, 3], ["range", 2, 1]]


def test_a_recall_s_interval_covers_where_it_counts_patients_and_not_where_it_counts_images(load):
    patients, correlation, *cells = load("recall_coverage").measure(12, 1.0, 60)
    ours, images, alike, _ = (float(x.partition(" %")[0]) for x in cells)
    assert (patients, correlation) == (12, "1")
    assert min(ours, alike) >= 85 > images


def test_losses_that_are_alike_are_told_from_those_that_differ(load):
    texts = ("-y * logp", "y * (2 - logp)", "-3 * y * logp", "square(p - y)", "1 / (p - p) * y")
    found = load("filters").differing([Formula.parse(text) for text in texts])
    assert found == {"without_a_phenotype": 1, "differ": 1, "differ_with_scale": 2}


def test_the_time_within_the_filters_is_that_of_the_methods_it_is_put_around(load):
    clock = load("filters").Clock()
    genome = registry.build("genomes", {"kind": "tree"})
    novelty_filter = NoveltyFilter(genome, SeenLosses(genome.filters))
    novelty_filter.start_generation()
    assert len(clock.around(NoveltyFilter.sample)(novelty_filter, 4, Stream(0))) == 4
    assert clock.refused == novelty_filter.refused
    assert clock.seconds > 0


# --- recommendations ---


@pytest.fixture
def advisor(load, monkeypatch):
    """The benchmark of recommendations, with fewer fresh images."""
    monkeypatch.setattr(load("simulated_images"), "FRESH", 100)
    return load("recommendation")


@pytest.fixture
def shortest(load, advisor, monkeypatch):
    """Settings of the shortest recommendation, of which nothing is expected."""
    monkeypatch.setattr(load("recommendation_truth"), "STEPS", (8,))
    monkeypatch.setattr(load("recommendation_truth"), "TRUTH", 4)
    less = {"tuning_tasks": 3, "test_tasks": 6, "rates": (0.1, 1.0), "inner": {"steps": 8}}
    return {**advisor.SMALL, **less}


def test_a_recommendation_names_the_loss_that_lets_go_of_outliers(advisor):
    found = advisor.repetition("outliers", 100, 0, advisor.SMALL)
    assert (found.name, found.evidence) == ("mae", True)
    assert found.truth > 0.03
    assert found.gain[1] > 0


@pytest.mark.parametrize("kind", ["alike", "noise", "worse", "uneven_alike"])
def test_a_recommendation_names_none_where_none_is_better(advisor, shortest, kind):
    found = advisor.repetition(kind, 40 if kind == "uneven_alike" else 20, 0, shortest)
    assert (found.name, found.evidence) == ("ce", False)
    assert found.gain[1] <= 0


def test_simulated_images_are_as_uneven_as_asked_for_and_fresh_ones_are_even(load):
    made = load("simulated_images").images("long_tail", 90, Stream(0))
    assert torch.bincount(made.labels[~made.test]).tolist() == [90, 45, 20, 10]
    assert torch.bincount(made.labels[made.test]).tolist() == [2000] * 4


def test_the_share_of_wrong_labels_is_exact_and_fresh_images_have_none(load):
    simulated = load("simulated_images")
    label = torch.arange(4).repeat_interleave(100)
    fresh = torch.arange(400) % 100 >= 50
    given = simulated.with_wrong(label, fresh, 0.4, Stream(0))
    assert int((given != label)[~fresh].sum()) == 80
    assert torch.equal(given[fresh], label[fresh])


def test_the_truth_of_what_is_no_loss_is_its_own(load, shortest):
    of = load("recommendation_truth")
    data = load("simulated_images").images("long_tail", 40, Stream(0))
    case = of.recommend("long_tail", data, 0, {**shortest, "rivals": True})
    name = "ce, prior correction"
    corrected = replace(case.final.rivals[name], value=3.0, score=1.0)
    of_loss, of_rival = (
        replace(
            case,
            final=replace(case.final, settings={"ce": case.final.settings["ce"]}, rivals=rivals),
            verdict=replace(case.verdict, expected=False),
        )
        for rivals in ({}, {name: corrected})
    )
    assert of.truths(of_loss) == {"judged": 0.0, "loss": 0.0}
    gains = of.truths(of_rival)
    assert of_rival.judged == name
    assert gains["judged"] != 0
    assert gains["loss"] == 0


def test_the_truth_of_a_loss_that_was_expected_to_help_is_its_own(load, shortest):
    of = load("recommendation_truth")
    data = load("simulated_images").images("long_tail", 40, Stream(0))
    case = of.recommend("long_tail", data, 0, {**shortest, "rivals": True})
    name = "logit_adjustment_smoothed(tau=1, alpha=0.1)"
    case = replace(case, verdict=replace(case.verdict, loss=name, expected=True))
    only = {"ce": case.final.settings["ce"], name: case.final.settings[name]}
    chosen = replace(case, final=replace(case.final, settings=only, rivals={}))
    gains = of.truths(chosen)
    assert gains["loss"] == 0
    assert gains["judged"] != 0


def test_a_searched_loss_is_measured_on_fresh_images_and_kept(
    advisor, shortest, tmp_path, monkeypatch
):
    monkeypatch.setattr(advisor, "SMALL", shortest)
    plan = advisor.Plan([("wrong_labels", 100)], range(1), 1, store=tmp_path / "kept.jsonl")
    (outcome,) = plan.run()["wrong_labels", 100]
    assert -1 < outcome.searched < 1
    monkeypatch.setattr(advisor, "repetition", None)  # nothing is repeated
    (again,) = plan.run()["wrong_labels", 100]
    assert (again.searched, again.truth) == (outcome.searched, outcome.truth)


def test_the_benchmark_of_recommendations_counts_what_was_named(advisor):
    right, wrong, none = (
        advisor.Outcome(name, name != "ce", (gain, gain - 0.02, gain + 0.02), truth, 1.0)
        for name, gain, truth in (("mae", 0.05, 0.06), ("mse", 0.04, -0.01), ("ce", 0.0, 0.0))
    )
    row = advisor.row("outliers", 40, [right, wrong, none])
    assert (row["recommended"], row["with_evidence"], row["truth_within"]) == (2, 2, 2)
    assert (row["truly_better"], row["worse"]) == (1, 1)
    assert advisor.cells(row)[:7] == ["outliers", 40, 3, "2 (66.7%)", 2, 1, 1]


def test_what_is_said_of_a_search_is_set_beside_what_one_gained(advisor):
    said = {True: (0.02, 0.01, 0.03), False: (0.001, -0.01, 0.012)}
    cases = [(True, 0.03), (True, 0.025), (False, 0.02), (True, 0.0), (False, -0.01), (False, 0.01)]
    found = [
        advisor.Outcome("ce", False, (0, 0, 0), 0, 1, searched=gain, losses=said[worth])
        for worth, gain in [*cases, (True, None)]
    ]
    row = advisor.row("plain", 40, found)
    assert (row["worth"], row["searches"]) == (4, 6)
    assert (row["much"], row["much_said_yes"], row["none"], row["none_said_no"]) == (3, 2, 2, 1)
    assert row["searched"] == pytest.approx(0.075 / 6)
    # Images that tell nothing need no search.
    row = advisor.row("noise", 40, found[-1:] * 3)
    assert (row["searches"], row["none"], row["none_said_no"], row["much"]) == (0, 3, 0, 0)


def test_the_training_benchmark_prints_both_loops(printed):
    (row,) = json.loads(printed("training", "--quick", "--json"))
    assert row["model"] == "convnet"
    assert min(row["ours"], row["bare"], row["ratio"]) > 0
    assert "ratio" in printed("training", "--quick", "--markdown")


# --- uneven tasks ---


def test_the_benchmark_of_uneven_tasks_prints_their_speed_beside_even_ones(
    printed, load, monkeypatch
):
    monkeypatch.setattr(load("uneven"), "SHOTS", (1, 3))
    arguments = ("uneven", "--quick", "--losses", "ce")
    (row,) = json.loads(printed(*arguments, "--json"))
    assert row["loss"] == "ce"
    assert row["sizes"] > 1
    assert row["ratio"] > 0
    assert "even = 1" in printed(*arguments)


def test_the_features_script_compares_losses_on_a_file_of_features(
    load, tmp_path, monkeypatch, capsys
):
    features = load("features")
    tiny = {"tuning_tasks": 2, "curve_tasks": 2, "rates": (0.1, 1.0), "inner": {"steps": 3}}
    monkeypatch.setattr(features, "SMALL", {**tiny, "tune": "rate", "ways": 3})
    monkeypatch.setattr(features, "PUBLISHED", ("mse",))
    monkeypatch.chdir(tmp_path)
    key = Stream(0)
    labels = torch.arange(90) % 3
    values = key.at("x").normal(90, 6) + labels[:, None]
    np.savez("x.npz", features=values.numpy(), labels=labels.numpy())
    features.main(["--file", "x.npz", "--shots", "2", "--val", "3", "--tasks", "3", "--json"])
    rows = json.loads(capsys.readouterr().out)
    names = {row["what"] for row in rows}
    assert {"mse", "ce", "squared error of the logits", "shrinkage LDA"} <= names


def test_corrections_after_training_are_chosen_on_held_out_answers(load, monkeypatch, capsys):
    script = load("after_training")
    monkeypatch.setattr(script, "STEPS", 20)
    script.main(["--draws", "2", "--times", "0.2"])
    _, *rows = capsys.readouterr().out.splitlines()
    assert [row[:12].strip() for row in rows] == [
        *("none", "τ = 1", "τ", "thresholds", "by own", "crosswise")
    ]
    label = torch.tensor([0] * 8 + [1] * 2)
    logits = torch.tensor([[1.0, 0.0]]).repeat(10, 1)
    logits[8:, 1] = 0.8  # a threshold of more than 0.2 tells the second class
    answers = [script.HeldOut(0, 0, logits, label, label.bincount())]
    monkeypatch.setattr(script, "TRAIN", {"a": 8, "b": 2})
    best = logits + script.thresholds(answers)
    assert script.balanced_accuracy(logits, label) == 0.5
    assert script.balanced_accuracy(best, label) == 1


def test_squared_errors_of_logits_have_the_gradient_of_autograd(load):
    losses = load("features").SquaredLogits()
    target = one_hot(torch.tensor([[0, 1, 1], [1, 0, 1]]), 2)
    weight = torch.tensor([[1.0, 1.0, 0.0], [1.0, 2.0, 1.0]])
    logits = Stream(1).normal(1, 2, 3, 2).requires_grad_()
    mean = (losses.bind(TrainingTargets(target)).terms(logits).sum(-1) * weight).sum(-1)
    (mean / weight.sum(-1)).sum().backward()
    bound = losses.bind(TrainingTargets(target, weight))
    torch.testing.assert_close(bound.logit_gradient(logits.detach()), logits.grad)


# --- a user's folder ---


@pytest.mark.parametrize("kind", ["uneven", "easy", "alike"])
def test_a_user_s_folder_has_images_of_its_kind_and_none_twice(kind, load, tmp_path):
    script = load("user_folder")
    script.main([str(tmp_path / "x"), "--kind", kind, "--seed", "3"])
    images = sorted((tmp_path / "x").glob("*/*/*.png"))
    counts = Counter(path.parent.relative_to(tmp_path / "x").as_posix() for path in images)
    for name, (_, n) in script.KINDS[kind].items():
        assert counts[f"train/{name}"] == n
        assert counts[f"test/{name}"] == script.TEST
    assert len({path.name for path in images}) == len(images), "named by their rows"


def test_where_nothing_can_be_learned_nothing_is_recommended(load, tmp_path):
    load("user_folder").cut(tmp_path / "x", 0, "alike")
    budget = {"tuning_tasks": 2, "test_tasks": 4, "rates": (0.1,), "inner": {"steps": 10}}
    advice = metaloss.recommend(
        f"folder:{tmp_path / 'x'}",
        ["mse", "focal"],
        folds=3,
        classifier={"kind": "mlp", "hidden": [8]},
        out=tmp_path / "out",
        **budget,
    )
    assert not advice.evidence
    assert advice.name == "ce"
    parts = {part["label"]: part["text"] for part in advice.answer}
    assert parts["answer"].startswith("Keep the usual loss, cross-entropy")
    assert parts["helps"].startswith("Answers are hardly better than guesses.")
    assert len(advice.summary["recognised"]) == 3


def test_advice_on_features_is_run_as_printed_beside_cross_entropy(
    load, tmp_path, monkeypatch, capsys
):
    script = load("user_features")
    monkeypatch.setattr(script, "pretrained", lambda: lambda x: x[:, 0, 3:9, 3:9].flatten(1))
    monkeypatch.setattr(script, "RATES", (0.03, 0.1))
    monkeypatch.setattr(script, "STEPS", (20, 100))
    printed = {"train": "metaloss train --loss ce", "code": [], "verdict": {"gain": {"mean": 0.01}}}
    printed["answer"] = [{"label": "answer", "text": "Keep it."}]
    asked = []

    def metaloss_command(place, *words):
        asked.append(words)
        if words[0] == "train":
            return json.dumps({"table": [{"balanced_accuracy": 0.5}]})
        folder = place / "recommend" / "advice"
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps(printed))
        return ""

    monkeypatch.setattr(script, "run_metaloss", metaloss_command)
    monkeypatch.setattr(load("advice"), "run_metaloss", metaloss_command)
    arguments = ["--draws", "2", "--quick", "--out", str(tmp_path), "--size", "12", "--markdown"]
    script.main(arguments)
    table = capsys.readouterr().out
    assert "| 50.0 |" in table
    assert [words[0] for words in asked] == ["recommend", "train"] * 2
    assert asked[0][-4:-2] == ("--set", "features=file:../features.npz")
    assert "--test-tasks" in asked[0]
    reached = json.loads((tmp_path / "draw-0" / "reached.json").read_text())
    assert 1 / 3 < reached["ce"] < 1
    script.main(arguments)
    assert len(asked) == 4, "draws that are there are not made again"
    fitted = [
        "from sklearn.neighbors import KNeighborsClassifier",
        "classifier = KNeighborsClassifier(3).fit(x, y)",
    ]
    scans = tmp_path / "draw-0" / "scans"
    train, fresh = (script._arrays(tmp_path, scans / part) for part in ("train", "test"))
    assert train[1].bincount().tolist() == [45, 120, 18]
    assert 1 / 3 < script._fitted(fitted, train, fresh) < 1


def test_a_gradient_is_timed_beside_scoring(printed):
    sizes = ("--candidates", "1", "--tasks-each", "1", "--shots", "1", "--steps", "2")
    out = printed(
        "gradients", *sizes, "--validation", "2", "--repeats", "1", "--genomes", "formula"
    )
    assert out.splitlines()[-1].split()[0] == "formula"
    assert all(float(number) > 0 for number in out.splitlines()[-1].split()[1:])
