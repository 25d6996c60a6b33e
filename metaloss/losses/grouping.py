"""Many programs at once: steps of the same depth and function are one call over stacked inputs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.losses.language.expression import LOGP, PAST, Expression, P
from metaloss.losses.language.programs import Program, Run

WORTH = 8  # candidates from which on a GPU is better fed this way

Rows = slice | Tensor


@dataclass(frozen=True)
class GroupedSteps:
    """Where the values of many programs lie in one tensor of rows [T C B].

    Attributes:
        inputs: the rows after those of logp, p and past: what no output changes.
        calls: a function, the rows of each of its arguments, and the rows that its results take.
        out: the rows of the programs' results.
        rows: how many rows there are.
        reads_past: whether a program is given past.
    """

    inputs: list[Expression]
    calls: list[tuple[Run, list[Rows], slice]]
    out: Rows
    rows: int
    reads_past: bool = False

    def stacked(
        self, known: dict[Expression, Tensor], like: Float[Tensor, "... T C B"]
    ) -> Float[Tensor, "F T C B"]:
        """The inputs, of which a single number is expanded: all rows of a call have one shape."""
        shape = like.shape[-3:]
        rows = [known[e].expand(shape) for e in self.inputs]
        return torch.stack(rows) if rows else like.new_empty(0, *shape)


def group(programs: Sequence[Program], device: torch.device) -> GroupedSteps:
    """Group the steps of these programs, one per candidate."""
    n = len(programs)
    # Rows: every candidate's logp, every candidate's p, where one reads it every candidate's past,
    # then what no output changes.
    inputs = {e: None for program in programs for e in program.inputs}
    of_candidates = (LOGP, P, *((PAST,) if PAST in inputs else ()))
    used = [e for e in inputs if not e.reads_outputs]
    begin = len(of_candidates) * n
    place = {e: begin + i for i, e in enumerate(used)}
    # What is called -> (program, place in its list).
    groups: dict[tuple[int, Run], list[tuple[int, int]]] = {}
    for i, program in enumerate(programs):
        depth = [0] * len(program.inputs)
        for run, args in program.steps:
            # Inputs have depth 0, and a step is one deeper than its deepest argument.
            depth.append(1 + max(depth[a] for a in args))
            groups.setdefault((depth[-1], run), []).append((i, len(depth) - 1))
    row = {
        (i, k): place[e] if e in place else of_candidates.index(e) * n + i
        for i, program in enumerate(programs)
        for k, e in enumerate(program.inputs)
    }
    first = begin + len(used)
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
    return GroupedSteps(used, calls, out, first, PAST in of_candidates)


def _rows(places: list[int], device: torch.device) -> Rows:
    """As a view where they follow on each other."""
    first = places[0]
    # A slice reads memory in place; a tensor of indices would copy the rows first.
    if places == list(range(first, first + len(places))):
        return slice(first, first + len(places))
    return torch.tensor(places, device=device)


def run(
    steps: GroupedSteps,
    fixed: Float[Tensor, "F T C B"],
    outputs: Sequence[Float[Tensor, "P T C B"]],
) -> Float[Tensor, "P T C B"]:
    """The programs' results, one row each.

    Args:
        steps: of the programs.
        fixed: what `stacked` gave.
        outputs: logp, p and, where the steps read it, past.
    """
    # One buffer for all: each call writes behind the results of the calls before it.
    values = fixed.new_empty(steps.rows, *fixed.shape[1:])
    first = 0
    for x in (*outputs, fixed):
        values[first : first + len(x)] = x
        first += len(x)
    for run, args, out in steps.calls:
        values[out] = run(*[values[x] for x in args])
    return values[steps.out]
