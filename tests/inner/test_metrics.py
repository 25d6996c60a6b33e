"""Metrics agree with scikit-learn, with whatever stands beside a classifier, and with every path.

Weights are held to images that are there so many times.
"""

import itertools
import math

import numpy as np
import pytest
import torch

from metaloss import kernels
from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.inner.metrics import CountingMetric, RankingMetric
from metaloss.inner.metrics._counting import confusion
from metaloss.inner.metrics._ranking import rank
from metaloss.inner.metrics.cost import Cost
from metaloss.inner.metrics.kappa import Kappa
from metaloss.inner.metrics.recall_at_precision import RecallAtPrecision

sklearn = pytest.importorskip("sklearn.metrics")

P, T, V, C = 2, 3, 60, 4
ORDER = [2, 0, 3, 1]  # of the data set's classes
MATRIX = ((0.0, 1.0, 2.5, 1.0), (5.0, 0.0, 1.0, 1.0), (1.0, 3.0, -1.0, 1.0), (4.0, 1.0, 1.0, 0.5))
TABLES = {
    **{name: {"kind": name} for name in registry.builtin_names("metrics")},
    "cost of a matrix": {"kind": "cost", "matrix": MATRIX},
    "kappa of an order": {"kind": "kappa", "order": ORDER},
    "recall of a class": {"kind": "recall_at_precision", "at": 0.5, "of": 2},
    "recall at 0.7": {"kind": "recall_at_precision", "at": 0.7},
    "ece of 4 bins": {"kind": "ece", "bins": 4},
}
METRICS = {name: registry.build("metrics", table) for name, table in TABLES.items()}


@pytest.fixture(params=["compiled", "torch"])
def path(request, monkeypatch):
    """Compiled loops, where there are any, and torch without them."""
    if request.param == "torch":
        monkeypatch.setattr(kernels, "compiler", lambda: "none")
    elif not kernels.available():
        pytest.skip("needs numba")


def case(kind):
    """Logits [P T V C], labels [T V] and classes [T C] of one sort."""
    key = Stream(3).at(kind)
    logits = 1.5 * key.at("logits").normal(P, T, V, C)
    label = key.at("label").integers(C, T, V)
    classes = torch.stack([key.at("classes", t).permutation(C) for t in range(T)])
    label[:, :C] = torch.arange(C)  # every class has an image
    if kind == "ties":
        logits = logits.round()
    if kind == "one answer":
        logits = torch.zeros_like(logits)
        logits[..., 1] = 1
    if kind == "good":
        logits += 4 * torch.nn.functional.one_hot(label, C)
    if kind == "unequal":
        label[:, C:] = label[:, C:].where(key.at("rare").uniform(T, V - C) < 0.2, 3)
    return logits, label, classes


KINDS = ("random", "ties", "one answer", "good", "unequal")


def reference(name, logits, label, classes):
    """The metric of one classifier: logits [V C], labels [V], classes [C]."""
    logp = logits.mT.log_softmax(-2).mT.numpy()
    answer = logits.argmax(-1).numpy()
    p = logits.double().softmax(-1).numpy()
    label = label.numpy()
    order = classes.argsort().argsort().numpy()
    turned = np.array([ORDER.index(int(c)) for c in classes]).argsort().argsort()
    rests = [(label == c, logp[:, c]) for c in range(C)]
    hot = np.eye(C)[label]
    return {
        "accuracy": lambda: sklearn.accuracy_score(label, answer),
        "balanced_accuracy": lambda: sklearn.balanced_accuracy_score(label, answer),
        "macro_f1": lambda: sklearn.f1_score(label, answer, average="macro", zero_division=0),
        "worst_recall": lambda: sklearn.recall_score(
            label, answer, labels=np.unique(label), average=None
        ).min(),
        "mcc": lambda: sklearn.matthews_corrcoef(label, answer),
        "kappa": lambda: sklearn.cohen_kappa_score(
            order[label], order[answer], labels=range(C), weights="quadratic"
        ),
        "kappa of an order": lambda: sklearn.cohen_kappa_score(
            turned[label], turned[answer], labels=range(C), weights="quadratic"
        ),
        "auroc": lambda: np.mean([sklearn.roc_auc_score(*rest) for rest in rests]),
        "average_precision": lambda: np.mean(
            [sklearn.average_precision_score(*rest) for rest in rests]
        ),
        "recall_at_precision": lambda: np.mean([recall_at(*rest, 0.9) for rest in rests]),
        "recall at 0.7": lambda: np.mean([recall_at(*rest, 0.7) for rest in rests]),
        "recall of a class": lambda: recall_at(*rests[classes.tolist().index(2)], 0.5),
        "cost": lambda: np.mean(label != answer),
        "cost of a matrix": lambda: np.mean(
            [MATRIX[classes[i]][classes[j]] for i, j in zip(label, answer, strict=True)]
        ),
        "nll": lambda: sklearn.log_loss(label, p, labels=range(C)),
        "brier": lambda: np.mean(((p - hot) ** 2).sum(1)),
        "ece": lambda: calibration(p, label, 15),
        "ece of 4 bins": lambda: calibration(p, label, 4),
    }[name]()


def recall_at(positive, score, at):
    precision, recall, _ = sklearn.precision_recall_curve(positive, score)
    return recall[precision >= at].max()


def calibration(p, label, bins):
    sure = p.max(1)
    right = p.argmax(1) == label
    edges = np.linspace(0, 1, bins + 1)
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (sure > low) & (sure <= high)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    return total


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", METRICS)
def test_values_are_those_of_scikit_learn_or_of_numpy(name, kind, path):
    logits, label, classes = case(kind)
    ours = METRICS[name].measure(logits, label, classes)
    assert ours.shape == (P, T)
    for p in range(P):
        for t in range(T):
            theirs = reference(name, logits[p, t], label[t], classes[t])
            assert float(ours[p, t]) == pytest.approx(theirs, abs=2e-6, rel=1e-5)


def resampled(kind):
    """A case, weights [R T V] of whole numbers, and every resample of every task."""
    logits, label, classes = case(kind)
    weight = Stream(5).at(kind).integers(3, 2, T, V).float()
    weight[1, :, :C] = 0
    return logits, label, classes, weight


@pytest.mark.parametrize("kind", ["ties", "unequal"])
@pytest.mark.parametrize("name", METRICS)
def test_a_weight_is_an_image_that_is_there_so_many_times(name, kind):
    logits, label, classes, weight = resampled(kind)
    metric = METRICS[name]
    ours = metric.measure(logits, label, classes, weight)
    assert ours.shape == (2, P, T)
    for r in range(2):
        for t in range(T):
            rows = torch.arange(V).repeat_interleave(weight[r, t].long())
            task = slice(t, t + 1)
            theirs = metric.measure(logits[:, task, rows], label[task, rows], classes[task])
            torch.testing.assert_close(ours[r, :, task], theirs, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("name", METRICS)
def test_weights_of_one_give_the_numbers_of_none(name):
    logits, label, classes = case("ties")
    ours = METRICS[name].measure(logits, label, classes, torch.ones(2, T, V))
    plain = METRICS[name].measure(logits, label, classes)
    torch.testing.assert_close(ours, plain.expand(2, P, T), atol=0, rtol=0)


@pytest.mark.parametrize("name", METRICS)
def test_no_images_are_no_failure(name):
    logits, label, classes = case("random")
    assert METRICS[name].measure(logits, label, classes, torch.zeros(T, V)).isfinite().all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", METRICS)
def test_nan_is_a_classifier_whose_logits_are_not_finite_and_nothing_else(name, bad, path):
    logits, label, classes = case("random")
    sound = METRICS[name].measure(logits, label, classes)
    assert sound.isfinite().all()
    logits[1, 2, 7, 3] = bad
    ours = METRICS[name].measure(logits, label, classes)
    weighted = METRICS[name].measure(logits, label, classes, torch.ones(T, V))
    for values in (ours, weighted):
        assert values.isnan().nonzero().tolist() == [[1, 2]]
        assert torch.equal(values.where(~values.isnan(), 0), sound.where(~values.isnan(), 0))


@pytest.mark.parametrize("name", METRICS)
def test_a_task_has_equal_bits_whatever_is_beside_it_and_in_whatever_blocks(name, path):
    logits, label, classes = case("random")
    metric = METRICS[name]
    whole = metric.measure(logits, label, classes)
    for p, t in ((0, 0), (1, 2)):
        task = slice(t, t + 1)
        alone = metric.measure(logits[p : p + 1, task], label[task], classes[task])
        assert torch.equal(alone, whole[p : p + 1, task])
    blocks = [(logits[:, :, x], label[:, x]) for x in (slice(0, 17), slice(17, 50), slice(50, V))]
    assert torch.equal(metric.measure_blocks(iter(blocks), classes), whole)
    # As classifiers give their logits: class by class in memory.
    assert torch.equal(metric.measure(logits.mT.contiguous().mT, label, classes), whole)


@pytest.mark.parametrize("name", METRICS)
def test_relabelled_classes_change_no_value(name):
    logits, label, classes = case("random")
    metric = METRICS[name]
    renamed = torch.tensor([2, 0, 3, 1])  # the new label of each old one
    there = renamed.argsort()
    ours = metric.measure(logits[..., there], renamed[label], classes[:, there])
    torch.testing.assert_close(ours, metric.measure(logits, label, classes))


def test_compiled_loops_count_and_rank_as_torch_does(monkeypatch):
    pytest.importorskip("numba")
    logits, label, _ = case("ties")
    score = logits.mT.contiguous()
    compiled = (confusion(logits, label), *rank(score, label))
    monkeypatch.setattr(kernels, "compiler", lambda: "none")
    plain = (confusion(logits, label), *rank(score, label))
    for ours, theirs in zip(compiled, plain, strict=True):
        assert torch.equal(ours.double(), theirs.double())


def test_every_metric_declares_itself():
    titles = [metric.title for metric in METRICS.values()]
    assert all(titles)
    assert {name for name, metric in METRICS.items() if not metric.maximise} >= {"cost", "nll"}
    assert all(isinstance(METRICS[name], RankingMetric) for name in ("auroc", "recall at 0.7"))
    assert all(isinstance(METRICS[name], CountingMetric) for name in ("cost", "mcc", "kappa"))


def test_a_better_answer_is_better_in_the_direction_that_a_metric_declares():
    poor = case("random")
    good = case("good")
    for name, metric in METRICS.items():
        gain = (metric.measure(*good) - metric.measure(*poor)).mean()
        if not name.startswith("ece"):
            assert (gain > 0) == metric.maximise, name


# --- classes by name ---


def test_what_is_negligible_is_in_a_metrics_own_unit():
    for name, metric in METRICS.items():
        assert 0 < metric.negligible(4) < 0.05, name
    assert METRICS["accuracy"].negligible(10) == 0.02
    assert METRICS["nll"].negligible(10) == pytest.approx(math.log(10) / 50)
    assert METRICS["brier"].negligible(2) == pytest.approx(0.5 / 50)
    doubled = tuple(tuple(2 * x for x in row) for row in MATRIX)
    raised = tuple(tuple(x + 7 for x in row) for row in MATRIX)
    of_cost, of_doubled, of_raised = (
        registry.build("metrics", {"kind": "cost", "matrix": x}).negligible(4)
        for x in (MATRIX, doubled, raised)
    )
    # Guesses cost 22 / 16, the cheapest answers -0.5 / 4.
    assert of_cost == pytest.approx((sum(map(sum, MATRIX)) / 16 + 0.5 / 4) / 50)
    assert of_doubled == pytest.approx(2 * of_cost)
    assert of_raised == pytest.approx(of_cost)


def test_a_class_is_named_or_numbered_and_becomes_a_number():
    names = ("cat", "dog", "cow")
    assert RecallAtPrecision(of="cow").for_classes(names, 3).of == 2
    assert RecallAtPrecision(of=1).for_classes(names, 3).of == 1
    assert RecallAtPrecision().for_classes(names, 2).of is None
    assert RecallAtPrecision(of="0").for_classes(("2", "1", "0"), 3).of == 2
    assert Kappa(order=("cow", "cat", "dog")).for_classes(names, 2).order == (2, 0, 1)
    assert Kappa().for_classes(names, 3).order == ()


@pytest.mark.parametrize(
    ("metric", "ways", "line"),
    [
        (RecallAtPrecision(of="cwo"), 3, "metric: of: unknown class 'cwo'. Did you mean 'cow'?"),
        (RecallAtPrecision(of="cow"), 2, "metric: of = 'cow' needs tasks of all 3 classes"),
        (Cost(matrix=((0, 1), (1, 0))), 3, "metric: matrix: expected 3 rows and columns"),
        (
            Cost(matrix=((0.0,) * 3,) * 3, names=("cat", "dog", "hen")),
            3,
            "metric: matrix: the data set has no class 'hen', but cat, dog, cow",
        ),
        (Kappa(order=("cat", "cwo")), 3, "metric: order: unknown class 'cwo'. Did you mean 'cow'?"),
        (
            Kappa(order=("cat", "dog")),
            3,
            "metric: order: expected each of the 3 classes once, got 'cow' 0 times",
        ),
    ],
    ids=["unknown", "ways", "size", "name", "order", "missing"],
)
def test_a_metric_that_does_not_fit_the_classes_is_refused(metric, ways, line):
    with pytest.raises(SettingsError) as caught:
        metric.for_classes(("cat", "dog", "cow"), ways)
    assert str(caught.value).startswith(line)


def test_a_class_that_a_task_lacks_is_an_error_and_no_number():
    logits, label, classes = case("random")
    with pytest.raises(ValueError, match="no class of every task"):
        RecallAtPrecision(of=9).measure(logits, label, classes)
    with pytest.raises(ValueError, match="class 3 has no row in a matrix of 2"):
        Cost(matrix=((0, 1), (1, 0))).measure(logits, label, classes)


# --- a matrix in a file ---


def written(folder, text):
    path = folder / "costs.csv"
    path.write_text(text)
    return {"kind": "cost", "matrix": str(path)}


def test_a_matrix_is_read_from_a_file_and_kept_as_numbers(tmp_path):
    metric = registry.build("metrics", written(tmp_path, "0, 1,2.5\n\n3,0,1\n1,1,0\n"))
    assert metric.matrix == ((0, 1, 2.5), (3, 0, 1), (1, 1, 0))
    table = registry.table(metric)
    (tmp_path / "costs.csv").unlink()
    assert registry.build("metrics", {"kind": "cost", **table}) == metric


def test_names_in_the_file_put_the_matrix_into_the_order_of_the_data(tmp_path):
    metric = registry.build("metrics", written(tmp_path, "true,dog,cat\ndog,0,1\ncat,7,0\n"))
    assert metric.names == ("dog", "cat")
    assert metric.for_classes(("cat", "dog"), 2).matrix == ((0, 7), (1, 0))
    digits = registry.build("metrics", written(tmp_path, ",1,0\n1,0,2\n0,3,0\n"))
    assert digits.for_classes(("0", "1"), 2).matrix == ((0, 3), (2, 0))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "empty; expected a CSV file of numbers"),
        ("0,1\n1,x\n", "expected numbers, got 'x'"),
        ("0,1\n1\n", "expected as many columns as rows, 2, got a row of 1"),
        (",a,b\na,0,1\nc,1,0\n", "expected the classes of the first line, a, b, down the first"),
        (",a,a\na,0,1\na,1,0\n", "names: expected 2 different ones"),
        ("0,inf\n1,0\n", "finite number"),
    ],
    ids=["empty", "text", "ragged", "names", "twice", "infinite"],
)
def test_a_file_that_is_no_matrix_is_refused_in_one_line(tmp_path, text, line):
    with pytest.raises(SettingsError) as caught:
        registry.build("metrics", written(tmp_path, text), "metric")
    assert line in str(caught.value)
    assert str(caught.value).startswith("metric: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named():
    table = {"kind": "cost", "matrix": "nowhere.csv"}
    with pytest.raises(SettingsError, match=r"metric: matrix: nowhere.csv: No such file"):
        registry.build("metrics", table, "metric")
