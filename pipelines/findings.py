"""What a check before a run has to say."""

from collections.abc import Iterable
from dataclasses import dataclass

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
