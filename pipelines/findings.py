"""What a check before a run has to say."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be.

    Attributes:
        severity: "error" for what would fail, "warning" for what may, or costs.
        subject: What it is about, in a word or two.
        message: One sentence that says what to change.
    """

    severity: str
    subject: str
    message: str


def error(subject: str, message: str) -> Finding:
    """Returns what would fail."""
    return Finding("error", subject, message)


def warning(subject: str, message: str) -> Finding:
    """Returns what may fail, or costs for nothing."""
    return Finding("warning", subject, message)
