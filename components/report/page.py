"""Pages that need nothing else, neither network nor script: one HTML file with its style and its charts inside.

A step's template extends `base.html` and fills its blocks; `page.css` is the look that all pages share.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, FunctionLoader, StrictUndefined


def render_page(package: str, template: str, filters: Mapping[str, Callable[..., str]], **variables: Any) -> str:
    """Returns a whole page as HTML text, to be written as UTF-8.

    Whatever is not marked as safe is escaped. The filters `count`, `share` and `duration` are there for numbers.

    Args:
        package: The package whose folder `templates` has the step's own templates, for example "components.evaluate".
        template: The name of the page's template; it extends `base.html`.
        filters: More filters, by name.
        variables: What the template refers to.
    """
    environment = Environment(
        loader=ChoiceLoader([FunctionLoader(partial(_read_template, name)) for name in (package, "components.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=format_count, share=format_share, duration=format_duration, **filters)
    return environment.get_template(template).render(variables)


def format_count(number: int) -> str:
    """Writes a whole number with a comma between thousands, a negative one with a minus sign: \N{MINUS SIGN}1,234."""
    return f"{number:,}".replace("-", "\N{MINUS SIGN}")


def format_share(value: float) -> str:
    """Writes a share as a per cent with three significant digits and no trailing zeros: 4.47 %, 0.0123 %, 95 %."""
    percent = 100.0 * value
    decimals = max(0, 2 - math.floor(math.log10(percent))) if percent > 0 else 0
    text = f"{percent:.{decimals}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}\N{NO-BREAK SPACE}%"


def format_duration(seconds: float) -> str:
    """Writes a duration with the two units that matter: 3.2 s, 1 min 42 s, 2 h 5 min."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def _read_template(package: str, name: str) -> str | None:
    path = files(package) / "templates" / name
    return path.read_text(encoding="utf-8") if path.is_file() else None
