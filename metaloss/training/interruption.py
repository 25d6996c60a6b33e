"""Ctrl-C while networks train."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from metaloss.errors import Interrupted
from metaloss.training.session import TrainingSession


@contextlib.contextmanager
def resumable(session: TrainingSession, again: str) -> Iterator[None]:
    """Let Ctrl-C stop after the step in hand, unless someone else listens to it; Lightning would
    end the process.

    `again` is the call that goes on.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    asked = session.stop
    pressed = list[int]()

    def handle(number: int, _frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    session.stop = lambda: bool(pressed) or asked()
    signal.signal(signal.SIGINT, handle)
    try:
        yield
    except Interrupted:
        if not pressed:
            raise
        raise KeyboardInterrupt(f"stopped; {again} goes on") from None
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
