"""What the benchmarks measure with.

Rates, medians, the machine's peak, memory, and how tables are printed.
"""

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch

CORES = (
    sorted(os.sched_getaffinity(0))
    if hasattr(os, "sched_getaffinity")
    else list(range(os.cpu_count() or 1))
)
SIZES = (512, 1024, 2048)  # of the square matrices whose product gives the peak


def rate(f: Callable[[], object], n: int, least: float) -> float:
    """How many of its `n` pieces `f` does per second, run as often as `least` seconds take."""
    began = time.perf_counter()
    calls = 0
    while not calls or time.perf_counter() - began < least:
        f()
        calls += 1
    return n * calls / (time.perf_counter() - began)


def threaded(threads: int, f: Callable[[], Any]) -> Any:
    """What `f` gives with so many threads of torch; the setting is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return f()
    finally:
        torch.set_num_threads(before)


def peak(least: float = 0.05) -> float:
    """The machine's matrix products in operations per second.

    The best size, of one on all cores or one on each.
    """
    return max(max(together(n, least), apart(n, least)) for n in SIZES)


def together(n: int, least: float) -> float:
    """One product at a time, with as many threads as cores."""
    a = torch.rand(n, n)
    b = torch.rand(n, n)
    return threaded(len(CORES), lambda: rate(lambda: torch.mm(a, b), 2 * n**3, least))


def apart(n: int, least: float) -> float:
    """A product of its own on every core, each on a single thread of torch."""
    before = torch.get_num_threads()

    def alone(_: int) -> float:
        a = torch.rand(n, n)
        b = torch.rand(n, n)
        return rate(lambda: torch.mm(a, b), 2 * n**3, least)

    with ThreadPoolExecutor(len(CORES), initializer=lambda: torch.set_num_threads(1)) as pool:
        speed = sum(pool.map(alone, CORES))
    torch.set_num_threads(before)
    return speed


def held_by(f: Callable[[], object]) -> int:
    """The most bytes that this process holds while `f` runs, looked at every few milliseconds."""
    done = Event()
    seen = [held()]

    def watch() -> None:
        while not done.wait(0.003):
            seen.append(held())

    watcher = Thread(target=watch)
    watcher.start()
    try:
        f()
    finally:
        done.set()
        watcher.join()
    return max(*seen, held())


def held() -> int:
    """The bytes of memory that this process holds.

    Where the system does not say, the most it ever held.
    """
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def median(x: Sequence[float]) -> float | None:
    """The median, None of nothing."""
    return statistics.median(x) if x else None


def quartiles(x: Sequence[float]) -> list[float]:
    """The first and the third, of one number itself twice."""
    return [*statistics.quantiles(x, n=4, method="inclusive")[::2]] if len(x) > 1 else [x[0], x[0]]


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent e of y ∝ xᵉ, by least squares in logarithms."""
    u, v = (torch.tensor(list(z), dtype=torch.float64).log() for z in (x, y))
    u = u - u.mean()
    return float((u * v).sum() / (u * u).sum())


def machine() -> str:
    """Processor, cores, versions and the day, in one line."""
    names = [line.split(":")[1].strip() for line in _cpu() if line.startswith("model name")]
    cpu = names[0] if names else platform.processor() or platform.machine()
    system = f"{cpu} ({torch.backends.cpu.get_cpu_capability()}), {len(CORES)} cores"
    python = platform.python_version()
    return f"{system}, Python {python}, torch {torch.__version__}, {date.today().isoformat()}"


def _cpu() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], markdown: bool = False) -> str:
    """Rows under a head, as Markdown or in columns of equal width."""
    cells = [list(head), *([cell(x) for x in row] for row in rows)]
    if markdown:
        lines = [f"| {' | '.join(row)} |" for row in cells]
        return "\n".join([lines[0], "|" + " --- |" * len(head), *lines[1:]])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(x.rjust(w) for x, w in zip(row, widths, strict=True)) for row in cells
    )


def cell(x: Any) -> str:
    """A value as it stands in a table: three digits, and a dash for what was not measured."""
    if x is None:
        return "–"
    if not isinstance(x, float):
        return str(x)
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"
