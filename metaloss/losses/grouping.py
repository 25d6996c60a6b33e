"""Many programs at once: steps of the same depth and function are one call over stacked inputs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.losses.language.expression import LOGP, Expression, P
from metaloss.losses.language.programs import Program, Run

WORTH = 8  # candidates from which on a GPU is better fed this way

Rows = slice | Tensor


@dataclass(frozen=True)
class GroupedSteps:
    """Where the values of many programs lie in one tensor of rows [T C B].

    Attributes:
        fixed: the rows after those of logp and p: inputs that do not depend on the logits.
        calls: a function, the rows of each of its arguments, and the rows that its results take.
        out: the rows of the programs' results.
        rows: how many rows there are.
    """

    fixed: Float[Tensor, "F T C B"]
    calls: list[tuple[Run, list[Rows], slice]]
    out: Rows
    rows: int


def group(
    programs: Sequence[Program], known: dict[Expression, Tensor], shape: torch.Size
) -> GroupedSteps:
    """Group the steps of these programs.

    Args:
        programs: one per candidate.
        known: what their inputs are, but for p and logp.
        shape: [T C B].
    """
    n = len(programs)
    # Rows: every candidate's logp, then every candidate's p, then what does not vary.
    used = {e: None for program in programs for e in program.inputs if not e.varies}
    place = {e: 2 * n + i for i, e in enumerate(used)}
    # What is called -> (program, place in its list).
    groups: dict[tuple[int, Run], list[tuple[int, int]]] = {}
    for i, program in enumerate(programs):
        depth = [0] * len(program.inputs)
        for run, args in program.steps:
            # Inputs have depth 0, and a step is one deeper than its deepest argument.
            depth.append(1 + max(depth[a] for a in args))
            groups.setdefault((depth[-1], run), []).append((i, len(depth) - 1))
    row = {
        (i, k): i if e == LOGP else n + i if e == P else place[e]
        for i, program in enumerate(programs)
        for k, e in enumerate(program.inputs)
    }
    # [F T C B]: a single number is expanded, because all rows of a call have one shape.
    fixed = torch.stack([known[e].expand(shape) for e in used]) if used else torch.empty(0, *shape)
    device = fixed.device
    first = 2 * n + len(used)
    calls: list[tuple[Run, list[Rows], slice]] = []
    # In order of depth alone: steps of one depth never read each other.
    for (_, run), members in sorted(groups.items(), key=lambda group: group[0][0]):
        places = [programs[i].steps[k - len(programs[i].inputs)][1] for i, k in members]
        columns = zip(*places, strict=True)
        stacked = [
            [row[i, a] for (i, _), a in zip(members, column, strict=True)] for column in columns
        ]
        calls.append((run, [_rows(x, device) for x in stacked], slice(first, first + len(members))))
        # Results of one call lie side by side, so that later calls often read them as a slice.
        row.update({member: first + j for j, member in enumerate(members)})
        first += len(members)
    out = _rows([row[i, program.out] for i, program in enumerate(programs)], device)
    return GroupedSteps(fixed, calls, out, first)


def _rows(places: list[int], device: torch.device) -> Rows:
    """As a view where they follow on each other."""
    first = places[0]
    # A slice reads memory in place; a tensor of indices would copy the rows first.
    if places == list(range(first, first + len(places))):
        return slice(first, first + len(places))
    return torch.tensor(places, device=device)


def run(
    steps: GroupedSteps, logp: Float[Tensor, "P T C B"], p: Float[Tensor, "P T C B"]
) -> Float[Tensor, "P T C B"]:
    """The programs' results, one row each."""
    n = len(logp)
    # One buffer for all: each call writes behind the results of the calls before it.
    values = logp.new_empty(steps.rows, *logp.shape[1:])
    values[:n], values[n : 2 * n], values[2 * n : 2 * n + len(steps.fixed)] = logp, p, steps.fixed
    for run, args, out in steps.calls:
        values[out] = run(*[values[x] for x in args])
    return values[steps.out]
