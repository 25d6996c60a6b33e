import contextlib
import copy
import itertools
import json
import pickle
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as save_tensors
from torch import nn

import metaloss
from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.criterion import loss_io
from metaloss.criterion.base import Criterion
from metaloss.criterion.genome import GenomeCriterion
from metaloss.errors import DamagedFile, SettingsError
from metaloss.genomes.mln import MetaLossNetwork
from metaloss.genomes.targets import LearnedTargets
from metaloss.losses.base import CrossEntropies


class Stub(MetaLossNetwork):
    """A genome whose only loss is cross-entropy.

    A Criterion of it must be `torch.nn.CrossEntropyLoss`.
    """

    def losses(self, population):
        return CrossEntropies.of(len(population))


class OneTerm(Stub):
    """The same as one term per image, as a loss has it that mixes the classes."""

    def losses(self, population):
        return Summed(torch.zeros(len(population)))


@dataclass(frozen=True)
class Summed(CrossEntropies):
    """Cross-entropy, its terms summed."""

    def terms(self, logits):
        return super().terms(logits).sum(-1, keepdim=True)


def cross_entropy(genome=None, **options):
    return GenomeCriterion(genome or Stub(), Vectors(torch.zeros(1, 1)), **options)


SIZES = {"[N C]": (6, 4), "[N C d]": (3, 4, 2), "[N C d1 d2]": (2, 4, 3, 2), "[C]": (4,)}
KINDS = ("hard", "ignored", "soft")


def problem(shape, kind, dtype=torch.float64):
    """Logits and a target of one kind."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=draw, dtype=dtype) * 3
    axis = min(1, len(shape) - 1)
    if kind == "soft":
        return logits, torch.randn(shape, generator=draw, dtype=dtype).softmax(axis)
    target = torch.randint(shape[axis], (*shape[:axis], *shape[axis + 1 :]), generator=draw)
    if kind == "ignored" and target.ndim:
        target.view(-1)[::2] = -100
    return logits, target


def value_and_gradient(loss, logits, target):
    x = logits.clone().requires_grad_()
    value = loss(x, target)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def check_like_torch(options, logits, target, genome=None):
    """Value and gradient of a Criterion on the stub are those of torch's own loss."""
    ours = value_and_gradient(cross_entropy(genome, **options), logits, target)
    theirs = value_and_gradient(nn.CrossEntropyLoss(**options), logits, target)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_a_criterion_of_cross_entropy_is_torch_s_own_with_every_option(
    size, kind, reduction, smoothing
):
    logits, target = problem(SIZES[size], kind)
    check_like_torch({"reduction": reduction, "label_smoothing": smoothing}, logits, target)
    # Where a network, which is no y·g(p), weighs as torch does.
    if not smoothing and kind != "soft":
        weight = torch.tensor([0.5, 2.0, 0.0, 1.0], dtype=torch.float64)
        check_like_torch({"reduction": reduction, "weight": weight}, logits, target)


@pytest.mark.parametrize("ignored", [-100, -1, 0, 3, 255])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_any_index_can_be_ignored(ignored, reduction):
    logits, target = problem((8, 4), "hard")
    target[::3] = ignored
    check_like_torch(
        {"ignore_index": ignored, "reduction": reduction, "label_smoothing": 0.1}, logits, target
    )


def test_ignored_places_count_for_nothing_even_where_their_logits_are_not_finite():
    logits, target = problem((4, 3), "hard", torch.float32)
    expected = cross_entropy()(logits[1:], target[1:])
    target[0] = -100
    torch.testing.assert_close(cross_entropy()(logits, target), expected)


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_a_batch_in_which_all_is_ignored_has_the_value_of_torch(reduction):
    logits, target = problem((4, 3), "hard")
    check_like_torch({"reduction": reduction}, logits, torch.full_like(target, -100))


def test_a_loss_of_one_term_per_image_is_weighed_by_its_target_s_weight():
    logits, target = problem((6, 4), "hard")
    weight = torch.tensor([0.5, 2.0, 0.1, 1.0], dtype=torch.float64)
    for reduction in ("none", "mean", "sum"):
        check_like_torch({"reduction": reduction, "weight": weight}, logits, target, OneTerm())


def network(seed=0, **settings):
    """A random network as a loss; no data and no fit."""
    genome = MetaLossNetwork(**{"features": 4, "hidden": 4, "start": "random", **settings})
    return GenomeCriterion(genome, genome.sample(1, Stream(seed)), {"run": "test"})


def targets(seed=0, **settings):
    """Random curves as a loss."""
    genome = LearnedTargets(**settings)
    start = genome.sample(1, Stream(seed))
    return GenomeCriterion(
        genome,
        genome.mutate(start, torch.full((1, genome.size), 0.5), Stream(seed)),
        {"run": "test"},
    )


LOSSES = {
    "equivariant": network(),
    "targets": targets(),
    "relu": network(activation="relu", channels=("p", "logp", "logit")),
    "softplus": network(activation="softplus", context="mean"),
    "figure3": network(architecture="figure3", fixed_classes=4),
}


@pytest.fixture(params=LOSSES)
def loss(request):
    return copy.deepcopy(LOSSES[request.param])


@pytest.mark.parametrize("size", SIZES)
def test_one_hot_soft_targets_are_hard_ones(loss, size):
    logits, target = problem(SIZES[size], "hard", torch.float32)
    axis = min(1, logits.ndim - 1)
    soft = nn.functional.one_hot(target, 4).float().movedim(-1, axis)
    for reduction in ("none", "mean", "sum"):
        each = loss.with_options(reduction=reduction)
        torch.testing.assert_close(each(logits, soft), each(logits, target))


@pytest.mark.parametrize("size", SIZES)
def test_mean_and_sum_are_those_of_the_single_values(loss, size):
    logits, target = problem(SIZES[size], "hard", torch.float32)
    each = loss.with_options(reduction="none")(logits, target)
    assert each.shape == target.shape
    torch.testing.assert_close(loss(logits, target), each.mean())
    torch.testing.assert_close(loss.with_options(reduction="sum")(logits, target), each.sum())


def test_pixels_marked_255_count_for_nothing_and_classes_keep_their_weights(loss):
    logits, target = problem((2, 4, 3, 5), "hard", torch.float32)
    target[0, 1], target[1, :, 2] = 255, 255
    logits = logits.detach().requires_grad_()
    counts = target != 255
    weighted = loss.with_options(weight=torch.tensor([0.5, 2.0, 0.1, 1.0]))
    value = weighted.with_options(ignore_index=255)(logits, target)
    torch.testing.assert_close(
        value, weighted(logits.detach().movedim(1, -1)[counts], target[counts])
    )
    value.backward()
    assert (logits.grad[~counts[:, None].expand_as(logits)] == 0).all()
    assert logits.grad.any()


def test_places_do_not_see_each_other(loss):
    logits, target = problem((2, 4, 3, 2), "hard", torch.float32)
    whole = loss.with_options(reduction="none")
    for i, j, k in itertools.product(range(2), range(3), range(2)):
        torch.testing.assert_close(
            whole(logits, target)[i, j, k], whole(logits[i, :, j, k], target[i, j, k])
        )


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_an_equivariant_loss_takes_any_number_of_classes_in_any_order(classes):
    logits, target = problem((5, classes), "hard", torch.float32)
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(0))
    loss = network()
    torch.testing.assert_close(
        loss(logits[:, order], order.argsort()[target]), loss(logits, target)
    )


def test_a_loss_made_for_a_number_of_classes_says_so():
    loss = LOSSES["figure3"]
    with pytest.raises(ValueError, match="made for 4 classes, got 5"):
        loss(torch.randn(3, 5), torch.arange(3))


WRONG = {
    "too few targets": ((4, 3), torch.zeros(3, dtype=torch.int64)),
    "too many axes": ((4, 3), torch.zeros(4, 1, dtype=torch.int64)),
    "shares of other classes": ((4, 3), torch.zeros(4, 2)),
    "classes as floats": ((3, 3), torch.zeros(3)),
    "shares as integers": ((4, 3), torch.zeros(4, 3, dtype=torch.int64)),
    "a scalar for a batch": ((4, 3), torch.tensor(1)),
}


@pytest.mark.parametrize("what", WRONG)
def test_targets_that_do_not_fit_are_refused_with_both_shapes(what):
    shape, target = WRONG[what]
    with pytest.raises(ValueError, match=r"target \(.*\) and logits \(.*\): expected targets"):
        network()(torch.zeros(shape), target)


@pytest.mark.parametrize(
    "options", [{"reduction": "avg"}, {"label_smoothing": -0.1}, {"label_smoothing": 1.5}]
)
def test_options_that_cannot_be_are_refused(options):
    # The type checker may be faster.
    with pytest.raises((ValueError, TypeError), match=next(iter(options))):
        cross_entropy(**options)


def test_a_criterion_has_no_parameters_and_its_weights_are_buffers(loss):
    assert list(loss.parameters()) == []
    assert "values" in dict(loss.named_buffers())
    assert not any(buffer.requires_grad for buffer in loss.buffers())


def test_buffers_follow_the_device_and_the_numbers_stay(loss):
    moved = copy.deepcopy(loss).to("meta")
    assert all(buffer.device.type == "meta" for buffer in moved.buffers())
    logits, target = problem((6, 4), "hard")
    precise = copy.deepcopy(loss).double()
    assert precise(logits, target).dtype == torch.float64
    torch.testing.assert_close(
        precise(logits, target), loss(logits.float(), target).double(), rtol=1e-4, atol=1e-4
    )


def test_a_checkpoint_saved_with_one_loss_loads_with_any_other(loss):
    logits, target = problem((6, 4), "hard", torch.float32)
    others = [*LOSSES.values(), metaloss.load("ce"), metaloss.load("tree-fashionmnist")]
    for other in map(copy.deepcopy, others):
        expected = other(logits, target)
        other.load_state_dict(loss.state_dict())  # strict: no key is missing, none is left over
        assert torch.equal(other(logits, target), expected)
    weighted = loss.with_options(weight=torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert (
        list(weighted.state_dict())
        == list(nn.CrossEntropyLoss(weight=torch.ones(4)).state_dict())
        == ["weight"]
    )
    other = metaloss.load("a2", weight=torch.ones(4))
    other.load_state_dict(weighted.state_dict())
    assert other.weight.tolist() == [1, 2, 3, 4]


def test_a_copy_is_equal_and_independent(loss):
    logits, target = problem((6, 4), "hard", torch.float32)
    before = loss(logits, target)
    other = copy.deepcopy(loss)
    assert torch.equal(other(logits, target), before)
    other.values.zero_()
    assert torch.equal(loss(logits, target), before)


def test_with_options_changes_the_options_named_and_nothing_else():
    loss = network().with_options(weight=torch.ones(4), label_smoothing=0.1)
    other = loss.with_options(reduction="none")
    assert (other.reduction, other.label_smoothing, other.about) == ("none", 0.1, loss.about)
    assert torch.equal(other.weight, loss.weight)
    assert torch.equal(other.values, loss.values)
    assert loss.reduction == "mean"


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_over_a_batch_of_logits_is_a_loop(loss):
    logits, target = problem((3, 5, 4), "soft", torch.float32)
    hard = torch.arange(5) % 4
    torch.testing.assert_close(
        torch.func.vmap(loss, (0, None))(logits, hard), torch.stack([loss(x, hard) for x in logits])
    )
    soft = target.softmax(-1)
    torch.testing.assert_close(
        torch.func.vmap(loss)(logits, soft),
        torch.stack([loss(x, y) for x, y in zip(logits, soft, strict=True)]),
    )
    gradients = torch.func.vmap(torch.func.grad(loss), (0, None))(logits, hard)
    torch.testing.assert_close(
        gradients, torch.stack([value_and_gradient(loss, x, hard)[1] for x in logits])
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_value_is_float32_inside_autocast(loss, dtype):
    logits, target = problem((6, 4), "hard", torch.float32)
    with torch.autocast("cpu", dtype):
        half = nn.Linear(4, 4)(logits)
        value = loss(half, target)
    assert half.dtype == dtype
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(half.float(), target))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("size", [0.0, 1e-8, 1e4])
def test_value_and_gradient_are_finite_for_extreme_logits(loss, dtype, kind, size):
    logits, target = problem((8, 4), kind, torch.float32)
    extreme = (logits.sign() * size).to(dtype)
    value, gradient = value_and_gradient(
        loss, extreme, target if kind == "hard" else target.to(dtype)
    )
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert gradient.dtype == dtype


def test_a_toy_problem_is_learned_with_a_loss_that_was_found():
    genome = MetaLossNetwork(start="ce")
    loss = GenomeCriterion(genome, genome.sample(1, Stream(0)))
    draw = torch.Generator().manual_seed(0)
    target = torch.arange(60) % 3
    x = torch.randn(60, 5, generator=draw) + 3 * nn.functional.one_hot(target, 5)
    model = nn.Linear(5, 3)
    nn.init.zeros_(model.weight)
    step = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.3)
    for _ in range(40):
        step.zero_grad()
        loss(model(x), target).backward()
        step.step()
    assert (model(x).argmax(1) == target).float().mean() > 0.9


def test_repr_says_what_it_is_and_which_options_are_set():
    text = repr(network().with_options(reduction="sum", label_smoothing=0.1))
    assert text.startswith("Criterion(Meta-Loss Network (equivariant, ")
    assert "reduction='sum'" in text
    assert "label_smoothing=0.1" in text
    assert "reduction" not in repr(network())


@pytest.fixture
def saved(tmp_path):
    """The folder of a loss, `runs/mine/loss`."""
    loss = network()
    (tmp_path / "runs" / "mine" / "loss").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.toml").write_text("seed = 0\n")
    loss_io.save(tmp_path / "runs" / "mine" / "loss", loss, "# a loss\n")
    return tmp_path / "runs" / "mine" / "loss"


def test_a_loss_is_loaded_from_a_run_its_name_its_folder_and_its_file(saved, monkeypatch):
    logits, target = problem((6, 4), "hard", torch.float32)
    wanted = network()(logits, target)
    specs = [saved, str(saved), saved.parent, saved / "loss.json", f"{saved.parent}/"]
    for loss in [*map(metaloss.load, specs), metaloss.load("mine", parent=saved.parent.parent)]:
        assert isinstance(loss, metaloss.Criterion)
        assert torch.equal(loss(logits, target), wanted)
        assert loss.about == {"run": "test"}
    monkeypatch.chdir(saved.parent.parent.parent)
    assert torch.equal(metaloss.load("mine")(logits, target), wanted)


def test_a_module_passes_through():
    loss = nn.MSELoss()
    assert metaloss.load(loss) is loss


def test_what_is_no_loss_is_refused(tmp_path, saved):
    with pytest.raises(SettingsError, match="no loss 'nothing'"):
        metaloss.load("nothing", parent=tmp_path)
    (saved / "loss.json").unlink()
    with pytest.raises(SettingsError, match="no winner yet: metaloss evolve --resume"):
        metaloss.load(saved.parent)


def edited(saved, **changes):
    """loss.json with other entries; None takes one out."""
    table = {**json.loads((saved / "loss.json").read_text()), **changes}
    (saved / "loss.json").write_text(json.dumps({k: v for k, v in table.items() if v is not None}))


def weighed(saved, **tensors):
    (saved / "weights.safetensors").write_bytes(save_tensors(tensors))


class Bomb:
    """Unpickling it would show."""

    def __reduce__(self):
        return print, ("unpickled",)


N = MetaLossNetwork(features=4, hidden=4).size
DAMAGE = {
    "no weights": lambda f: (f / "weights.safetensors").unlink(),
    "weights are a folder": lambda f: (
        (f / "weights.safetensors").unlink(),
        (f / "weights.safetensors").mkdir(),
    ),
    "empty weights": lambda f: (f / "weights.safetensors").write_bytes(b""),
    "truncated weights": lambda f: (f / "weights.safetensors").write_bytes(
        (f / "weights.safetensors").read_bytes()[:-4]
    ),
    "another number of weights": lambda f: weighed(f, values=torch.zeros(1, N - 1)),
    "two candidates": lambda f: weighed(f, values=torch.zeros(2, N)),
    "a scalar": lambda f: weighed(f, values=torch.tensor(0.0)),
    "another name": lambda f: weighed(f, weights=torch.zeros(1, N)),
    "one tensor too many": lambda f: weighed(f, values=torch.zeros(1, N), more=torch.zeros(1)),
    "NaN": lambda f: weighed(f, values=torch.full((1, N), torch.nan)),
    "infinity": lambda f: weighed(f, values=torch.full((1, N), torch.inf)),
    "integers": lambda f: weighed(f, values=torch.zeros(1, N, dtype=torch.int64)),
    "pickle": lambda f: torch.save({"values": Bomb()}, f / "weights.safetensors"),
    "another pickle": lambda f: (f / "weights.safetensors").write_bytes(pickle.dumps(Bomb())),
    "a huge header": lambda f: (f / "weights.safetensors").write_bytes(
        (1 << 40).to_bytes(8, "little") + b"{}"
    ),
    "a long header": lambda f: (f / "weights.safetensors").write_bytes(
        (2 << 20).to_bytes(8, "little") + b'{"__metadata__":{}}'.ljust(2 << 20)
    ),
    "unknown kind": lambda f: edited(f, kind="tree_of_life"),
    "a kind that is a path": lambda f: edited(f, kind="../../evil"),
    "a kind that moves the cursor": lambda f: edited(f, kind="\x1b[2J\nerror: all is well"),
    "a setting that moves the cursor": lambda f: edited(f, genome={"\x1b[2J\n": 1}),
    "a value that moves the cursor": lambda f: edited(f, genome={"start": "\x1b[2J\n"}),
    "a tensor that moves the cursor": lambda f: weighed(f, **{"\x1b[2J\n": torch.zeros(1, N)}),
    "a long name": lambda f: edited(f, kind="x" * 10_000),
    "a kind that is no name": lambda f: edited(f, kind=["mln"]),
    "unknown setting": lambda f: edited(f, genome={"features": 4, "hidden": 4, "colour": 1}),
    "impossible setting": lambda f: edited(f, genome={"features": 0}),
    "other settings": lambda f: edited(f, genome={"features": 5, "hidden": 4}),
    "format 99": lambda f: edited(f, format=99),
    "format as text": lambda f: edited(f, format="1"),
    "no format": lambda f: edited(f, format=None),
    "no genome": lambda f: edited(f, genome=None),
    "a list": lambda f: (f / "loss.json").write_text("[]"),
    "no JSON": lambda f: (f / "loss.json").write_text("loss = 1"),
    "empty": lambda f: (f / "loss.json").write_text(""),
    "no text": lambda f: (f / "loss.json").write_bytes(b"\xff\xfe\x00"),
    "depth": lambda f: (f / "loss.json").write_text("[" * 100_000),
    "a number of 5000 digits": lambda f: (f / "loss.json").write_text("1" * 5000),
    "2 MB": lambda f: edited(f, about={"x": "x" * (2 << 20)}),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_refused_in_one_line_that_names_it(saved, what, capfd):
    DAMAGE[what](saved)
    with pytest.raises(DamagedFile, match=str(saved)) as caught:
        metaloss.load(saved)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    assert "unpickled" not in "".join(capfd.readouterr())


def test_no_flipped_or_missing_byte_of_a_description_does_anything_but_damage(saved):
    """A file that still reads is a loss; all else is a DamagedFile."""
    draw = random.Random(0)
    data = (saved / "loss.json").read_bytes()
    refusals = []
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(draw.choice((1, 1, 3))):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        (saved / "loss.json").write_bytes(
            changed[: draw.choice((len(changed), draw.randrange(len(changed))))]
        )
        # Some changes do no harm, so neither outcome can be expected.
        try:
            assert isinstance(metaloss.load(saved), Criterion)
        except DamagedFile as error:
            refusals.append(str(error))
    assert not any("\n" in text for text in refusals)


SUSPECT = {
    "import",
    "exec",
    "compile",
    "pickle.find_class",
    "marshal.loads",
    "os.system",
    "subprocess.Popen",
}
LISTENERS: list[list[tuple[str, str]]] = []


def listen(event, args):
    """An audit hook stays for good; it takes notes only while there is a list for them."""
    if event in SUSPECT:
        for events in LISTENERS:
            events.append((event, str(args[0])[:200]))


@pytest.fixture(scope="module")
def heard():
    """What happens inside a call: imports, compiled code, unpickled classes, started programs."""
    sys.addaudithook(listen)

    def during(call):
        events = []
        LISTENERS.append(events)
        try:
            call()
            return events
        finally:
            LISTENERS.remove(events)

    return during


EVIL = {
    "__reduce__": "os.system",
    "py/object": "os.system",
    "!!python/object/apply": "os.system",
    "import": "this",
}
TRAPS = {
    "nothing": lambda f: None,
    "about": lambda f: edited(f, about=EVIL),
    "kind os": lambda f: edited(f, kind="os"),
    "kind __init__": lambda f: edited(f, kind="__init__"),
    "kind _networks": lambda f: edited(f, kind="_networks"),
    "genome": lambda f: edited(f, genome=EVIL),
    "activation": lambda f: edited(f, genome={"activation": "__import__('os').system('true')"}),
    "features": lambda f: edited(f, genome={"features": "__import__('os').system('true')"}),
    "pickle": DAMAGE["pickle"],
    "another pickle": DAMAGE["another pickle"],
    "an old pickle": lambda f: (f / "weights.safetensors").write_bytes(
        b"cos\nsystem\n(S'true'\ntR."
    ),
}


@pytest.mark.parametrize("what", TRAPS)
def test_loading_neither_imports_nor_runs_nor_unpickles_anything(saved, heard, what):
    def attempt():
        with contextlib.suppress(DamagedFile):
            metaloss.load(saved)

    attempt()  # what metaloss itself needs is imported now
    assert ("pickle.find_class", "pathlib") in heard(lambda: pickle.loads(pickle.dumps(Path())))
    TRAPS[what](saved)
    assert heard(attempt) == []


def test_what_is_saved_is_what_is_loaded(saved):
    table = json.loads((saved / "loss.json").read_text())
    assert (table["format"], table["kind"], table["about"]) == (1, "mln", {"run": "test"})
    assert torch.equal(metaloss.load(saved).values, network().values)
    assert (saved / "card.md").read_text() == "# a loss\n"
    assert {path.name for path in saved.iterdir()} == {
        "loss.json",
        "weights.safetensors",
        "card.md",
    }


def test_numbers_that_are_not_finite_are_null_in_the_description(tmp_path):
    loss = network()
    loss.about = {"accuracy": float("nan"), "deep": [float("inf")]}
    loss_io.save(tmp_path / "loss", loss, "")
    assert metaloss.load(tmp_path / "loss").about == {"accuracy": None, "deep": [None]}


def test_a_stub_is_what_the_other_tests_believe():
    logits, target = problem((5, 3), "hard")
    torch.testing.assert_close(
        cross_entropy()(logits, target), nn.functional.cross_entropy(logits, target)
    )


def test_losses_of_one_candidate_have_one_identity_whatever_their_options():
    assert network(1).identity == network(1).with_options(label_smoothing=0.1).identity
    assert network(1).identity != network(2).identity
    assert network(1).identity != network(1, context="none").identity
    assert metaloss.load("ce").identity == metaloss.load("sum(-y*logp)").identity
