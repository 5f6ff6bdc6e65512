"""What every step's entry does around its work: set up logging and report a user's mistake as one sentence."""

import faulthandler
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from components.ncf.errors import InputError

# Whoever runs a step in another process finds the step's own error behind this mark.
ERROR_MARK = "error: "


@contextmanager
def running_step(name: str) -> Iterator[None]:
    """Logs to standard error while the block runs; an `InputError` ends the process with status 1.

    Args:
        name: The step's name, which starts each line.
    """
    # A crash in a library has no last words otherwise.
    faulthandler.enable(sys.__stderr__ or 2)
    # Only this project's logger: what libraries log is theirs, and must not look like the step's own words.
    logger = logging.getLogger("components")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{name}: %(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    except InputError as error:
        sys.stderr.write(f"{ERROR_MARK}{error}\n")
        sys.stderr.flush()
        sys.exit(1)


@contextmanager
def quiet_standard_error() -> Iterator[None]:
    """Drops what is written to standard error's file descriptor while the block runs.

    TensorFlow's library writes there while it is imported, before any setting of it is read. A Python exception
    leaves the block and is printed afterwards.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(nowhere)
        os.close(saved)
