"""How far a run is: Beam counters, and a line in the log every few seconds."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from apache_beam.metrics import Metrics

COUNTERS = "generate"

_LOG = logging.getLogger(__name__)

# What was counted by workers that are threads of this process.
_counted: Counter[str] = Counter()
_lock = threading.Lock()


def count(name: str, amount: int) -> None:
    """Adds to the Beam counter of that name; called by workers."""
    Metrics.counter(COUNTERS, name).inc(amount)
    with _lock:
        _counted[name] += amount


def counted_here() -> dict[str, int]:
    """Returns what the workers in this process counted since `logging_progress` began."""
    with _lock:
        return dict(_counted)


@contextmanager
def logging_progress(
    totals: Mapping[str, int], read_counters: Callable[[], Mapping[str, int]], interval_seconds: float
) -> Iterator[None]:
    """Logs the counters every so often while the block runs, those that have changed since the last line.

    Args:
        totals: What a counter will reach, where that is known.
        read_counters: Returns the counters so far; it may fail, and then there is no line.
        interval_seconds: Between two lines.
    """
    with _lock:
        _counted.clear()
    is_over = threading.Event()

    def report() -> None:
        started, shown = time.monotonic(), dict[str, int]()
        while not is_over.wait(interval_seconds):
            try:
                counters = dict(read_counters())
            except Exception as error:  # noqa: BLE001 - whatever the runner's service says, the run goes on
                _LOG.debug("no counters: %s", error)
                continue
            changed = {name: value for name, value in counters.items() if value != shown.get(name, 0)}
            if changed:
                _LOG.info("%.0f s: %s", time.monotonic() - started, describe(changed, totals))
                shown = counters

    thread = threading.Thread(target=report, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def describe(counters: Mapping[str, int], totals: Mapping[str, int]) -> str:
    """Puts counters into words, in the order of their names."""
    return ", ".join(
        f"{value:,} of {totals[name]:,} {_words(name)}" if name in totals else f"{value:,} {_words(name)}"
        for name, value in sorted(counters.items())
    )


def _words(name: str) -> str:
    return name.replace("_", " ")
