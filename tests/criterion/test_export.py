"""What is written for others gives the criterion's numbers, and needs what it says it needs."""

import ast
import json
from functools import partial, reduce

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_criterion import network, problem, targets, value_and_gradient
from trees import expressions, small

import metaloss
from metaloss.core.streams import Stream
from metaloss.criterion.export import SUFFIXES, export
from metaloss.criterion.formula import FormulaCriterion
from metaloss.criterion.genome import GenomeCriterion
from metaloss.criterion.standalone import python
from metaloss.errors import SettingsError
from metaloss.genomes.targets import LearnedTargets
from metaloss.losses import zoo
from metaloss.losses.language.expression import LOGP, P, Y, call, constant
from metaloss.losses.language.formula import Formula
from metaloss.losses.language.primitives import PRIMITIVES

NO_LOSS = {
    "an unknown name": ("soft_f2", "no loss 'soft_f2'"),
    "another library's module": (torch.nn.MSELoss(), "MSELoss is not metaloss's"),
}
SPECS = [
    *(name for name in zoo.names() if zoo.entry(name).text),
    "focal(gamma=0.5)",
    "ngl(scaled=True)",
    "mean(p - 0.5*C + 1e-300, temperature=0.25)",
    "sum(p)",
    "sum(-1e-7*logp)",
]
HOME = 4  # of networks
NETWORKS = {
    **{
        f"{context} {act}": {"context": context, "activation": act}
        for context in ("none", "mean", "label")
        for act in ("tanh", "relu", "softplus")
    },
    **{
        " ".join(some): {"channels": some}
        for some in (("p",), ("logp",), ("logit",), ("logit", "p"), ("p", "logp", "logit"))
    },
    "sizes": {"features": 1, "hidden": 3},
}
TARGETS = {
    "targets": {},
    "targets at home": {"home_classes": HOME},
    "two knots": {"knots": (0.1, 0.5)},
}


def loss_of(spec):
    """A network or learned targets by their settings' name, or a loss by its name or formula."""
    if spec in TARGETS:
        return targets(**TARGETS[spec])
    if spec in NETWORKS:
        return network(**{"home_classes": HOME, **NETWORKS[spec]})
    return FormulaCriterion(zoo.read(spec))


def written(loss, path):
    """The stand-alone module's loss."""
    export(loss, path)
    # Not by an import: one that sees equal sizes and times reads what was compiled before.
    space = {}
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), space)
    return space["Loss"]()


def program(loss, path):
    """The program of torch.export, read back."""
    export(loss, path)
    return torch.export.load(path).module()


def check_same(ours, theirs, logits, target, tolerance=1e-6):
    """Equal values, and equal gradients where there are any."""
    expected = theirs(logits, target)
    torch.testing.assert_close(ours(logits, target), expected, rtol=tolerance, atol=tolerance)
    if theirs(logits.clone().requires_grad_(), target).requires_grad:
        found, expected = (value_and_gradient(each, logits, target)[1] for each in (ours, theirs))
        scale = expected.abs().max().clamp(min=1e-30)
        torch.testing.assert_close(found / scale, expected / scale, rtol=tolerance, atol=tolerance)


# --- Python ---


@pytest.mark.parametrize("spec", [*SPECS, *NETWORKS, *TARGETS])
def test_stand_alone_python_gives_the_same_numbers(spec, tmp_path):
    loss = loss_of(spec)
    module = written(loss, tmp_path / "loss.py")
    for shape in ((6, HOME), (5, 2), (3, 11), (2, HOME, 3, 2)):
        for kind in ("hard", "soft"):
            check_same(
                module, loss, *problem(shape, kind), tolerance=1e-9 if spec in SPECS else 1e-6
            )
            # Its own float64 computation tells float32's error from a mistake.
            logits, target = problem(shape, kind, torch.float32)
            torch.testing.assert_close(
                module(logits, target), loss(logits, target), rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize("spec", ["ce", "ngl", "label tanh"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stand_alone_python_computes_in_float32_too(spec, dtype, tmp_path):
    loss = loss_of(spec)
    module = written(loss_of(spec), tmp_path / "loss.py")
    for kind in ("hard", "soft"):
        logits, target = problem((6, 4), kind, torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            value = module(logits.to(dtype), target)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, loss(logits.to(dtype), target), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spec", [*SPECS, *NETWORKS, *TARGETS])
def test_stand_alone_python_imports_math_and_torch_alone(spec):
    tree = ast.parse(python(loss_of(spec)))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert all(isinstance(node, ast.Import) for node in imports)
    assert {name.name for node in imports for name in node.names} <= {"math", "torch"}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"eval", "exec", "open", "compile", "getattr", "metaloss", "__import__"}
    assert "Needs torch alone:" in ast.get_docstring(tree)


def through(name):
    """An expression that gives a primitive arguments for which it is defined.

    All arguments depend on y and p.
    """
    args = [
        call("sub", P, call("mul", constant(0.3), Y)),
        call("add", Y, P),
        call("sub", constant(2), P),
    ]
    if name in ("exact_log", "pow"):
        args[0] = P
    if name in ("asinh", "sinh", "sigmoid", "softplus"):
        args[0] = LOGP
    return call(name, *args[: PRIMITIVES[name].arity])


@pytest.mark.parametrize("name", PRIMITIVES)
def test_every_primitive_is_written_as_python(name, tmp_path):
    loss = FormulaCriterion(Formula(through(name)))
    module = written(loss, tmp_path / "loss.py")
    assert name in str(loss.formula) or PRIMITIVES[name].symbol
    logits, target = problem((6, 4), "hard")
    assert loss(logits, target).isfinite()
    check_same(module, loss, logits, target, 1e-10)
    check_same(module, loss, *problem((6, 4), "soft"), 1e-10)


# Several in one program, because an export takes most of a second.
@pytest.mark.parametrize("first", range(0, len(PRIMITIVES), 8))
def test_every_primitive_is_part_of_a_program(first, tmp_path):
    terms = [
        call("mul", constant(2 + i), through(name))
        for i, name in enumerate([*PRIMITIVES][first : first + 8])
    ]
    loss = FormulaCriterion(Formula(reduce(partial(call, "add"), terms)))
    exported = program(loss, tmp_path / "loss.pt2")
    check_same(exported, loss, *problem((9, 3), "hard", torch.float32))


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(expressions())
def test_any_expression_is_written_as_python(tmp_path, e):
    loss = FormulaCriterion(Formula(e))
    module = written(loss, tmp_path / "loss.py")
    logits, soft = problem((6, 3), "soft")
    found = module.terms(logits, soft)
    expected = loss.terms(logits, soft)
    finite = expected.isfinite() & (expected.abs() < 1e100)
    torch.testing.assert_close(found[finite], expected[finite], rtol=1e-6, atol=1e-6)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    expressions(numbers=st.floats(-1e30, 1e30), leaves=6).filter(
        # A program has no memory for the past.
        lambda e: small(e) and e.varies and not e.reads_past
    )
)
def test_any_expression_is_written_as_a_program_and_as_latex_and_loads_again(tmp_path, e):
    loss = FormulaCriterion(Formula(e))
    exported = program(loss, tmp_path / "loss.pt2")
    logits, target = problem((5, 3), "hard", torch.float32)
    torch.testing.assert_close(
        exported(logits, target), loss(logits, target), rtol=1e-6, atol=1e-6, equal_nan=True
    )
    export(loss, tmp_path / "loss.tex")
    check_latex((tmp_path / "loss.tex").read_text())
    export(loss, tmp_path / "loss" / "loss.json")
    assert metaloss.load(tmp_path / "loss").formula == loss.formula


@pytest.mark.parametrize("form", ["criterion", "python"])
def test_a_constant_beyond_float32_is_infinite_there_and_no_error(form, tmp_path):
    loss = loss_of("p + 1e39*y")
    ours = loss if form == "criterion" else written(loss, tmp_path / "loss.py")
    logits, target = problem((6, 4), "hard", torch.float32)
    assert ours(logits.double(), target).isfinite()
    assert ours(logits, target) == torch.inf or ours(logits, target).isnan()


def test_what_no_one_has_a_python_for_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"'figure3' has no Python; \.pt2 can hold it"):
        export(network(architecture="figure3", fixed_classes=4), tmp_path / "loss.py")
    assert not list(tmp_path.iterdir())


# --- torch.export ---


@pytest.mark.parametrize(
    "spec", ["ce", "mse", "focal(gamma=0.5)", "temperature", "sce", "ngl", "a2", "r2", "b0"]
)
def test_a_program_of_a_formula_takes_any_batch_and_any_number_of_classes(spec, tmp_path):
    loss = loss_of(spec)
    exported = program(loss, tmp_path / "loss.pt2")
    for shape in ((1, 2), (6, 4), (3, 100), (64, 10)):
        check_same(exported, loss, *problem(shape, "hard", torch.float32))


@pytest.mark.parametrize(
    "spec", ["none tanh", "mean relu", "label softplus", "p logp logit", "targets at home"]
)
def test_a_program_of_a_network_takes_any_batch_of_its_home_number_of_classes(spec, tmp_path):
    loss = loss_of(spec)
    exported = program(loss, tmp_path / "loss.pt2")
    for n in (1, 6, 33):
        check_same(exported, loss, *problem((n, HOME), "hard", torch.float32))


def test_a_program_of_a_network_of_fixed_classes_takes_these(tmp_path):
    loss = network(architecture="figure3", fixed_classes=3)
    exported = program(loss, tmp_path / "loss.pt2")
    check_same(exported, loss, *problem((5, 3), "hard", torch.float32))


@pytest.mark.parametrize("spec", ["ce", "mse", "label tanh"])
def test_a_program_keeps_the_options(spec, tmp_path):
    weight = torch.tensor([0.5, 2.0, 0.1, 1.0])
    loss = loss_of(spec).with_options(
        weight=weight, label_smoothing=0.1, reduction="sum", ignore_index=2
    )
    exported = program(loss, tmp_path / "loss.pt2")
    logits, target = problem((7, 4), "hard", torch.float32)
    check_same(exported, loss, logits, target)
    assert (loss(logits, target) - loss_of(spec)(logits, target)).abs() > 0.01


# --- LaTeX, folders, and all forms ---


def check_latex(text):
    assert text.strip()
    assert text.endswith("\n")
    depth = 0
    for mark in text:
        depth += {"{": 1, "}": -1}.get(mark, 0)
        assert depth >= 0
    assert depth == 0
    assert text.count(r"\left") == text.count(r"\right")
    assert "#" not in text


@pytest.mark.parametrize("spec", SPECS)
def test_latex_is_the_formula_with_its_braces_closed(spec, tmp_path):
    loss = loss_of(spec)
    export(loss, tmp_path / "loss.tex")
    text = (tmp_path / "loss.tex").read_text(encoding="utf-8")
    check_latex(text)
    assert f"${text.strip()}$" == loss._repr_latex_()


def test_a_network_has_no_latex(tmp_path):
    with pytest.raises(
        SettingsError, match=r"a network has no formula; \.py, \.pt2 and \.json can hold it"
    ):
        export(network(), tmp_path / "loss.tex")


@pytest.mark.parametrize(
    "spec",
    [
        "ce",
        "temperature",
        "ngl",
        "mean(p - 0.5*C + 1e-300, temperature=0.25)",
        "label tanh",
        "p logp logit",
    ],
)
def test_a_folder_loads_again(spec, tmp_path):
    loss = loss_of(spec)
    loss.about = {"name": "mine ŷ", "run": "x"}
    export(loss, tmp_path / "deep" / "mine" / "loss.json")
    found = metaloss.load(tmp_path / "deep" / "mine")
    logits, target = problem((6, 4), "hard", torch.float32)
    assert torch.equal(found(logits, target), loss(logits, target))
    assert (found.describe(), found.about) == (loss.describe(), loss.about)
    card = (tmp_path / "deep" / "mine" / "card.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {loss.describe()}\n")
    assert "mine ŷ" in card


def test_a_json_that_is_no_loss_json_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"holds loss\.json; try .*mine/loss\.json"):
        export(loss_of("ce"), tmp_path / "mine.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["loss", "loss.txt", "loss.onxx", "loss.PY", ".py"])
def test_other_suffixes_are_refused_with_those_there_are(name, tmp_path):
    with pytest.raises(SettingsError) as caught:
        export(loss_of("ce"), tmp_path / name)
    assert all(suffix in str(caught.value) for suffix in SUFFIXES)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_written_over_whole(tmp_path):
    for suffix in SUFFIXES:
        path = tmp_path / f"loss{suffix}"
        path.write_text("x" * 100_000)
        export(loss_of("ce"), path)
        assert path.stat().st_size < 100_000
    assert json.loads((tmp_path / "loss.json").read_text())["formula"] == "sum(-y * logp)"


def test_a_genome_of_a_users_own_says_how_its_losses_are_written_as_python():
    class Exported(LearnedTargets):
        def torch_source(self, population):
            return ["return -y * z.log_softmax(-1)"]

    genome = Exported()
    text = python(GenomeCriterion(genome, genome.sample(1, Stream(0))))
    assert "        return -y * z.log_softmax(-1)\n" in text


def test_a_path_to_export_to_may_be_text(tmp_path):
    export(metaloss.load("ce"), f"{tmp_path}/loss.tex")
    assert (tmp_path / "loss.tex").is_file()


@pytest.mark.parametrize("spec", ["soft_f1", "focal(gamma=1)", "-y*logp", Formula.parse("mean(p)")])
def test_export_takes_a_loss_as_load_does(spec, tmp_path):
    export(spec, tmp_path / "theirs.py")
    export(metaloss.load(spec), tmp_path / "ours.py")
    assert (tmp_path / "theirs.py").read_text() == (tmp_path / "ours.py").read_text()


def test_export_takes_the_folder_of_a_run(tmp_path):
    export("ce", tmp_path / "runs" / "mine" / "loss" / "loss.json")
    export("mine", tmp_path / "loss.tex", tmp_path / "runs")
    export("ce", tmp_path / "same.tex")
    assert (tmp_path / "loss.tex").read_text() == (tmp_path / "same.tex").read_text()


@pytest.mark.parametrize("what", NO_LOSS)
def test_export_refuses_what_is_no_loss(what, tmp_path):
    spec, line = NO_LOSS[what]
    with pytest.raises(SettingsError) as caught:
        export(spec, tmp_path / "loss.py")
    assert str(caught.value).startswith(line)
    assert not (tmp_path / "loss.py").exists()
