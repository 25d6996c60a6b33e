"""A candidate that raises an error fails alone: its neighbours keep their results, bit for bit."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.errors import Interrupted, out_of_memory
from metaloss.losses.base import Losses


def isolated(
    run: Callable[[Losses], Float[Tensor, "M P T ..."]], losses: Losses
) -> Float[Tensor, "M P T ..."]:
    """What `run` gives for the losses; NaN for one that raises an error.

    Its neighbours get what they get without it.

    Args:
        run: trains losses and looks at their classifiers.
        losses: some candidates.

    Raises:
        Exception: what the losses raise, where every one of them does.
    """
    try:
        return run(losses)
    except Interrupted:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        bad = [not _runs(run, losses[p : p + 1]) for p in range(len(losses))]
        if all(bad):
            raise
        # A bad loss's place is taken by a good one, so that all others keep theirs, and with it
        # their rounding.
        good = bad.index(False)
        scores = run(losses[torch.tensor([good if b else p for p, b in enumerate(bad)])])
        scores[:, torch.tensor(bad)] = torch.nan
        return scores


def _runs(run: Callable[[Losses], Any], losses: Losses) -> bool:
    """Whether these losses train without an error; running out of memory is nobody's fault."""
    try:
        run(losses)
    except Interrupted:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        return False
    return True


def raise_if_all_failed(parts: Sequence[Tensor | Exception]) -> None:
    """Raise the first error where every part is one: that is a bug, and NaN would hide it."""
    if all(isinstance(part, Exception) for part in parts):
        raise parts[0]  # type: ignore[misc]


def result_or_error(part: Callable[[], Tensor]) -> Tensor | Exception:
    """What a chunk shows, on the CPU, or the exception that it raised, save lack of memory."""
    try:
        return part().cpu()
    except Interrupted:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        return error
