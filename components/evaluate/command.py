"""The command that repeats a run, from what its steps have left on record."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

# Every parameter that leaves a trace in the figures is named, so that none of this preset's values counts.
_PRESET = "default"
_INDENT = " "
_LINE_CHARACTERS = 90


def repeating_command(parameters: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a command in lines that fit a terminal, which a shell runs as it is.

    Args:
        parameters: By step and name, as its step had it.
    """
    lines = [f"neumf run --preset {_PRESET}"]
    for step, values in parameters.items():
        lines.append(_INDENT)
        for name, value in values.items():
            setting = f" --set {shlex.quote(f'{step}.{name}={_written(value)}')}"
            if lines[-1] != _INDENT and len(lines[-1]) + len(setting) > _LINE_CHARACTERS:
                lines.append(_INDENT)
            lines[-1] += setting
    return " \\\n".join(line for line in lines if line != _INDENT)


def _written(value: Any) -> str:
    """Writes a value so that `--set` reads the same one."""
    if isinstance(value, list | tuple):
        parts = [str(part) for part in value]
        # A part with a comma or blanks at its ends would be read as something else.
        plain = not any("," in part or part != part.strip() or part.startswith("[") for part in parts)
        return ",".join(parts) if plain else json.dumps(list(value), separators=(",", ":"))
    return str(value)
