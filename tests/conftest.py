"""Shapes and types are checked in all of metaloss while tests run; a data set of tiny images.

One thread.
"""

import dataclasses
import functools
import importlib.util
import inspect
import pkgutil
import signal
import types
import typing
from collections.abc import Callable

import hypothesis
import jaxtyping
import pytest
import torch
from beartype import BeartypeConf, FrozenDict, beartype

# jaxtyping decorates methods one by one, where beartype cannot know what Self is; torch.export
# counts in symbols.
CONF = BeartypeConf(hint_overrides=FrozenDict({typing.Self: typing.Any, int: int | torch.SymInt}))


def check(function: Callable) -> Callable:
    """`function` with its types checked; a protocol by the names it asks for."""
    hints = function.__annotations__
    function.__annotations__ = {
        name: hint if _is_known(hint, function) else typing.Any for name, hint in hints.items()
    }
    for hint in function.__annotations__.values():
        _make_checkable(hint)
    result = beartype(conf=CONF)(function)
    function.__annotations__ = result.__annotations__ = hints
    return result


def _is_known(hint: object, function: Callable) -> bool:
    """Whether what a hint names in quotes is there where the function is made.

    A class that is being made is not, nor is what is imported for a type checker alone.
    """
    if isinstance(hint, type) and not typing.get_args(hint):
        return True
    holder = types.SimpleNamespace(__annotations__={"hint": hint})
    try:
        typing.get_type_hints(holder, function.__globals__)
    except NameError:
        return False
    return True


def _make_checkable(hint: object) -> None:
    if getattr(hint, "_is_protocol", False):
        typing.runtime_checkable(hint)
    for part in typing.get_args(hint):
        _make_checkable(part)


def _names_axes(hint: object) -> bool:
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return isinstance(hint, str) or any(map(_names_axes, typing.get_args(hint)))


def checked(part=None, *, typechecker):
    """What the import hook puts around each function, method and dataclass of metaloss.

    jaxtyping's own decorator binds the arguments of every call, checks them twice and opens a
    scope of axis names; that took three quarters of the suite's time. Here arguments and result
    are checked once, and the scope is there for functions that name axes, which alone read it.
    """
    if part is None:
        return functools.partial(checked, typechecker=typechecker)
    wrap = functools.partial(checked, typechecker=typechecker)
    if isinstance(part, classmethod | staticmethod):
        return type(part)(wrap(part.__func__))
    if isinstance(part, property):
        return property(*(f and wrap(f) for f in (part.fget, part.fset, part.fdel)), part.__doc__)
    if inspect.isclass(part):
        made = part.__dict__.get("__init__") if dataclasses.is_dataclass(part) else None
        if made is not None and not hasattr(made, "__wrapped__"):
            part.__init__ = wrap(made)
        return part
    if not inspect.isfunction(part) or not part.__annotations__:
        return part
    function = typechecker(part)
    hints = part.__annotations__.values()
    if any(map(_names_axes, hints)):
        return _scoped(function, part)
    # Of many items beartype checks one by chance, which torch.compile cannot trace.
    return _plain_where_traced(function, part) if any(map(typing.get_args, hints)) else function


def _scoped(function: Callable, part: Callable) -> Callable:
    @functools.wraps(function)
    def call(*args, **options):
        if torch.compiler.is_dynamo_compiling():
            return part(*args, **options)
        with scope("context"):
            return function(*args, **options)

    return call


def _plain_where_traced(function: Callable, part: Callable) -> Callable:
    @functools.wraps(function)
    def call(*args, **options):
        traced = torch.compiler.is_dynamo_compiling()
        return (part if traced else function)(*args, **options)

    return call


# The same examples every time: a suite that fails by chance tells nothing. `scripts/fuzz.py` looks
# for new ones.
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None)
hypothesis.settings.load_profile("suite")

# Compiled loops are machine code; a check around them would not be.
if importlib.util.find_spec("numba"):
    for part in pkgutil.iter_modules(importlib.import_module("metaloss.kernels").__path__):
        importlib.import_module(f"metaloss.kernels.{part.name}")
# Before anything else imports metaloss: what is imported earlier stays unchecked.
scope = jaxtyping.jaxtyped
jaxtyping.jaxtyped = checked
jaxtyping.install_import_hook("metaloss", f"{__name__}.check")
torch.set_num_threads(1)

# A background job is born deaf to Ctrl-C, and so are its children; the tests send it to themselves
# and to those.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    # Pictures of one colour, which is what many tests are made of, are worth a remark and no error.
    config.addinivalue_line("filterwarnings", "ignore::metaloss.errors.DataWarning")


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def fashionmnist_read_once():
    """The embedded subset, and the system's full set, are unpacked once in a process."""
    from metaloss.data.datasets import _mnist, fashionmnist

    read = _mnist.MnistSource.read
    system = fashionmnist.SYSTEM
    full = functools.cache(lambda: read(fashionmnist.SOURCE, system))

    def read_once(self, folder):
        return full() if self is fashionmnist.SOURCE and folder == system else read(self, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fashionmnist, "_subset", functools.cache(fashionmnist._subset))
        patch.setattr(_mnist.MnistSource, "read", read_once)
        yield


@pytest.fixture
def dataset():
    """Four classes of thirty 6x6 images, each class around a pattern of its own.

    No official test split.
    """
    from metaloss.core.streams import Stream
    from metaloss.data.datasets import Dataset

    key = Stream(7).at("data set")
    classes = 4
    n = 30
    labels = torch.arange(classes).repeat(n)
    pattern = key.at("pattern").uniform(classes, 1, 6, 6, low=40.0, high=200.0)
    pixels = pattern[labels] + 40 * key.at("noise").normal(classes * n, 1, 6, 6)
    return Dataset(
        name="tiny",
        pixels=pixels.clamp(0, 255).to(torch.uint8),
        labels=labels,
        classes=tuple("abcd"),
        index=torch.arange(classes * n),
        test=torch.zeros(classes * n, dtype=torch.bool),
        origin="made by the tests",
    )


@pytest.fixture
def open_tiny(dataset, monkeypatch):
    """Opens a family of 3-way 2-shot tasks of the tiny data set.

    The family's settings as keywords.
    """
    from metaloss.tasks import episodic, episodic_family

    monkeypatch.setattr(episodic, "load", lambda name, options: dataset)

    def opened(**changes):
        table = {
            "dataset": "tiny",
            "ways": 3,
            "shots": 2,
            "val": 4,
            "classifier": {"kind": "mlp", "hidden": [8]},
            "inner": {"steps": 5, "lr": 0.2},
        }
        return episodic.open_episodes(episodic_family.of({**table, **changes}, "tiny", "tiny.toml"))

    return opened


@pytest.fixture
def episodes(open_tiny):
    """Such a family with the settings it comes with."""
    return open_tiny()


@pytest.fixture
def float64(monkeypatch):
    """Makes images, and with them all that classifiers are bound to, float64."""
    from metaloss.data.episodes import Images

    at = Images.at
    monkeypatch.setattr(Images, "at", lambda self, rows: at(self, rows).double())


@pytest.fixture
def shapes():
    """Four classes of thirty 12x12 images, each class around a pattern of its own.

    A quarter of them for testing.
    """
    from metaloss.core.streams import Stream
    from metaloss.data.datasets import Dataset

    key = Stream(3).at("shapes")
    classes = 4
    n = 30
    labels = torch.arange(classes).repeat(n)
    pattern = key.at("pattern").uniform(classes, 1, 12, 12, low=40.0, high=200.0)
    pixels = pattern[labels] + 90 * key.at("noise").normal(classes * n, 1, 12, 12)
    count = classes * n
    return Dataset(
        name="shapes",
        pixels=pixels.clamp(0, 255).to(torch.uint8),
        labels=labels,
        classes=tuple("abcd"),
        index=torch.arange(count),
        test=torch.arange(count) >= 3 * count // 4,
        origin="made by the tests",
    )


@pytest.fixture
def uneven(shapes):
    """The images, but a third of the last two classes."""
    kept = (shapes.labels < 2) | (torch.arange(len(shapes.labels)) % 3 == 0)
    fields = ("pixels", "labels", "index", "test")
    return dataclasses.replace(shapes, **{name: getattr(shapes, name)[kept] for name in fields})


@pytest.fixture
def network():
    """Makes a network for these images; its weights are drawn from torch's own generator."""
    from torch import nn

    return lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 8), nn.ReLU(), nn.Linear(8, 4))


@pytest.fixture
def metaloss(capsys):
    """Runs a command line in this process; gives exit code, stdout and stderr."""

    from metaloss import cli

    def run(*args):
        with pytest.raises(SystemExit) as end:
            cli.main(args)
        found = capsys.readouterr()
        return end.value.code, found.out, found.err

    return run
