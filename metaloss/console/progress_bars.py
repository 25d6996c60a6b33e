"""Bars of progress.

On a terminal a bar disappears when the work is done; in a notebook it stays in the output.
"""

import threading
import time
from typing import Any

from rich.console import Console as Terminal
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from metaloss.core.formatting import clock

PERIOD = 0.5  # seconds between two looks of a notebook's bar


class TerminalBar:
    """A bar under the lines that a terminal shows; whoever makes it must take it down.

    Args:
        terminal: where it is shown.
        text: what it says, of `task.completed`, `task.total` and `task.percentage`.
        total: how much work there is.
    """

    def __init__(self, terminal: Terminal, text: str, total: int) -> None:
        columns = (
            SpinnerColumn("line"),
            TextColumn(text),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        self.total = total
        self.progress = Progress(*columns, console=terminal, transient=True)
        self.job = self.progress.add_task("", total=total, note="")
        self.progress.start()

    def remark(self, text: str) -> None:
        """A few words behind the bar."""
        self.progress.update(self.job, note=text)

    def reach(self, done: int) -> None:
        """So much is done."""
        self.progress.update(self.job, completed=done)

    def advance(self, work: int) -> None:
        """So much more is done."""
        self.progress.advance(self.job, work)

    def stop(self) -> None:
        """Take it down."""
        self.progress.stop()


class Spinner:
    """A moving line of work whose length is not known; whoever makes it must take it down."""

    total = 0

    def __init__(self, terminal: Terminal, text: str) -> None:
        self.progress = Progress(
            SpinnerColumn("line"),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=terminal,
            transient=True,
        )
        self.text = text
        self.job = self.progress.add_task(text, total=None)
        self.progress.start()

    def remark(self, text: str) -> None:
        """A few words behind the line."""
        self.progress.update(self.job, description=f"{self.text}  {text}".rstrip())

    def reach(self, done: int) -> None:
        """Nothing to show."""

    def advance(self, work: int) -> None:
        """Nothing to show."""

    def stop(self) -> None:
        """Take it down."""
        self.progress.stop()


class NotebookBar:
    """A bar in the output of a notebook's cell, as HTML and as text.

    Args:
        text: what it says, of `done`, `total` and `share`.
        total: how much work there is.
    """

    def __init__(self, text: str, total: int) -> None:
        from IPython.display import display

        self.text = text
        self.total = total
        self.done = 0
        # What was done when it was first told so, and the time.
        self.first: tuple[int, float] | None = None
        self.running, self.shown, self.lock = True, 0.0, threading.Lock()
        self.note = ""
        self.handle: Any = display(self, display_id=True)

    def remark(self, text: str) -> None:
        """A few words behind the bar, shown with its next movement."""
        self.note = text

    def reach(self, done: int) -> None:
        """So much is done."""
        self.advance(done - self.done)

    def advance(self, work: int) -> None:
        """So much more is done; may be said by any thread."""
        with self.lock:
            self.done += work
            # What comes before the first piece of work is done says nothing of how long the others
            # take.
            self.first = self.first or (self.done, time.monotonic())
        if time.monotonic() - self.shown >= PERIOD:
            self.shown = time.monotonic()
            self.handle.update(self)

    def stop(self) -> None:
        """Leave it as it stands."""
        self.running = False
        self.handle.update(self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        done = min(self.done, self.total)
        text = self.text.format(done=done, total=self.total, share=done / self.total)
        if self.running and self.first and done > self.first[0]:
            each = (time.monotonic() - self.first[1]) / (done - self.first[0])
            text += f", {clock(each * (self.total - done))} left"
        if self.running and self.note:
            text += f"  {self.note}"
        bar = f'<progress value="{done}" max="{self.total}" style="width: 20em"></progress>'
        return {"text/plain": text, "text/html": f"{bar} {text}"}
