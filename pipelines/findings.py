"""What a check before a run has to say."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from components.ncf.errors import InputError

SEVERITIES = ("error", "warning", "not checked")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be.

    Attributes:
        severity: "error" for what would fail, "warning" for what may, or costs, "not checked" for what nothing is known
            of.
        subject: What it is about, in a word or two.
        message: One sentence that says what to change.
    """

    severity: str
    subject: str
    message: str


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Returns them with what would fail first, what was not checked last."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def error(subject: str, message: str) -> Finding:
    """Returns what would fail."""
    return Finding("error", subject, message)


def warning(subject: str, message: str) -> Finding:
    """Returns what may fail, or costs for nothing."""
    return Finding("warning", subject, message)


def unchecked(subject: str, message: str) -> Finding:
    """Returns what was not looked at, and why."""
    return Finding("not checked", subject, message)


class Mistakes:
    """What is wrong with what somebody gave: raised at once, or noted where all of it is to be listed."""

    def __init__(self, are_noted: bool) -> None:
        """Begins without any.

        Args:
            are_noted: Whether they are noted.
        """
        self.found: list[Finding] = []
        self._are_noted = are_noted

    def note(self, subject: str, sentence: str) -> None:
        """Makes a finding of one.

        Raises:
            InputError: Mistakes are not noted.
        """
        if not self._are_noted:
            raise InputError(sentence)
        self.found.append(error(subject, sentence))

    @contextmanager
    def about(self, subject: str) -> Iterator[None]:
        """Makes a finding of what the block raises, which ends the block and nothing else.

        Raises:
            InputError: The block raised it, and mistakes are not noted.
        """
        try:
            yield
        except InputError as mistake:
            if not self._are_noted:
                raise
            self.note(subject, str(mistake))
