"""What all pages share: their frame, their look, and how numbers are written."""

import re
import runpy
from importlib.resources import files
from pathlib import Path

import pytest
from jinja2 import TemplateNotFound, TemplateRuntimeError, UndefinedError

from components.report.page import format_count, format_duration, format_share, render_page

Page = runpy.run_path(str(Path(__file__).parents[1] / "report" / "html_page.py"))["Page"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes a package with templates of its own."""

    def make(**templates):
        folder = tmp_path / f"step_{tmp_path.name}" / "templates"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").touch()
        for name, text in templates.items():
            (folder / f"{name}.html").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        return folder.parent.name

    return make


WHOLE = """{% extends "base.html" %}
{% from "macros.html" import pairs %}
{% block title %}{{ name }}{% endblock %}
{% block header %}<h1>{{ name }}</h1>{% endblock %}
{% block main %}{{ pairs([(name, 1234567 | count)], "number") }}
{{ 0.5 | share }}{{ 61.0 | duration }}{{ 2 | twice }}{% endblock %}
"""


def test_a_page_fills_the_frame_and_escapes_what_it_is_given(package):
    hostile = "<b>&amp;'\"</b>"
    html = render_page(package(page=WHOLE), "page.html", {"twice": lambda value: f"[{2 * value}]"}, name=hostile)
    page = Page(html)
    assert [len(page.all(tag)) for tag in ("html", "head", "style", "body", "header", "main", "h1")] == [1] * 7
    assert html.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert page.texts("title") == page.texts("h1") == page.texts("dt") == [hostile]
    assert page.texts("dd", "number") == ["1,234,567"]
    assert page.texts("main")[0].endswith("50 %1 min 1 s[4]")
    page.assert_refers_to_nothing_outside()


def test_a_page_that_forgets_a_block_or_a_value_is_refused(package):
    templates = package(page=WHOLE, bare='{% extends "base.html" %}{% block title %}x{% endblock %}')
    with pytest.raises(TemplateRuntimeError, match="header"):
        render_page(templates, "bare.html", {})
    with pytest.raises(UndefinedError, match="name"):
        render_page(templates, "page.html", {"twice": str})
    with pytest.raises(TemplateNotFound, match=re.escape("other.html")):
        render_page(templates, "other.html", {})


def test_figures_are_written_as_people_read_them():
    assert [format_duration(s) for s in (0.04, 59.94, 59.96, 102.4, 3599.6, 7500)] == [
        "0.0 s", "59.9 s", "1 min 0 s", "1 min 42 s", "1 h 0 min", "2 h 5 min",
    ]  # fmt: skip
    assert [format_share(s).replace("\N{NO-BREAK SPACE}", " ") for s in (0.0447, 0.95, 0.000123, 1.0, 0.0)] == [
        "4.47 %", "95 %", "0.0123 %", "100 %", "0 %",
    ]  # fmt: skip
    assert [format_count(number) for number in (0, 999, 12_345_678_901, -1234)] == [
        "0", "999", "12,345,678,901", "\N{MINUS SIGN}1,234",
    ]  # fmt: skip


def contrast(colour_0, colour_1):
    """The contrast ratio of WCAG 2.2."""

    def luminance(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        channels = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    brighter, darker = sorted((luminance(colour_0), luminance(colour_1)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def test_colours_contrast_enough_in_light_dark_and_print():
    css = files("components.report").joinpath("templates", "page.css").read_text()
    themes = [dict(re.findall(r"--([\w-]+): (#\w+);", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)]
    assert len(themes) == 3
    for theme in themes:
        assert len(theme) == 12
        for text in ("ink", "muted", "caveat", "series-0", "series-1", "series-2", "series-3", "series-4"):
            assert contrast(theme[text], theme["paper"]) >= 4.5, (text, theme)
        assert contrast(theme["ink"], theme["highlight"]) >= 4.5
        assert contrast(theme["ink"], theme["wash"]) >= 4.5
