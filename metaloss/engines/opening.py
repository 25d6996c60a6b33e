"""The one place where engines are made."""

from collections.abc import Callable

import torch

from metaloss.core.reporting import Reporter
from metaloss.engines.chunked import MEMORY, ChunkedEngine
from metaloss.engines.local import Local
from metaloss.engines.settings import EngineTable, engine_settings

__all__ = ["EngineTable", "open_engine"]


def open_engine(
    table: EngineTable,
    device: torch.device,
    memory: int = MEMORY,
    *,
    tf32: bool = False,
    stop: Callable[[], bool] = lambda: False,
    reporter: Reporter | None = None,
) -> ChunkedEngine:
    """The engine that settings mean, to be closed by whoever opens it.

    Args:
        table: its kind, or a table of `EngineSettings`; this process where None.
        device: where trainings run.
        memory: bytes that a machine's trainings may take.
        tf32: let a GPU multiply with mantissas of 10 bits instead of 23.
        stop: asked before every chunk of work.
        reporter: is told of the actors.

    Raises:
        SettingsError: settings that cannot be, or what they ask for is not there.
    """
    chosen = engine_settings(table)
    if chosen.kind == "local":
        return Local(device, memory, tf32=tf32, stop=stop)
    from metaloss.engines.ray import Ray

    return Ray(
        device,
        memory,
        tf32=tf32,
        stop=stop,
        settings=chosen,
        reporter=reporter or Reporter(),
    )
