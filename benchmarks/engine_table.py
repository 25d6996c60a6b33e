"""How the rows of `engine.py` are printed."""

from typing import Any

from timing import machine

RIVALS = ("sequential", "vmap", "jax", "loops")  # in the order of their columns

HEAD = (
    "classifier",
    "loss",
    "optimiser",
    "shots",
    "steps",
    "P × T",
    "ours [1/s]",
    "quartiles",
    "loop",
    "×",
    "vmap",
    "×",
    "JAX",
    "×",
    "loop per core",
    "×",
    "of peak",
    "of CE",
    "of MLN",
    "GiB",
)


def cells(row: dict[str, Any]) -> list[Any]:
    """A row as it is printed."""
    return [
        row["classifier"],
        row["loss"],
        row["optimiser"],
        row["shots"],
        row["steps"],
        f"{row['candidates']} × {row['tasks']}",
        row["trainings_per_second"],
        "–".join(f"{x:.0f}" for x in row["quartiles"]),
        *[row[key] for name in RIVALS for key in (name, f"ratio_to_{name}")],
        *[
            x if x is None else f"{x:.0%}"
            for x in (row["peak_share"], row["share_of_ce"], row["share_of_mln"])
        ],
        row["peak_memory"],
    ]


def caption(rows: list[dict[str, Any]]) -> str:
    """The machine, the day, and what the rows were measured against."""
    highest = max(row["peak"] for row in rows) / 1e9
    repeats = rows[0]["repeats"]
    return f"{machine()}; matrix products at up to {highest:.0f} GFLOP/s; medians of {repeats}"
