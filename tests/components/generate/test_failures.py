import errno
from collections.abc import Iterator

import pytest

from components.generate.failures import CarriedError, carried_failure, carrying_failures
from components.ncf.errors import InputError


def leave_worker(error: Exception) -> CarriedError:
    """Returns what leaves a decorated process method that raises `error` after its first element."""

    @carrying_failures
    def process(element: int) -> Iterator[int]:
        yield element
        raise error

    elements = process(3)
    assert next(elements) == 3
    with pytest.raises(CarriedError) as raised:
        next(elements)
    return raised.value


@pytest.mark.parametrize(
    "decorate",
    [
        lambda text: RuntimeError(text),
        lambda text: RuntimeError(f"Traceback (most recent call last):\n  ...\n{text} [while running 'Read it']\n"),
        lambda text: ValueError(repr(text), 3),
    ],
    ids=["other_type", "traceback_and_step", "quoted"],
)
def test_a_mistake_survives_as_text(decorate: object) -> None:
    assert callable(decorate)
    sentence = "Parameter 'ä' is \"wrong\":\nmend it."
    found = carried_failure(decorate(str(leave_worker(InputError(sentence)))))
    assert isinstance(found, InputError)
    assert str(found) == sentence


def test_an_operating_system_error_keeps_its_number_and_file() -> None:
    found = carried_failure(RuntimeError(str(leave_worker(OSError(errno.ENOSPC, "No space left", "/data/x")))))
    assert isinstance(found, OSError)
    assert (found.errno, found.strerror, found.filename) == (errno.ENOSPC, "No space left", "/data/x")


def test_a_mistake_is_found_among_the_causes() -> None:
    error = RuntimeError("the job failed")
    error.__cause__ = ValueError("a bundle failed")
    error.__cause__.__context__ = leave_worker(InputError("mend it"))
    assert str(carried_failure(error)) == "mend it"


def test_other_errors_carry_nothing() -> None:
    assert carried_failure(RuntimeError("division by zero")) is None
