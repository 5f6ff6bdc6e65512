"""The report page, parsed: what it shows is what it was given, and it asks nobody for anything."""

import dataclasses
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from components.evaluate.data_card import data_card
from components.evaluate.report import (
    Breakdown,
    BreakdownGroup,
    EpochRecord,
    Estimate,
    ExampleUser,
    ProtocolResult,
    Reference,
    Reproduction,
    Selection,
    format_interval,
    render_report,
)

Reports = runpy.run_path(str(Path(__file__).parent / "report_content.py"))
DASH, HOSTILE_TITLE, MANIFEST = (Reports[name] for name in ("DASH", "HOSTILE_TITLE", "MANIFEST"))
system, item, content, of_four_systems = (Reports[name] for name in ("system", "item", "content", "of_four_systems"))
Page = runpy.run_path(str(Path(__file__).parents[1] / "report" / "html_page.py"))["Page"]


def on_test_item(whole):
    return dataclasses.replace(whole, facts=dataclasses.replace(whole.facts, selection=Selection.TEST_ITEM))


@pytest.fixture(scope="module")
def page():
    return Page(render_report(content()))


BARE = content(
    protocols=(ProtocolResult("fixed", (system("NeuMF", 0.4, 0.2),), ()),),
    history=(),
    breakdowns=(),
    examples=(),
    reproduction=Reproduction(None, (), (), ()),
)


@pytest.mark.parametrize("whole", [content(), on_test_item(content()), BARE], ids=["whole", "test item", "bare"])
def test_page_is_well_formed_and_complete(whole):
    page = Page(render_report(whole))
    assert [len(page.all(tag)) for tag in ("html", "head", "style", "body", "main", "h1")] == [1] * 6
    assert page.texts("title")[0] == "ml-1m: NeuMF evaluation"
    ids = [element["attrs"]["id"] for element in page.elements if "id" in element["attrs"]]
    assert len(ids) == len(set(ids))
    for element in page.elements:
        assert element["attrs"].get("aria-labelledby", ids[0]) in ids


@pytest.mark.parametrize("whole", [content(), BARE], ids=["whole", "bare"])
def test_page_refers_to_nothing_outside_itself(whole):
    html = render_report(whole)
    # The address of the data is there to be read.
    html = html.replace(MANIFEST["source"]["url"], "")
    for forbidden in ("http:", "https:", "//", "src=", "@import", "url(", "<script", "xmlns"):
        assert forbidden not in html, forbidden
    Page(html).assert_refers_to_nothing_outside()


def test_a_command_that_names_an_address_is_shown_but_not_linked():
    command = "neumf run --mirror https://example.org/<movies>"
    page = Page(render_report(content(reproduction=Reproduction(command, (), (), ()))))
    assert page.texts("pre") == [command]
    assert not page.all("a")


def test_everything_from_data_is_escaped():
    hostile = "<b onload='x'>\"&amp;</b>"
    whole = content(
        title=hostile,
        protocols=(ProtocolResult(hostile, (system(hostile, 0.4, 0.2),), (Reference(hostile, 0.5, 0.5),)),),
        breakdowns=(
            Breakdown(
                hostile, hostile, hostile, (hostile,), (BreakdownGroup(hostile, hostile, 3, (Estimate(1, 1, 1),)),)
            ),
        ),
        reproduction=Reproduction(hostile, ((hostile, hostile),), ((hostile, hostile),), ((hostile, 1.0),)),
    )
    html = render_report(whole)
    page = Page(html)
    assert "<b " not in html
    assert not page.all("b")
    assert page.texts("h1") == [hostile]
    assert HOSTILE_TITLE in page.texts("bdi")
    assert "<script" not in html


def test_headline_shows_each_protocols_figures_rounded_to_three_decimals(page):
    assert page.texts("span", "figure") == ["0.432", "0.251", "0.081", "0.044"]
    assert page.texts("span", "interval") == [
        f"95 % interval {low}{DASH}{high}"
        for low, high in (("0.422", "0.443"), ("0.241", "0.262"), ("0.071", "0.092"), ("0.034", "0.055"))
    ]
    assert page.texts("text", "value") == [
        *("0.432", "0.313", "0.812", "0.251", "0.171"),
        *("0.081", "0.034", "0.044", "0.016"),
    ]


def test_lede_gives_the_first_protocols_hit_rates_of_model_and_baseline(page):
    assert page.texts("p", "lede") == [
        "Under loo-99, NeuMF ranks the held-out item among its first 10 for 43.2 % of users. "
        "Popularity does so for 31.3 %."
    ]


@pytest.mark.parametrize(
    ("lead", "ending"),
    [
        (0.01, "for 42.0 % (no clear difference)."),
        (-0.01, "for 42.0 % (no clear difference)."),
        (-0.04, "for 42.0 % (more than NeuMF)."),
        (0.03, "for 42.0 %."),
    ],
)
def test_lede_says_so_when_the_baseline_is_not_clearly_worse(lead, ending):
    systems = (system("NeuMF", 0.43, 0.2), system("Popularity", 0.42, 0.2, lead))
    page = Page(render_report(content(protocols=(ProtocolResult("loo-99", systems, ()),))))
    assert page.texts("p", "lede")[0].endswith(ending)


def test_lede_names_every_system():
    lede = Page(render_report(of_four_systems())).texts("p", "lede")[0]
    assert lede.endswith(
        "for 80.0 % of users. Popularity does so for 75.0 %, ALS for 70.0 % (no clear difference) "
        "and Champion for 65.0 % (more than NeuMF)."
    )


def test_leads_are_shown_with_sign_interval_and_verdict():
    (table, *_) = Page(render_report(of_four_systems())).texts("table", "leads")
    minus = "\N{MINUS SIGN}"
    assert table == (
        "NeuMF over HR@10 NDCG@10 "
        f"Popularity better +0.030 +0.010 to +0.060 unclear +0.015 {minus}0.005 to +0.045 "
        f"ALS unclear {minus}0.020 {minus}0.040 to +0.010 unclear {minus}0.010 {minus}0.030 to +0.020 "
        f"Champion worse {minus}0.070 {minus}0.090 to {minus}0.040 worse {minus}0.035 {minus}0.055 to {minus}0.005"
    )


def test_coverage_is_shown_where_the_catalogue_is_ranked(page):
    assert page.texts("table", "narrow") == ["@5 @10 @20 NeuMF 12.5 % 25 % 50 % Popularity 12.5 % 25 % 50 %"]
    assert not Page(render_report(BARE)).all("table", "narrow")


def test_data_section_follows_the_rows_and_names_the_licence(page):
    (flow,) = page.texts("table", "flow")
    assert "Read from the ratings 100 100 %" in flow
    assert "2 users with fewer than 20 distinct items \N{MINUS SIGN}9 9 %" in flow
    assert page.texts("p", "rejected")[0].startswith("3 lines of the source could not be read")
    assert page.texts("dd", "value") == ["ml-1m", "https://example.org/ml-1m.zip", "0a1b", "research use <only>"]
    assert page.texts("p", "citation") == ["Harper 2015"]
    # Interactions are training positives and the two held-out items: 19, 20, 22, 27 of 18, 20, 25, 17 positives.
    assert "The median user has 20 interactions, the most active one 27." in page.text
    assert "The median item has 6 training positives; 1 have none." in page.text


def test_data_section_of_examples_without_a_record_of_their_source():
    card = data_card({**MANIFEST, "source": {}}, np.array([3, 1]), np.array([4]))
    page = Page(render_report(content(data=card)))
    assert page.texts("dd", "value") == ["ml-1m"]
    assert not page.all("p", "rejected")
    unordered = {**MANIFEST, "source": {"timestamp_range": [5, 5]}}
    page = Page(render_report(content(data=data_card(unordered, np.array([3, 1]), np.array([4])))))
    assert "All timestamps are equal." in page.texts("p", "caveat")[0]


def test_every_protocol_of_the_house_says_what_its_candidates_are():
    for protocol, words in {
        "loo-99": "99 distinct items",
        "loo-999-masked": "999 items drawn at random with replacement",
        "loo-full": "every item that the user never saw",
        "fixed": "the data set's own files",
    }.items():
        one = (ProtocolResult(protocol, (system("NeuMF", 0.4, 0.2),), ()),)
        page = Page(render_report(content(protocols=one)))
        assert any(words in note for note in page.texts("p", "note")), protocol
        assert protocol in page.texts("h3")


def test_warning_that_protocols_cannot_be_compared_needs_two_of_them(page):
    assert "cannot be compared" in page.text
    assert "cannot be compared" not in Page(render_report(BARE)).text


def test_table_holds_every_cutoff_of_every_system_with_its_interval(page):
    table = page.texts("table", "cutoffs")[0]
    head = "HR@5 HR@10 HR@20 NDCG@5 NDCG@10 NDCG@20 MRR"
    rows = page.texts("tr")[page.texts("tr").index(head) :]
    assert table.startswith(head)
    assert rows[2] == (
        f"NeuMF 0.216 0.206{DASH}0.227 0.432 0.422{DASH}0.443 0.865 0.855{DASH}0.876 "
        f"0.126 0.116{DASH}0.137 0.251 0.241{DASH}0.262 0.502 0.492{DASH}0.513 "
        f"0.126 0.116{DASH}0.137"
    )
    first_words = ["loo-99", "NeuMF", "Popularity", "loo-full", "NeuMF", "Popularity"]
    assert [row.split()[0] for row in rows[1:7]] == first_words


def test_breakdown_table_gives_the_numbers_of_the_bars(page):
    rows = page.texts("tr")
    start = rows.index("Training interactions per user Users NeuMF Popularity")
    assert rows[start + 3] == f"40{DASH}49 4,000 0.600 0.500{DASH}0.700 0.300 0.200{DASH}0.400"
    assert page.texts("ul", "legend") == ["NeuMF Popularity"]


def test_facts_are_those_of_the_run(page):
    facts = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    expected = {
        "Users": "6,040",
        "Items": "3,706",
        "Interactions": "1,000,209",
        "Density": "4.47 %",
        "Model": "8 factors layers 64-32-16-8",
        "Best epoch": "3 of 4 on the validation item",
    }
    assert {name: facts[name] for name in expected} == expected


def test_epochs_are_given_where_the_best_is_not_known():
    facts = dataclasses.replace(content().facts, best_epoch=None)
    page = Page(render_report(content(facts=facts)))
    assert "Epochs trained" in page.texts("dt")
    assert "Best epoch" not in page.texts("dt")
    assert page.all("circle", "best") == []


def test_caveat_is_there_exactly_when_the_test_item_selected_the_epoch(page):
    assert page.all("p", "caveat") == []
    assert "validation item" in page.text
    warned = Page(render_report(on_test_item(content())))
    assert len(warned.all("p", "caveat")) == 1
    assert "3 of 4 on the test item" in warned.text
    assert "Test HR@10" in warned.texts("figcaption")


def test_every_point_is_one_mark(page):
    # Five and four figures in the strips of two protocols, three curves of four epochs, three groups of two bars; of
    # the data, the most popular item and half of the items, and a bar for each number of interactions from 19 to 27.
    assert len(page.marks()) == 5 + 4 + 3 * 4 + 3 * 2 + 2 + 9
    assert [mark["tag"] for mark in page.marks()].count("circle") == 3 * 4 + 2
    assert len(page.all("circle", "best")) == 3
    assert all(mark["text"] for mark in page.marks()), "each mark has its hover text"


def test_best_epoch_is_the_one_that_was_exported(page):
    assert [mark["text"] for mark in page.all("circle", "best")] == [
        "epoch 3: 0.1667",
        "epoch 3: 0.430",
        "epoch 3: 0.230",
    ]
    assert page.texts("text", "best-label")[1] == "best epoch 3: 0.430"


def test_charts_are_images_with_a_label(page):
    charts = page.all("svg", "chart")
    assert len(charts) == 4 + 3 + 1 + 2
    assert all(chart["attrs"]["role"] == "img" and chart["attrs"]["aria-label"] for chart in charts)
    assert charts[0]["attrs"]["aria-label"] == "HR@10 under loo-99: NeuMF 0.432, Popularity 0.313, Best reachable 0.812"


def test_held_out_item_is_marked_in_the_list_or_named_beside_it(page):
    users = page.texts("article", "user")
    assert page.texts("li", "held-out") == ["Film 2 (1902) Drama, War"]
    assert "53 training interactions. The held-out item is in the list." in users[0]
    assert "Held out: Lost One, not in the list (place 37)." in users[1]


def test_commands_digests_versions_and_durations_are_shown(page):
    assert page.texts("pre") == ["neumf run --dataset ml-1m --set train.seed=7"]
    assert page.texts("dd", "digest") == ["abc123", "def456"]
    assert page.texts("dd", "number") == ["2.21.0", "3.2 s", "1 min 42 s"]


def test_a_bare_run_has_no_empty_sections():
    page = Page(render_report(BARE))
    assert page.texts("h2") == ["Results", "By cutoff", "Data", "How to read this"]
    assert page.texts("p", "lede")[0].endswith("for 40.0 % of users.")


def test_items_without_titles_go_by_their_raw_ids_and_a_user_may_have_no_history():
    user = ExampleUser("7", 1, (), (item(1), item(2)), item(3), None)
    page = Page(render_report(content(examples=(user,))))
    assert page.texts("ol") == ["item raw-1 item raw-2"]
    assert page.texts("h4") == ["Recommended, best first"]
    assert "Held out: item raw-3, not in the list." in page.text


def test_one_epoch_without_metrics_draws_one_chart_of_one_point():
    page = Page(render_report(content(history=(EpochRecord(1, 0.5, None, None),), breakdowns=())))
    assert page.all("circle")[0]["text"] == "epoch 1: 0.5000"
    assert page.texts("figcaption")[4:] == ["Training loss", "Popularity of items", "Activity of users"]
    assert "nan" not in page.text.lower()


def test_a_whisker_spans_the_interval_on_the_bars_own_scale(page):
    bar = page.all("rect", "mark")[0]
    stem = next(path for path in page.all("path", "whisker") if path["attrs"]["class"] == "whisker")["attrs"]["d"]
    (_, low), (_, high) = [tuple(map(float, point.split())) for point in re.findall(r"[ML]([\d.]+ [\d.]+)", stem)[:2]]
    height, top = float(bar["attrs"]["height"]), float(bar["attrs"]["y"])
    assert (low - high) / height == pytest.approx((0.7 - 0.5) / 0.6, abs=1e-3)
    assert (top - high) / height == pytest.approx((0.7 - 0.6) / 0.6, abs=1e-3)


def test_an_interval_has_the_decimals_of_its_figure():
    assert format_interval(Estimate(0.5, 0.4996, 0.50049)) == f"0.500{DASH}0.500"


@pytest.mark.parametrize("figure", [float("nan"), float("inf")])
def test_a_figure_that_is_not_finite_is_refused(figure):
    with pytest.raises(ValueError, match="not finite"):
        Estimate(0.5, figure, 0.6)
    with pytest.raises(ValueError, match="not finite"):
        EpochRecord(1, figure, None, None)


def test_a_report_without_figures_at_its_cutoffs_is_refused():
    with pytest.raises(ValueError, match=r"NeuMF has no figures at k = \[50\] under loo-99"):
        content(cutoffs=(5, 50))
    with pytest.raises(ValueError, match="at least one protocol"):
        content(protocols=())
    with pytest.raises(ValueError, match="one hit rate for each"):
        Breakdown("activity", "n", "loo-99", ("NeuMF", "Popularity"), (BreakdownGroup("1", "", 1, ()),))


def test_page_adapts_to_dark_phones_and_paper(page):
    css = page.all("style")[0]["text"]
    for needed in ("prefers-color-scheme: dark", "@media print", "overflow-x: auto"):
        assert needed in css
    assert any("width=device-width" in meta["attrs"].get("content", "") for meta in page.all("meta"))
