"""What a name, a path or a formula means, and what is refused and how.

Reading does nothing but read.
"""

import dataclasses
import json
import random
import subprocess
import sys
from pathlib import Path

import fuzzing
import pytest
import torch
from test_criterion import network
from torch import nn

import metaloss
from metaloss import storage
from metaloss.criterion import loss_files, loss_io
from metaloss.criterion.formula import FormulaCriterion
from metaloss.criterion.genome import GenomeCriterion
from metaloss.criterion.no_formula import BatchCriterion
from metaloss.errors import DamagedFile, SettingsError
from metaloss.losses import zoo
from metaloss.losses.language.formula import Formula

TEXTS = 20_000
FILES = 1_000


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(folder, formula="sum(p * y)", **changes):
    """A loss's folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = {"format": 1, "kind": "formula", "formula": formula, "about": {}, **changes}
    (folder / "loss.json").write_text(json.dumps({k: v for k, v in table.items() if v is not None}))
    return folder


def formula(spec, **where):
    return str(metaloss.load(spec, **where).formula)


# --- options ---


def test_options_are_given_where_a_loss_is_loaded():
    loss = metaloss.load(
        "focal(gamma=2)", weight=torch.tensor([1.0, 5.0]), label_smoothing=0.1, reduction="sum"
    )
    assert (loss.weight.tolist(), loss.label_smoothing, loss.reduction) == ([1.0, 5.0], 0.1, "sum")
    assert metaloss.load(loss, ignore_index=7).ignore_index == 7
    assert metaloss.load(loss, ignore_index=7).reduction == "sum"
    assert metaloss.load(loss) is loss
    assert metaloss.load("dice", ignore_index=255).ignore_index == 255


def test_options_that_do_not_exist_are_refused_with_the_nearest_that_does():
    with pytest.raises(TypeError, match=r"unknown option 'weights'\. Did you mean 'weight'"):
        metaloss.load("ce", weights=torch.ones(2))
    with pytest.raises(SettingsError, match="L1Loss is not metaloss's"):
        metaloss.load(nn.L1Loss(), reduction="sum")


# --- the order ---


def test_a_module_is_given_back_and_a_formula_becomes_a_loss():
    loss = nn.L1Loss()
    assert metaloss.load(loss) is loss
    assert formula(Formula.parse("mean(p - y)")) == "mean(p - y)"


@pytest.mark.parametrize("spec", ["ce", "CE", " Ce ", "ce()"])
def test_published_names_are_read_in_any_case(spec):
    loss = metaloss.load(spec)
    assert str(loss.formula) == "sum(-y * logp)"
    assert loss.about == {"name": spec, "source": "cross-entropy"}


def test_published_names_take_parameters():
    assert formula("Focal( GAMMA = 1 )") == "sum(-y * (1.0 - p) ** 1.0 * logp)"
    assert formula("ngl(scaled=true)") != formula("ngl")


def test_dice_is_a_loss_that_is_no_formula():
    assert isinstance(metaloss.load("Dice"), BatchCriterion)


@pytest.mark.parametrize("name", [name for name in zoo.names() if zoo.entry(name).text])
def test_every_published_loss_is_loaded_by_its_name(name):
    assert metaloss.load(name).formula == zoo.find(name)[1]


def test_a_published_name_comes_before_a_path_and_a_dot_forces_the_path():
    write("ce")
    assert formula("ce") == "sum(-y * logp)"
    for spec in ("./ce", "ce/", "ce/loss.json", str(Path("ce").absolute()), Path("ce").absolute()):
        assert formula(spec) == "sum(p * y)"


def test_a_path_comes_before_a_run_s_name_and_that_before_a_formula():
    write("runs/p/loss", "sum(1.0 - p)")
    assert formula("p") == "sum(1.0 - p)"
    write("p", "sum(2.0 - p)")
    assert formula("p") == "sum(2.0 - p)"
    assert formula("logp") == "sum(logp)"


@pytest.mark.parametrize(
    "spec", ["runs/mine", "runs/mine/", "runs/mine/loss", "runs/mine/loss/loss.json", "mine"]
)
def test_a_run_is_found_by_path_and_by_name_and_so_is_its_loss(spec):
    write("runs/mine/loss")
    Path("runs/mine/config.toml").write_text("")
    assert formula(spec) == formula(Path(spec)) == "sum(p * y)"
    if "/" not in spec:
        Path("runs").rename("elsewhere")
        assert (
            formula(spec, parent="elsewhere")
            == formula(spec, parent=Path("elsewhere"))
            == "sum(p * y)"
        )


@pytest.mark.parametrize(
    ("spec", "printed"),
    [
        ("-y*logp", "sum(-y * logp)"),
        ("mean(square(p - y))", "mean(square(p - y))"),
        ("sum(-y*logp, temperature=2)", "sum(-y * logp, temperature=2.0)"),
        ("\n  1 - p\n", "sum(1.0 - p)"),
        ("-y*logp" + " + 0*p" * 60, "sum(-y * logp" + " + 0.0 * p" * 60 + ")"),
    ],
)
def test_anything_else_with_p_or_logp_is_a_formula(spec, printed):
    assert formula(spec) == printed
    assert metaloss.load(spec).about == {}


# --- what is refused ---

NO_LOSS = (
    ": neither a published or shipped loss, a path, a run under runs nor a formula of p or logp."
)
REFUSED = {
    "focl": f"no loss 'focl'{NO_LOSS} Did you mean 'focal'?  (metaloss list losses)",
    "zzz": f"no loss 'zzz'{NO_LOSS}  (metaloss list losses)",
    "y*C": f"no loss 'y*C'{NO_LOSS}  (metaloss list losses)",
    "": f"no loss ''{NO_LOSS}  (metaloss list losses)",
    "some/where/loss.json": f"no loss 'some/where/loss.json'{NO_LOSS}  (metaloss list losses)",
    "neuroloss1": "neuroloss1 was published with its accuracy, but its formula was not",
    "focal(gama=1)": "focal: unknown parameter 'gama'. Did you mean 'gamma'?",
    "focal(gamma=99)": "focal: gamma must lie in [0.0, 20.0], got 99.0",
    "ce(x=1)": "ce has no parameters, got x",
    "focal(2)": "parameters are given by name: focal(gamma=2), at character 7"
    "\n  focal(2)\n        ^",
    "CrossEntropyLoss": f"no loss 'CrossEntropyLoss'{NO_LOSS}"
    " Did you mean 'ce'?  (metaloss list losses)",
    "nll": f"no loss 'nll'{NO_LOSS} Did you mean 'ce'?  (metaloss list losses)",
    "-y*log(p)": "unknown primitive 'log'. Write logp for the logarithm of p, "
    "and ln(x), which adds 1e-7 to x, or exact_log(x) for that of another x, "
    "at character 4\n  -y*log(p)\n     ^",
    "-y*p^2": "unexpected character '^' (a power is written **), at character 5\n  -y*p^2\n      ^",
    "focal(alpha=0.25)": "focal: unknown parameter 'alpha'. Are class weights meant? "
    "That is an option of every loss, given beside its name: "
    "metaloss.load('focal', weight=[0.25, 0.75]).",
    "-y*lgop + p": "unknown name 'lgop'. Did you mean 'logp'?, at character 4"
    "\n  -y*lgop + p\n     ^",
    "tahn(p)": "unknown primitive 'tahn'. Did you mean 'tanh'?, at character 1\n  tahn(p)\n  ^",
    "(p": "expected ')', found the end, at character 3\n  (p\n    ^",
    "p $": "unexpected character '$' "
    "(allowed are names, numbers and + - * / ** ( ) ,), at character 3"
    "\n  p $\n    ^",
    "sum(p) + 1": "nothing may follow sum(...): it stands around the whole loss, at character 8"
    "\n  sum(p) + 1\n         ^",
}


def test_the_name_of_a_run_that_is_near_is_suggested(tmp_path):
    (tmp_path / "scans-tree-gp-0").mkdir()
    (tmp_path / "scans-tree-gp-0" / "config.toml").touch()
    with pytest.raises(SettingsError, match="Did you mean 'scans-tree-gp-0'"):
        metaloss.load("scans-tree-pg-0", tmp_path)


@pytest.mark.parametrize("spec", REFUSED)
def test_what_is_no_loss_is_refused_with_these_words(spec):
    with pytest.raises(SettingsError) as caught:
        metaloss.load(spec)
    assert str(caught.value) == REFUSED[spec]


@pytest.mark.parametrize(
    "spec",
    [
        "x" * 5000,
        "y/" * 3000,
        "p" * 20_000,
        "a\0b",
        "p\0",
        "p\ud800",
    ],
)
def test_texts_that_can_be_no_path_are_refused_like_any_other(spec):
    with pytest.raises(SettingsError) as caught:
        metaloss.load(spec)
    assert len(str(caught.value)) < 600


def test_a_run_without_a_winner_says_what_to_do():
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/config.toml").write_text("")
    for spec, folder in (
        ("mine", "runs/mine"),
        ("runs/mine/", "runs/mine"),
        ("./runs/mine", "runs/mine"),
    ):
        with pytest.raises(SettingsError) as caught:
            metaloss.load(spec)
        assert str(caught.value) == f"{folder} has no winner yet: metaloss evolve --resume {folder}"


DAMAGE = {
    "formula a number": {"formula": 3},
    "formula a list": {"formula": ["p"]},
    "no formula": {"formula": None},
    "an empty formula": {"formula": ""},
    "a mistake": {"formula": "p +"},
    "a name": {"formula": "ce"},
    "a path": {"formula": "/etc/passwd"},
    "no kind": {"kind": None},
    "another kind": {"kind": "formulae"},
    "a kind that is no text": {"kind": {"formula": 1}},
    "no format": {"format": None},
    "format 2": {"format": 2},
    "format as text": {"format": "1"},
    "about as text": {"about": "x"},
    "no about": {"about": None},
    "control characters": {"formula": "p\x1b[2J\nerror: all is well"},
    "half a character": {"formula": "p\ud800"},
    "too long a formula": {"formula": "p" + " " * 20_000},
    "too deep a formula": {"formula": "(" * 5000 + "p"},
    "numbers that are not finite": {"formula": "p*1e999"},
    "a huge file": {"about": {"x": "x" * (loss_files.LIMIT + 1)}},
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_description_is_refused_in_one_line_that_names_it(what):
    write("theirs", **DAMAGE[what])
    with pytest.raises(DamagedFile, match=r"^theirs/loss\.json: ") as caught:
        metaloss.load("theirs")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


BYTES = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "no text": b"\xff\xfe{",
    "UTF-16": '{"format": 1, "kind": "formula", "formula": "p", "about": {}}'.encode("utf-16"),
    "deep": b"[" * 100_000,
    "a long number": b'{"format": ' + b"1" * 5000 + b"}",
}


@pytest.mark.parametrize("what", BYTES)
def test_bytes_that_are_no_description_are_refused(what):
    write("theirs").joinpath("loss.json").write_bytes(BYTES[what])
    with pytest.raises(DamagedFile, match=r"^theirs/loss\.json: not the description of a loss$"):
        metaloss.load("theirs")


def test_a_mistake_in_a_file_is_pointed_at_in_words():
    write("theirs", "p + foo(y)")
    with pytest.raises(DamagedFile, match=r"unknown primitive 'foo'.*at character 5"):
        metaloss.load("theirs")


# --- there and back ---


@pytest.mark.parametrize(
    "spec",
    [
        "ce",
        "ngl",
        "temperature(tau=3)",
        "taylorglo_mnist",
        "r2",
        "mean(p**-1.5 - 0.1)",
        "sum(1e-300*p)",
    ],
)
def test_a_formula_that_is_saved_is_the_one_that_is_loaded(spec, tmp_path):
    loss = metaloss.load(spec)
    loss.about = {"name": "mine", "note": "ŷ\n", "deep": [1, None, {"x": 0.1}]}
    loss_io.save(tmp_path / "loss", loss, "# mine: ŷ\n")
    found = metaloss.load(tmp_path / "loss")
    assert isinstance(found, FormulaCriterion)
    assert (found.formula, found.about) == (loss.formula, loss.about)
    assert sorted(path.name for path in (tmp_path / "loss").iterdir()) == ["card.md", "loss.json"]
    assert (tmp_path / "loss" / "card.md").read_text(encoding="utf-8") == "# mine: ŷ\n"
    logits = torch.randn(5, 3)
    target = torch.arange(5) % 3
    assert torch.equal(found(logits, target), loss(logits, target))


def test_a_network_is_still_what_it_was():
    loss_io.save(Path("loss"), network(), "")
    assert isinstance(metaloss.load("./loss"), GenomeCriterion)


# --- fuzzing ---


def test_the_watch_sees_what_it_should():
    with fuzzing.watched() as heard:
        exec("open(__file__).close()", {"__file__": __file__})
    assert {"exec", "compile", "open"} <= {event for event, _ in heard}
    assert ("open", __file__) in heard


def test_no_text_does_anything_but_be_read_or_refused(tmp_path):
    fuzzing.warm(tmp_path)
    with fuzzing.watched() as heard:
        read = sum(map(fuzzing.read_text, fuzzing.texts(random.Random(0), TEXTS)))
    assert heard == []
    assert TEXTS / 100 < read < TEXTS / 2


def test_no_file_does_anything_but_be_read_or_refused(tmp_path):
    fuzzing.warm(tmp_path)
    read = sum(fuzzing.read_file(tmp_path, data) for data in fuzzing.files(random.Random(0), FILES))
    assert FILES / 10 < read < FILES / 2


# --- shipped losses ---


@pytest.mark.parametrize("name", loss_io.shipped())
def test_a_shipped_loss_trains_in_three_precisions_at_extreme_logits_and_has_a_card(name):
    loss = loss_io.load(name.upper())
    assert loss.about["evolved on"]
    assert (loss_io.SHIPPED / name / "card.md").read_text().count("meta-test tasks") >= 1
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        logits = torch.tensor(
            [[1e4, -1e4, 0], [-1e4, 1e4, 0], [0, 0, 0.1]], dtype=dtype, requires_grad=True
        )
        loss(logits, torch.tensor([0, 0, 1])).backward()
        assert logits.grad.isfinite().all()


def test_some_losses_are_shipped_and_a_path_of_their_name_is_not_one_of_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (name, *_) = loss_io.shipped()
    loss_io.save(tmp_path / name, loss_io.load("mse"), "# a loss of my own\n")
    assert str(loss_io.load(f"./{name}").formula) == str(zoo.read("mse"))
    assert repr(loss_io.load(name)) != repr(loss_io.load(f"./{name}"))


# --- digests ---


def test_a_loss_that_was_changed_is_refused_and_one_without_a_digest_is_said_to_have_none_once(
    tmp_path, caplog
):
    folder = tmp_path / "loss"
    network = metaloss.load("mln-fashionmnist")
    loss_io.save(folder, network, "")
    table = storage.read_record(folder / "loss.json")
    sound = (folder / "loss.json").read_bytes()
    for changed in (sound.replace(b"tanh", b"relu"), sound.replace(b'"sha256"', b'"sha356"')):
        (folder / "loss.json").write_bytes(changed)
        with pytest.raises(DamagedFile, match=r"loss\.json is damaged"):
            metaloss.load(folder)
    (folder / "loss.json").write_text(
        json.dumps({k: v for k, v in table.items() if k != "weights_sha256"})
    )
    for _ in range(3):
        assert repr(metaloss.load(folder)) == repr(network)
    assert [x.getMessage() for x in caplog.records] == [
        f"{folder / 'loss.json'} holds no digest: whether it is as it was written cannot be told"
    ]


def test_weights_that_are_not_the_description_s_are_refused(tmp_path):
    folder = tmp_path / "loss"
    loss_io.save(folder, metaloss.load("mln-fashionmnist"), "")
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7e")
    with pytest.raises(
        DamagedFile,
        match=r"weights\.safetensors is damaged, its digest is not the one in loss\.json",
    ):
        metaloss.load(folder)


def test_weights_never_lie_beside_another_loss_s_description(tmp_path, monkeypatch):
    folder = tmp_path / "loss"
    network = metaloss.load("mln-fashionmnist")
    loss_io.save(folder, network, "")
    other = dataclasses.replace(network.candidate, values=network.candidate.values + 1)
    write = storage.write
    for fails in ("weights.safetensors", "card.md"):

        def killed(path, data, fails=fails):
            if path.name == fails:
                raise KeyboardInterrupt
            write(path, data)

        with monkeypatch.context() as patch:
            patch.setattr(storage, "write", killed)
            with pytest.raises(KeyboardInterrupt):
                loss_io.save(folder, GenomeCriterion(network.genome, other, network.about), "")
        assert not (folder / "loss.json").exists()
    loss_io.save(folder, network, "")
    assert (metaloss.load(folder).values == network.values).all()


def test_one_loss_is_a_list_of_one():
    ce = metaloss.load("ce")
    for one in ("ce", ce, Path("ce"), ce.formula):
        assert loss_io.listed(one) == [one]
    assert loss_io.listed(("ce", ce)) == ["ce", ce]
    with pytest.raises(SettingsError, match="expected losses in a list, got 3"):
        loss_io.listed(3)


WRONG = """
import metaloss
from metaloss.errors import SettingsError

ce = metaloss.load("ce")
for call in (
    lambda: metaloss.load(3),
    lambda: metaloss.export(ce.losses(), "loss.py"),
    lambda: metaloss.refine(None),
    lambda: metaloss.compare([3]),
    lambda: metaloss.compare(3),
    lambda: metaloss.study(3, ["tasks:digits", "tasks:fashionmnist"]),
    lambda: metaloss.study([ce, "mse"], ["tasks:digits", "tasks:fashionmnist"]),
    lambda: metaloss.phenotype.gain("focal", 3),
    lambda: metaloss.phenotype.curve(ce),
    lambda: metaloss.phenotype.minimum("focal"),
    lambda: metaloss.phenotype.warnings("focal"),
):
    try:
        call()
    except SettingsError as error:
        print(error)
"""


def test_what_cannot_be_a_loss_is_refused_in_one_line_by_every_function(tmp_path):
    # In a process of its own, whose arguments nothing checks but the functions themselves.
    found = subprocess.run(
        [sys.executable, "-c", WRONG], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = found.stdout.splitlines()
    a_loss = "expected a loss: a name, a path, a formula or a module, got "
    assert lines[0] == f"{a_loss}3"
    assert lines[1].startswith(a_loss)
    assert lines[2] == f"{a_loss}None"
    assert lines[3] == f"{a_loss}3"
    assert lines[4] == lines[5] == "expected losses in a list, got 3"
    assert lines[6].startswith("study: losses.0: Input should be a valid string")
    losses = "expected losses as loss.losses() gives them, as metaloss.load('ce').losses(), got "
    assert [line.removeprefix(losses)[:7] for line in lines[7:]] == [
        *("'focal'", "Criteri"),
        *("'focal'", "'focal'"),
    ]
