"""The command line: arguments, printing, exit codes. Nothing heavy is imported before a command
runs.

A new command is a function under `@click.command(cls=Command)` in the module of its kind, and a
line of COMMANDS.
"""

import atexit
import contextlib
import gc
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import click

from metaloss._version import __version__
from metaloss.cli import experiments, losses, machine, searches, studies, training
from metaloss.cli._terminal import Group, set_up, warn
from metaloss.errors import DataWarning, DiskError, MetalossError, out_of_memory

# In the manual's order; --help sorts them by name.
COMMANDS: tuple[click.Command, ...] = (
    searches.evolve,
    searches.eliminate,
    searches.refine,
    experiments.compare,
    experiments.recommend,
    experiments.reproduce,
    training.train,
    studies.study,
    losses.show,
    losses.export,
    losses.list_,
    machine.data,
    machine.doctor,
)

NO_MEMORY = (
    "memory ran out. It takes less with a smaller budget for trainings (--set memory=BYTES), with "
    "fewer tasks or candidates, and with fewer or smaller images; a run that had begun goes on "
    "with --resume"
)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="metaloss")
def cli() -> None:
    """Learn the loss function that a small data set needs."""


for command in COMMANDS:
    cli.add_command(command)


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; every error becomes one line on stderr and its exit code."""
    # Before anything is printed, so that no message fails for its characters.
    set_up()
    # Python looks for cycles among all objects once more as it ends, which takes seconds after
    # torch and Lightning; the system gets all memory back without that.
    atexit.register(gc.freeze)
    arguments = list(sys.argv[1:] if args is None else args)
    try:
        with _data_warnings_in_lines(), _warnings_echoed():
            # Not standalone: click would print its errors and end the process in its own way.
            code = cli.main(arguments, prog_name="metaloss", standalone_mode=False)
    # 128 and the number of SIGINT, as shells count.
    except click.exceptions.Abort:
        code = 130
    # Before ClickException, of which it is one: help that no one asked for, on stderr.
    except click.exceptions.NoArgsIsHelpError as error:
        warn(error.format_message())
        code = 2
    except click.ClickException as error:
        code = _complain(error.format_message(), 2)
    except KeyboardInterrupt:
        code = _complain("interrupted", 130)
    except MetalossError as error:
        code = _fail(error, str(error), error.exit_code, arguments)
    # Before OSError, of which it is one: a reader such as `head` has had enough.
    except BrokenPipeError:
        code = 1
    except OSError as error:  # what no one nearer to it has put into words
        text = f"{error.filename or 'a file'}: {error.strerror or error}"
        code = _fail(error, text, DiskError.exit_code, arguments)
    except Exception as error:
        text = f"{type(error).__name__}: {error}  (a bug of metaloss; --debug shows where)"
        code = _fail(error, text, 1, arguments)
    sys.exit(code if isinstance(code, int) else 0)


@contextlib.contextmanager
def _data_warnings_in_lines() -> Iterator[None]:
    """Print what is to be said of the data as a line on stderr, each text once."""
    printed: set[str] = set()

    def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, DataWarning):
            usual(message, category, *place, **more)
        elif str(message) not in printed:
            printed.add(str(message))
            warn(f"warning: {message}")

    with warnings.catch_warnings():
        # Also what Python has shown before; `show` leaves out the texts that repeat.
        warnings.simplefilter("always", DataWarning)
        usual = warnings.showwarning
        warnings.showwarning = show
        yield


def _fail(error: Exception, text: str, code: int, arguments: Sequence[str]) -> int:
    """Say in one line why a command ended; where memory ran out, what takes less of it."""
    if "--debug" in arguments:
        traceback.print_exc()
    return _complain(NO_MEMORY, 1) if out_of_memory(error) else _complain(text, code)


class _Echo(logging.Handler):
    """Says what the package's modules warn of, each in one line on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a warning."""
        click.echo(f"warning: {record.getMessage()}", err=True)


@contextlib.contextmanager
def _warnings_echoed() -> Iterator[None]:
    log = logging.getLogger("metaloss")
    echo = _Echo(logging.WARNING)
    log.addHandler(echo)
    # Not through the root logger as well, which could print a line twice.
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(echo)
        log.propagate = True


def _complain(text: str, code: int) -> int:
    warn(f"error: {text}")
    return code
