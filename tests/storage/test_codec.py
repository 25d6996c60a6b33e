import json
import math
import pickle
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaloss.errors import DamagedFile
from metaloss.storage.codec import HEADER_LIMIT, metadata, pack, unpack

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int64,
    torch.int32,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]


@dataclass(frozen=True)
class Rows:
    genes: Any
    sigma: Any = None


@dataclass(frozen=True)
class State:
    rows: Any
    best: float = 0.0
    total: int = field(init=False, default=7)


@dataclass(frozen=True)
class Strict:
    share: float

    def __post_init__(self):
        assert 0 <= self.share <= 1, "share must lie in [0, 1]"


TYPES = (Rows, State, Strict)
EXAMPLE = State(
    Rows(torch.arange(6.0).reshape(2, 3), (torch.tensor(True), {"a/b": -0.0})), best=-math.inf
)


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    dtype = draw(st.sampled_from(DTYPES))
    size = math.prod(shape) * dtype.itemsize
    raw = torch.tensor(list(draw(st.binary(min_size=size, max_size=size))), dtype=torch.uint8)
    return (raw % 2 if dtype == torch.bool else raw).view(dtype).reshape(shape)


def branches(values):
    return (
        st.lists(values, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), values, max_size=3)
        | st.builds(Rows, values, values)
        | st.builds(State, values, st.floats(allow_nan=False))
    )


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | tensors()
)
VALUES = st.recursive(LEAVES, branches, max_leaves=8)
quickly = settings(
    deadline=None, max_examples=100, database=None, suppress_health_check=list(HealthCheck)
)


def bits(value):
    """`value` with each tensor and float replaced by its exact bits, and each class by its name."""
    if isinstance(value, torch.Tensor):
        assert value.is_contiguous()
        return (
            str(value.dtype),
            tuple(value.shape),
            bytes(value.reshape(-1).view(torch.uint8).tolist()),
        )
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, tuple):
        return ["tuple", *map(bits, value)]
    items = value if isinstance(value, dict) else getattr(value, "__dict__", None)
    return (
        type(value).__name__,
        value if items is None else {key: bits(item) for key, item in items.items()},
    )


def damaged(data, match=None):
    with pytest.raises(DamagedFile, match=match) as caught:
        unpack(data, TYPES)
    assert "\n" not in str(caught.value)


def with_tree(tree, tensors=None):
    return safetensors.torch.save(
        tensors or {}, {"tree": tree if isinstance(tree, str) else json.dumps(tree)}
    )


@quickly
@given(VALUES)
def test_a_round_trip_is_exact_to_the_bit(value):
    assert bits(unpack(pack(value), TYPES)) == bits(value)


def test_equal_values_give_equal_bytes():
    notes = dict.fromkeys("qwertyuiop", "note")
    assert len({pack(EXAMPLE, notes) for _ in range(5)}) == 1


def test_views_and_shared_tensors_come_back_contiguous():
    base = torch.arange(6.0).reshape(2, 3)
    back = unpack(pack((base, base, base.T, base[:, 1], torch.ones(1).expand(4))), TYPES)
    assert all(x.is_contiguous() for x in back)
    assert torch.equal(back[2], base.T)
    assert torch.equal(back[4], torch.ones(4))


def test_nan_comes_back_as_nan():
    assert math.isnan(unpack(pack(math.nan), ()))


def test_metadata_stands_beside_the_value():
    data = pack(EXAMPLE, {"made by": "a test"})
    assert metadata(data)["made by"] == "a test"
    with pytest.raises(ValueError, match="tree"):
        pack(1, {"tree": "mine"})


@pytest.mark.parametrize("value", [[1], {1: 2}, {1, 2}, b"bytes", object(), State, 1j, range(2)])
def test_what_would_not_come_back_the_same_is_not_packed(value):
    with pytest.raises(TypeError, match="value/rows/1: cannot pack a"):
        pack(State((0, value)))


def test_a_header_that_unpack_would_refuse_is_not_written():
    with pytest.raises(ValueError, match="header"):
        pack("x" * HEADER_LIMIT)


def test_a_type_the_caller_does_not_allow_is_refused():
    with pytest.raises(DamagedFile, match=r"unknown type 'State', allowed are \['Rows'\]"):
        unpack(pack(EXAMPLE), [Rows])


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"Rows": {"genes": 1}}, "Rows: missing or unknown fields.*sigma"),
        ({"Rows": {"genes": 1, "sigma": 2, "more": 3}}, "more"),
        ({"State": {"rows": 1, "best": 2, "total": 3}}, "total"),
        ({"Strict": {"share": 2}}, "share must lie"),
        ({"os.system": {"command": "true"}}, "unknown type"),
        ({"tensor": "nowhere"}, "nowhere"),
        ({"tensor": ["list"]}, "not a packed value"),
        ({"tuple": [{"tensor": "x"}, {"tensor": "x"}]}, "x"),
        ({"tuple": 3}, "not a packed value"),
        ({"dict": [1]}, "not a packed value"),
        ({"float": "one"}, "not a packed value"),
        ({"float": 1}, "not a packed value"),
        ({"float": "0x1p9999"}, "not a packed value"),
        ({}, "not a packed value"),
        ({"dict": {}, "tuple": []}, "not a packed value"),
        ([1, 2], "not a packed value"),
        (1.5, "not a packed value"),
        (1, "1 tensors belong to nothing, e.g. 'x'"),
        ("[" * 100_000, "not a packed value"),
        ('{"tuple":[' * 50_000, "not a packed value"),
        ('{"tuple":[' * 3000 + "]}" * 3000, "not a packed value"),
        ("not json", "not a packed value"),
    ],
)
def test_a_tree_of_another_shape_is_damaged(tree, words):
    damaged(with_tree(tree, {"x": torch.ones(1)}), words)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 8,
        b"\xff" * 64,
        b"\x1e" + b"\x00" * 7 + b'{"__metadata__":{"tree": 123}}',
        pickle.dumps({"a": 1}),
        safetensors.torch.save({"x": torch.ones(1)}),
        pack(1)[:-1],
    ],
)
def test_other_files_are_damaged(data):
    damaged(data)


def test_a_large_header_is_refused_before_it_is_parsed():
    damaged(
        (HEADER_LIMIT + 1).to_bytes(8, "little") + b"[" * (HEADER_LIMIT + 1),
        f"header of {HEADER_LIMIT + 1} bytes",
    )


watched: list[str] | None = None


def watch(event, _):
    if watched is not None and event.split(".")[0] in {
        "exec",
        "compile",
        "import",
        "pickle",
        "os",
        "open",
        "subprocess",
    }:
        watched.append(event)


def test_no_file_is_evaluated_imported_or_unpickled():
    """Each byte of a file is changed in turn; an audit hook listens."""
    global watched  # an audit hook cannot be removed
    sound = pack(EXAMPLE, {"note": "x"})
    unpack(sound, TYPES)
    sys.addaudithook(watch)
    watched = []
    try:
        for position in range(len(sound)):
            data = bytearray(sound)
            data[position] ^= 1 << position % 8
            try:
                # Most flips in a tensor's numbers pass: the storage's hash is for those.
                unpack(bytes(data), TYPES)
            except DamagedFile as error:
                # Most bytes are damage, some are not: `pytest.raises` does not fit.
                assert "\n" not in str(error)
        assert watched == []
    finally:
        watched = None


@quickly
@given(st.binary(max_size=200), st.binary(max_size=50))
def test_random_bytes_are_damaged(header, rest):
    damaged(len(header).to_bytes(8, "little") + header + rest)
