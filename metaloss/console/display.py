"""How lines and bars are shown: on a terminal, in a notebook, in a file or a pipe."""

from collections.abc import Iterable
from typing import Any, Self

from rich.console import Console as Terminal

from metaloss.console.progress_bars import NotebookBar, Spinner, TerminalBar
from metaloss.core.event_protocols import ActorCounts
from metaloss.core.formatting import counted
from metaloss.core.reporting import Reporter
from metaloss.core.tables import wrap


class Display(Reporter):
    """Prints plain lines, and a bar below them where the display is entered or a notebook shows it.

    Args:
        quiet: print nothing but warnings.
        brief: of everything but warnings and bars only what begins, for a command that prints its
            own result.
    """

    def __init__(self, quiet: bool = False, brief: bool = False) -> None:
        self.brief = brief
        # Plain lines in a notebook too: there rich would make each of them a block of its own.
        plain: dict[str, Any] = {
            "highlight": False,
            "soft_wrap": True,
            "emoji": False,
            "force_jupyter": False,
        }
        self.terminal = Terminal(quiet=quiet, **plain)
        self.errors = Terminal(stderr=True, **plain)
        # A bar that no one takes down when an error comes would spoil the terminal.
        self.entered = False
        self.notebook = Terminal().is_jupyter
        self.bar: TerminalBar | NotebookBar | Spinner | None = None

    def __enter__(self) -> Self:
        self.entered = True
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_bar()

    @property
    def width(self) -> int | None:
        """Of the terminal; None where lines go into a file, a pipe or a notebook."""
        return self.terminal.width if self.terminal.is_terminal and not self.notebook else None

    def on_work(self, what: str, plain: bool = True) -> None:
        """Say what begins and may take long: by a moving line on a terminal, else a plain one."""
        self._stop_bar()
        if self.terminal.quiet:
            return
        if self.entered and self.width is not None:
            self.bar = Spinner(self.terminal, f"{what} …")
        elif plain:
            self._print(f"        {what} …")

    def say(self, text: str) -> None:
        """A plain line; names from files are never markup."""
        if not self.brief:
            self._print(text)

    def _say_all(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.say(line)

    def _print(self, text: str) -> None:
        self.terminal.print(wrap(text, self.width), markup=False)

    def _start_bar(self, on_terminal: str, in_notebook: str, total: int) -> None:
        self._stop_bar()
        if self.terminal.quiet:
            return
        if self.notebook:
            self.bar = NotebookBar(in_notebook, total)
        elif self.entered and self.terminal.is_terminal:
            self.bar = TerminalBar(self.terminal, on_terminal, total)

    def _stop_bar(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None

    def on_warning(self, text: str) -> None:
        """A line on stderr."""
        self.errors.print(f"warning: {text}", markup=False)

    def on_actors(self, counts: ActorCounts) -> None:
        """How the actors fare, behind the bar."""
        if self.bar:
            again = f", {counts.resent} sent again" if counts.resent else ""
            flight = f"{counted(counts.in_flight, 'chunk')} in flight"
            self.bar.remark(f"{counted(counts.alive, 'actor')}, {flight}{again}")

    def on_progress(self, work: int) -> None:
        """Move the bar by this many steps of training."""
        if self.bar:
            self.bar.advance(work)
