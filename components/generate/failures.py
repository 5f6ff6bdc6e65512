"""Carries a mistake or a full disk out of a Beam worker, so that the caller sees it as the one sentence it was.

A runner hands on a worker's exception as text, decorated with the step's name and a traceback, and often as another
type. The text therefore carries what is needed to raise the original again.
"""

import functools
import json
import logging
import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, TextIO, cast

from components.ncf.errors import InputError

_MARK = "neumf-failure:"
_MARKED = re.compile(re.escape(_MARK) + r"([A-Za-z0-9+/=]+):")
# Beam logs every exception with its traceback here before it raises it; a marked one is reported by the caller.
# The portable runner hands on the engine's words on the root logger.
_BEAM_LOGGERS = ("", "apache_beam.runners.common", "apache_beam.runners.worker.sdk_worker")


class CarriedError(Exception):
    """An `InputError` or `OSError` on its way through Beam, packed into the message."""


def carrying_failures(process: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Decorates a `DoFn.process` generator: what the user can mend leaves it as a `CarriedError`."""

    @functools.wraps(process)
    def wrapped(*args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from process(*args, **kwargs)
        except InputError as error:
            raise CarriedError(_pack({"text": str(error)})) from error
        except OSError as error:
            raise CarriedError(
                _pack(
                    {"errno": error.errno, "text": error.strerror or str(error), "filename": str(error.filename or "")}
                )
            ) from error

    return wrapped


def carried_failure(error: BaseException) -> InputError | OSError | None:
    """Finds the failure that a runner's exception carries, in its text or in those it was raised from."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if found := _MARKED.search(str(link)):
            content = json.loads(b64decode(found[1]))
            if "errno" in content:
                return OSError(content["errno"], content["text"], content["filename"] or None)
            return InputError(content["text"])
        link = link.__cause__ or link.__context__
    return None


@contextmanager
def quiet_beam() -> Iterator[None]:
    """Keeps Beam's progress notes, and tracebacks of carried failures, off the log and standard error meanwhile."""
    beam = logging.getLogger("apache_beam")
    level = beam.level
    beam.setLevel(max(level, logging.WARNING))
    for name in _BEAM_LOGGERS:
        logging.getLogger(name).addFilter(_is_worth_logging)
    try:
        with redirect_stderr(cast(TextIO, _WithoutMarked(sys.stderr))):
            yield
    finally:
        beam.setLevel(level)
        for name in _BEAM_LOGGERS:
            logging.getLogger(name).removeFilter(_is_worth_logging)


class _WithoutMarked:
    """Standard error without the tracebacks of carried failures: Beam's worker threads print them there."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_dropping = False

    def write(self, text: str) -> int:
        # `print` writes the end of the line by itself.
        self._is_dropping = _MARK in text or (self._is_dropping and text == "\n")
        if not self._is_dropping:
            self._stream.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_worth_logging(record: logging.LogRecord) -> bool:
    return _MARK not in record.getMessage()


def _pack(content: dict[str, Any]) -> str:
    # Base64, because a message may be wrapped, quoted or escaped on its way.
    return f"{_MARK}{b64encode(json.dumps(content).encode()).decode()}: {content['text']}"
