"""One of Beam's worker processes on this machine, which ends with the process that started it.

The in-memory runner starts `python -m components.generate.local_worker PID` for each worker. Beam's own worker would
wait for ever for a process that was killed.
"""

import os
import sys
import threading
import time

from apache_beam.runners.worker import sdk_worker_main

from components.generate.allocator import return_free_memory

_SECONDS_BETWEEN_LOOKS = 0.5


def main() -> None:
    """Runs a worker until it is told to end, or until the process whose id is the one argument is gone."""
    threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    return_free_memory()
    sdk_worker_main.main([])


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)


if __name__ == "__main__":
    main()
