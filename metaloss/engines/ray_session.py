"""Ray, reached or started: which cluster there is, and what of it must be put away again."""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from metaloss.core import installation
from metaloss.core.formatting import counted
from metaloss.engines.threads import cores
from metaloss.errors import SettingsError

LOOPBACK = "127.0.0.1"
KNOCK = 5.0  # seconds that a cluster may take to accept a connection
# Read by Ray when it is imported or started. Workers of a Ray that is started here are no politer
# than the process that asks: at Ray's usual niceness of 15 they stand still beside other work.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


def imported() -> Any:  # a module, of which there are no types where it is not installed
    """The package.

    Raises:
        SettingsError: it is not installed.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise SettingsError(
            f"engine 'ray' needs Ray ({error}): {installation.command('ray')}"
        ) from None
    logging.getLogger("ray").setLevel(logging.ERROR)  # or it tells of its defaults at every start
    return ray


class Session:
    """A connection to a cluster, closed as it was found.

    Args:
        address: "local", "auto" or HOST:PORT.
        actors: how many a Ray that is started here must have room for; 0: one for each core.

    Attributes:
        ray: the package.
        started: whether the cluster was started here.

    Raises:
        SettingsError: there is no such cluster, or no Ray.
    """

    def __init__(self, address: str, actors: int = 0) -> None:
        self.ray = imported()
        self.started = False
        self._connected = False
        if self.ray.is_initialized():  # by whoever calls; it is theirs to close
            return
        self._unmute = _muted()
        try:
            with _signals_kept():
                if address == "local":
                    self._start(actors or cores())
                else:
                    self._join(address)
        except BaseException:
            self._unmute()
            raise
        self._connected = True

    def _start(self, actors: int) -> None:
        with _on_loopback():
            self.ray.init(
                "local",
                num_cpus=actors,
                include_dashboard=False,
                _node_ip_address=LOOPBACK,
                **_QUIET,
            )
        self.started = True

    def _join(self, address: str) -> None:
        try:
            with _listening(address):
                self.ray.init(address, **_QUIET)
        except Exception as error:
            which = "on this machine" if address == "auto" else f"at {address}"
            raise SettingsError(
                f"no Ray cluster {which}: {_reason(error)}  (ray start --head begins one; without "
                "--address one is started on this machine)"
            ) from None

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._connected:
            self._connected = False
            with _signals_kept():
                self.ray.shutdown()
            self._unmute()

    @property
    def resources(self) -> dict[str, float]:
        """What all of the cluster's machines have together."""
        return dict(self.ray.cluster_resources())

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """The machines that are alive, as Ray describes them."""
        return [node for node in self.ray.nodes() if node["Alive"]]

    @property
    def machines(self) -> int:
        """How many are alive."""
        return len(self.nodes)

    def elsewhere(self, nodes: Sequence[dict[str, Any]]) -> Any:
        """Ray's word for any machine but these, of which there is one at least."""
        from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

        names = [node["NodeID"] for node in nodes]
        # Versions of Ray spell the label of a node's name in two ways.
        label = next(key for key, name in nodes[0]["Labels"].items() if name == names[0])
        return NodeLabelSchedulingStrategy(hard={label: NotIn(*names)})


_QUIET: dict[str, Any] = {
    "logging_level": logging.ERROR,
    "configure_logging": False,
    "log_to_driver": False,
}


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself, which the command line hears."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _muted() -> Callable[[], None]:
    """Keep Ray from printing what it hears of its processes; gives what lets it do so again.

    It tells of every lost worker on stdout, where `--json` stands, and what is lost is sent again.
    """
    from ray._private import worker

    name = "print_to_stdstream"
    printing = getattr(worker, name, None)
    if printing is None:
        return lambda: None
    setattr(worker, name, lambda *_, **__: None)
    return lambda: setattr(worker, name, printing)


@contextlib.contextmanager
def _listening(address: str) -> Iterator[None]:
    """Ray connects to this address within the block, where somebody listens there.

    Ray itself would knock for many minutes where nobody does, as after a cluster has crashed. It
    takes 127.0.0.1 for the address that other machines reach this one by; where that is silent,
    it is left as it stands.

    Raises:
        OSError: nobody listens.
        ValueError: it is no address.
    """
    from ray._private import services

    find = getattr(services, "canonicalize_bootstrap_address", lambda found: found)
    with contextlib.ExitStack() as stack:
        if not _accepts(outer := find(address)):
            stack.enter_context(_on_loopback())
            inner = find(address)
            if inner == outer or not _accepts(inner):
                raise ConnectionError(f"nobody listens at {inner}")
        yield


def _accepts(place: str | None) -> bool:
    """Whether somebody listens at HOST:PORT; True where Ray alone knows what is meant."""
    host, _, port = (place or "").rpartition(":")
    if not host or not port.isdigit():
        return True
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), KNOCK):
        return True
    return False


def _reason(error: Exception) -> str:
    """Why a cluster could not be joined, in one line."""
    if "AuthenticationError" in str(error.__cause__):
        return (
            "it asks for its token, which Ray sends to an address that is named only with "
            "RAY_AUTH_MODE=token in the environment"
        )
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray that is started within the block is heard on this machine alone.

    Ray takes 127.0.0.1 for a request to find an address that other machines can reach, and has no
    setting that says otherwise; where the function that finds it is not there any more, it does so.
    """
    from ray._private import services

    name = "resolve_ip_for_localhost"
    found = getattr(services, name, None)
    if found is None:
        yield
        return
    setattr(services, name, lambda host: host)
    try:
        yield
    finally:
        setattr(services, name, found)


def cluster_in_words() -> str:
    """The cluster that this machine belongs to.

    Raises:
        SettingsError: no Ray, or none is running.
    """
    session = Session("auto")
    try:
        found = session.resources
        cpus, gpus = int(found.get("CPU", 0)), int(found.get("GPU", 0))
        return (
            f"{counted(session.machines, 'machine')}, {counted(cpus, 'core')}, "
            f"{counted(gpus, 'GPU')}"
        )
    finally:
        session.close()
