"""What commands share: how arguments are read, what a signal does, what is said of a name."""

import contextlib
import os
import re
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from metaloss.cli._terminal import Readable, note, warn
from metaloss.core import plugins
from metaloss.errors import Interrupted, SettingsError

# What begins with one minus and is no option: it names a probability, or has an operator, as a
# formula with a misspelt name does.
FORMULA = re.compile(r"-(?!-)(.*\b(p|logp)\b|\w*\(|[\w.]+\s*[*+/-]|\()", re.DOTALL)


class Command(Readable):
    """A command whose repeatable options take several values at once, `--tasks a b c`.

    A formula may begin with a minus.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat such an option before each of its values; put a space before such a formula."""
        # As it was typed, for the message that says how to go on.
        ctx.meta["line"] = f"{ctx.command_path} {shlex.join(args)}"
        # click takes what begins with a minus for an option; a space in front of it hides it.
        args = [f" {arg}" if FORMULA.match(arg) else arg for arg in args]
        many = {
            flag
            for p in self.params
            if isinstance(p, click.Option) and p.multiple
            for flag in p.opts
        }
        spread: list[str] = []
        flag = ""
        for arg in args:
            if arg.startswith("-"):
                flag = arg if arg in many else ""
            elif flag and spread[-1] != flag:
                spread.append(flag)
            spread.append(arg)
        return super().parse_args(ctx, spread)


@contextlib.contextmanager
def interruptible(
    console: Any, again: Callable[[], str] | None = None, how: str = "go on with"
) -> Iterator[Any]:
    """The first Ctrl-C or SIGTERM drops the chunk in hand and leaves a run that resumes; a second
    one exits at once.

    So does the first, where there is no run yet to leave. A signal that is ignored stays ignored.
    `again` gives the command that goes on, and `how` says what it does.
    """
    received: list[int] = []

    def handle(number: int, _frame: Any) -> None:
        if received or (console.folder is None and not console.unfinished):
            note("interrupted")
            # At once, whatever threads are doing; files are written whole or not at all.
            os._exit(128 + number)
        received.append(number)
        note("stopping after the chunk in hand; press again to stop at once")

    # A job that a shell runs in the background ignores SIGINT, and must go on doing so.
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    old = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: bool(received)
    except Interrupted:
        command = again() if again else f"metaloss evolve --resume {console.folder}"
        command += "" if "--plugins" in command else plugins.option()
        console.errors.print(f"interrupted; {how}: {command}", markup=False)
        raise click.exceptions.Exit(128 + received[0]) from None
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def given_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given: without the others the settings' defaults hold."""
    return {key: value for key, value in flags.items() if value not in (None, ())}


def announce(spec: str) -> None:
    """Say what a name means that is a published loss and a path."""
    from metaloss import storage
    from metaloss.criterion import loss_io

    if loss_io.named(spec) and storage.exists(Path(spec)):
        warn(f"'{spec}' is the loss of that name; ./{spec} means the path")


def seconds(text: str) -> float:
    """A time limit such as 30m in seconds; a bare number is seconds."""
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        limit = float(number) * units[unit]
    except ValueError:
        raise SettingsError(f"--time-limit takes a number and s, m or h, got '{text}'") from None
    # 0 is a limit: one generation, and its winner. NaN compares with nothing.
    if not limit >= 0:
        raise SettingsError(f"--time-limit takes a number from 0 on and s, m or h, got '{text}'")
    return limit
