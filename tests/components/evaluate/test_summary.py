"""The Markdown summary, parsed as KFP's UI does: tables with the numbers of the page."""

import dataclasses
import re
import runpy
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from components.evaluate.report import ProtocolResult, Selection
from components.evaluate.summary import render_summary

Reports = runpy.run_path(str(Path(__file__).parent / "report_content.py"))
system, content, of_four_systems = (Reports[name] for name in ("system", "content", "of_four_systems"))
DASH = "\N{EN DASH}"


def tables(markdown):
    """Every table as rows of cells, and the headings."""
    html = MarkdownIt("commonmark").enable("table").render(markdown)
    rows = [
        [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", table, re.S)]
        for table in re.findall(r"<table>(.*?)</table>", html, re.S)
    ]
    return rows, re.findall(r"<h2>(.*?)</h2>", html), html


def test_every_protocol_has_a_table_of_systems_and_one_of_leads():
    found, headings, _ = tables(render_summary(of_four_systems()))
    assert headings == ["loo-99", "loo-999-masked", "fixed", "loo-full"]
    assert len(found) == 8
    for figures, leads in zip(found[::2], found[1::2], strict=True):
        assert [row[0] for row in figures] == ["System", "NeuMF", "Popularity", "ALS", "Champion"]
        assert [row[0] for row in leads] == ["NeuMF over", "Popularity", "ALS", "Champion"]
        assert len({len(row) for row in figures}) == len({len(row) for row in leads}) == 1
    assert "Coverage@10" not in found[0][0]
    assert found[6][0][-3:] == ["Coverage@5", "Coverage@10", "Coverage@20"]
    assert found[6][1][-2] == "25\N{NO-BREAK SPACE}%"


def test_figures_have_intervals_and_references_their_own_column():
    (figures, leads, *_), _, html = tables(render_summary(content()))
    columns = dict(zip(figures[0], figures[1], strict=True))
    assert columns["HR@10"] == f"0.432 (0.422{DASH}0.443)"
    assert columns["MRR"] == f"0.126 (0.116{DASH}0.137)"
    reference = dict(zip(figures[0], figures[3], strict=True))
    assert {name: cell for name, cell in reference.items() if cell} == {"System": "Best reachable", "HR@10": "0.812"}
    assert leads[1] == ["Popularity", "+0.120 (+0.100 to +0.150)", "better", "+0.060 (+0.040 to +0.090)", "better"]
    assert "test item" not in html


def test_a_selection_on_the_test_item_is_said():
    whole = content()
    facts = dataclasses.replace(whole.facts, selection=Selection.TEST_ITEM)
    assert (
        "<strong>The best epoch was picked on the test item"
        in tables(render_summary(dataclasses.replace(whole, facts=facts)))[2]
    )


@pytest.mark.parametrize("name", ["a|b", "<script>x</script>", "*bold* _it_ `code`", "[x](javascript:y)", "a\nb\n# c"])
def test_names_from_data_stay_text(name):
    result = ProtocolResult("loo-99", (system(name, 0.4, 0.2), system("Other", 0.3, 0.1, 0.1)), ())
    found, headings, html = tables(render_summary(content(title=name, protocols=(result,))))
    assert not re.search(r"<(script|em|code|a)\b", html)
    assert headings == ["loo-99"]
    assert html.count("<h1>") == 1
    assert [len(row) for row in found[0]] == [8, 8, 8]
