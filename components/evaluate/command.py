"""The command that repeats a run, from what its steps have left on record."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

# Every parameter that leaves a trace in the figures is named, so that none of this preset's values counts.
_PRESET = "default"


def repeating_command(parameters: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a command, a line for each step, that a shell runs as it is.

    Args:
        parameters: By step and name, as its step had it.
    """
    lines = [f"neumf run --preset {_PRESET}"]
    for step, values in parameters.items():
        settings = (shlex.quote(f"{step}.{name}={_written(value)}") for name, value in values.items())
        lines.append("  " + " ".join(f"--set {setting}" for setting in settings))
    return " \\\n".join(lines)


def _written(value: Any) -> str:
    """Writes a value so that `--set` reads the same one."""
    if isinstance(value, list | tuple):
        parts = [str(part) for part in value]
        # A part with a comma or blanks at its ends would be read as something else.
        plain = not any("," in part or part != part.strip() or part.startswith("[") for part in parts)
        return ",".join(parts) if plain else json.dumps(list(value), separators=(",", ":"))
    return str(value)
