"""The times of a schedule, checked as the schedulers of both backends read them.

Kubeflow reads them with version 1 of the Go package robfig/cron, whose grammar this is; Vertex AI documents "cron" and
time zones. What only some schedulers know, such as 7 for Sundays, L, W and #, is refused.
"""

import zoneinfo
from dataclasses import dataclass

from components.ncf.errors import InputError

_TIME_ZONES = ("TZ=", "CRON_TZ=")
_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True)
class _Field:
    """One field: what it is called, its first and last number, and names that stand for the numbers from the first."""

    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()


_SECOND = _Field("second", 0, 59)
_DAY = _Field("day", 1, 31)
_MONTH = _Field("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"))
_WEEKDAY = _Field("weekday", 0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat"))
_FIELDS = (_Field("minute", 0, 59), _Field("hour", 0, 23), _DAY, _MONTH, _WEEKDAY)


def check_cron(cron: str, backend: str) -> None:
    """Checks a schedule's expression.

    Args:
        cron: The expression: five fields, for Vertex with a time zone before them, for Kubeflow with seconds if wanted.
        backend: "vertex" or "kfp".

    Raises:
        InputError: The backend could not read it, or it would never come true.
    """
    texts = cron.split()
    if texts and texts[0].startswith(_TIME_ZONES):
        _check_time_zone(cron, texts.pop(0).partition("=")[2], backend)
    fields = (_SECOND, *_FIELDS) if backend == "kfp" and len(texts) > len(_FIELDS) else _FIELDS
    if len(texts) != len(fields):
        raise InputError(
            f"--schedule {cron!r} must be five fields (minute, hour, day, month, weekday), as '0 3 * * 1' for Mondays "
            f"at 3:00 UTC; {'a sixth, the second, may stand' if backend == 'kfp' else 'TZ=Europe/Paris'} before them"
            f"{'' if backend == 'kfp' else ' sets the time zone'}."
        )
    try:
        numbers = {field: _numbers(field, text) for field, text in zip(fields, texts, strict=True)}
    except ValueError as problem:
        raise InputError(f"--schedule {cron!r}: {problem}.") from None
    # With a weekday beside it, a day need not come: either of them is enough.
    is_any_weekday = len(numbers[_WEEKDAY]) == len(_WEEKDAY.names)
    if is_any_weekday and min(numbers[_DAY]) > max(_LONGEST_MONTHS[month - 1] for month in numbers[_MONTH]):
        raise InputError(f"--schedule {cron!r} never comes: no such month has a day {min(numbers[_DAY])}.")


def with_seconds(cron: str) -> str:
    """Returns an expression as Kubeflow reads it, which takes the first of five fields for the second."""
    return f"0 {cron}" if len(cron.split()) == len(_FIELDS) else cron


def without_seconds(cron: str) -> str:
    """Returns an expression of Kubeflow without a sixth field that says the second 0."""
    return cron.removeprefix("0 ") if len(cron.split()) > len(_FIELDS) else cron


def _check_time_zone(cron: str, zone: str, backend: str) -> None:
    if backend == "kfp":
        raise InputError(f"--schedule {cron!r}: Kubeflow runs by its own clock: leave the time zone out.")
    if zone not in zoneinfo.available_timezones():
        raise InputError(f"--schedule {cron!r}: {zone!r} is no time zone: give one as Europe/Paris.")


def _numbers(field: _Field, text: str) -> set[int]:
    """Returns the numbers that a field stands for, as "1,5-9/2" for 1, 5, 7 and 9.

    Raises:
        ValueError: It cannot be read; with a sentence.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        first, hyphen, last = span.partition("-")
        if span in ("*", "?"):
            start, end = field.first, field.last
        else:
            start = _number(field, first)
            # "5/15" goes on to the end.
            end = _number(field, last) if hyphen else field.last if slash else start
        if start > end:
            raise ValueError(f"the {field.name}s {span} end before they begin: give two ranges, with a comma")
        if slash and not (step.isascii() and step.isdecimal() and int(step)):
            raise ValueError(f"the step {step!r} of the {field.name}s must be a whole number of at least 1")
        numbers.update(range(start, end + 1, int(step) if slash else 1))
    return numbers


def _number(field: _Field, text: str) -> int:
    if text.lower() in field.names:
        return field.first + field.names.index(text.lower())
    names = f", or {field.names[0].upper()} to {field.names[-1].upper()}" if field.names else ""
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"the {field.name} {text!r} must be a number from {field.first} to {field.last}{names}")
    number = int(text)
    if not field.first <= number <= field.last:
        sunday = "; Sunday is 0" if field is _WEEKDAY else ""
        raise ValueError(f"the {field.name} {number} is outside {field.first} to {field.last}{sunday}")
    return number
