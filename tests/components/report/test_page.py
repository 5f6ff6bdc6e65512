"""What all pages share: their frame, their look, and how numbers are written."""

import re
import runpy
from importlib.resources import files
from itertools import combinations
from pathlib import Path

import numpy as np
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


def themes_of_the_page():
    css = files("components.report").joinpath("templates", "page.css").read_text()
    return [dict(re.findall(r"--([\w-]+): (#\w+);", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)]


def test_colours_contrast_enough_in_light_dark_and_print():
    themes = themes_of_the_page()
    assert len(themes) == 3
    for theme in themes:
        assert len(theme) == 12
        for text in ("ink", "muted", "caveat", "series-0", "series-1", "series-2", "series-3", "series-4"):
            assert contrast(theme[text], theme["paper"]) >= 4.5, (text, theme)
        assert contrast(theme["ink"], theme["highlight"]) >= 4.5
        assert contrast(theme["ink"], theme["wash"]) >= 4.5


def oklab(colour, matrix):
    """Ottosson's OKLab of a colour, as somebody sees it whose cones `matrix` describes in linear light."""
    linear = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return to_lab @ np.cbrt(to_cones @ np.clip(matrix @ linear, 0, 1))


# Machado, Oliveira and Fernandes (2009), severity 1.
EYES = {
    "all cones": np.eye(3),
    "no red cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


@pytest.mark.parametrize(("eyes", "least"), [("all cones", 0.12), ("no red cones", 0.05), ("no green cones", 0.05)])
def test_four_series_can_be_told_apart(eyes, least):
    for theme in themes_of_the_page():
        seen = {n: oklab(theme[f"series-{n}"], EYES[eyes]) for n in (1, 2, 3, 4)}
        for one, other in combinations(seen, 2):
            assert np.linalg.norm(seen[one] - seen[other]) >= least, (one, other, theme["paper"])
