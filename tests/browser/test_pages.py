"""Pages in a real browser: everything is drawn, nothing overflows, nothing is fetched and nothing is complained of."""

import runpy
from pathlib import Path

import pytest

from components.evaluate.report import render_report

pytestmark = pytest.mark.slow

COMPONENTS = Path(__file__).parents[1] / "components"
Reports = runpy.run_path(str(COMPONENTS / "evaluate" / "report_content.py"))
Page = runpy.run_path(str(COMPONENTS / "report" / "html_page.py"))["Page"]

PAGES = {"two systems": Reports["content"], "four systems": Reports["of_four_systems"]}
# A small phone and a laptop.
WIDTHS = (360, 1280)

# What a person could read: each text with the colour it has and the one behind it, and the size of its letters.
TEXTS = """() => {
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (!/, 0\\)$/.test(colour) && colour !== "transparent") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    if (!text || element.closest("title")) continue;
    const style = getComputedStyle(element);
    const colour = element.closest("svg") ? style.fill : style.color;
    texts.push([text, colour, behind(element)]);
  }
  return texts;
}"""
# Elements that reach beyond the window, but for those that lie in a region which scrolls by itself.
OUTSIDE = """() => [...document.body.querySelectorAll("*")]
  .filter((element) => !element.closest(".scroll, pre") || element.matches(".scroll, pre"))
  .filter((element) => !element.closest("svg title"))
  .filter((element) => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && (box.left < -0.5 || box.right > window.innerWidth + 0.5);
  })
  .map((element) => `${element.tagName}.${element.getAttribute("class")}: ${element.textContent.slice(0, 40)}`)"""
# The texts of a chart that cover each other.
COLLISIONS = """() => [...document.querySelectorAll("svg.chart")].flatMap((chart) => {
  const texts = [...chart.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
  return texts.flatMap(([text, box], index) => texts.slice(index + 1)
    .filter(([, other]) => box.left < other.right && other.left < box.right
                           && box.top + 2 < other.bottom - 2 && other.top + 2 < box.bottom - 2)
    .map(([other]) => `${chart.getAttribute("aria-label").slice(0, 40)}: ${text} / ${other}`));
})"""
MARKS = """() => [...document.querySelectorAll("svg.chart .mark")].map((mark) => {
  const box = mark.getBoundingClientRect(), chart = mark.closest("svg").getBoundingClientRect();
  const value = mark.querySelector("title").textContent;
  const inside = box.left >= chart.left - 1 && box.right <= chart.right + 1
                 && box.top >= chart.top - 1 && box.bottom <= chart.bottom + 1;
  return [value, box.width, box.height, inside];
})"""
CHARTS = """() => [...document.querySelectorAll("svg.chart")].map((chart) => {
  const box = chart.getBoundingClientRect();
  return [box.width, box.height];
})"""


def luminance(colour):
    channels = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, content in PAGES.items():
        (folder / f"{name}.html").write_text(render_report(content()), encoding="utf-8")
    return folder


@pytest.fixture(
    scope="module",
    params=[(name, width, scheme) for name in PAGES for width in WIDTHS for scheme in ("light", "dark")],
    ids=lambda param: f"{param[0]}, {param[1]} px, {param[2]}",
)
def opened(browser, files, request):
    name, width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda sent: asked.append(sent.url))
    address = (files / f"{name}.html").as_uri()
    page.goto(address, wait_until="networkidle")
    yield page, said, [url for url in asked if url not in (address, "data:,")], request.param
    context.close()


def test_the_console_is_clean_and_nothing_else_is_fetched(opened):
    _, said, asked, _ = opened
    assert said == []
    assert asked == []


def test_every_chart_is_drawn_with_every_mark_inside_it(opened):
    page, _, _, (name, width, _) = opened
    source = Page(render_report(PAGES[name]()))
    charts, marks = page.evaluate(CHARTS), page.evaluate(MARKS)
    assert len(charts) == len(source.all("svg", "chart")) >= 10
    assert all(200 < chart_width <= width and chart_height > 60 for chart_width, chart_height in charts)
    assert [mark[0] for mark in marks] == [mark["text"] for mark in source.marks()]
    for text, mark_width, mark_height, is_inside in marks:
        assert mark_width > 1, text
        # A bar of nothing has no height.
        assert mark_height > 1 or text.endswith(": 0 users"), text
        assert is_inside, text


def test_the_page_never_scrolls_sideways(opened):
    page, *_, (_, width, _) = opened
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(OUTSIDE) == []


def test_labels_of_a_chart_do_not_cover_each_other(opened):
    page, *_ = opened
    assert page.evaluate(COLLISIONS) == []


def test_every_text_stands_out_as_wcag_aa_asks(opened):
    page, *_, (_, _, scheme) = opened
    texts = page.evaluate(TEXTS)
    assert len(texts) > 200
    for text, colour, behind in texts:
        darker, brighter = sorted(map(luminance, (colour, behind)))
        assert (brighter + 0.05) / (darker + 0.05) >= 4.5, (text, colour, behind)
    is_dark = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) < 0.1
    assert is_dark == (scheme == "dark")


def test_tables_fit_a_laptop_and_scroll_by_themselves_on_a_phone(opened):
    page, *_, (_, width, _) = opened
    hidden = page.evaluate(
        """() => [...document.querySelectorAll(".scroll")]
          .map((region) => [region.firstElementChild.className, region.scrollWidth - region.clientWidth,
                            region.tabIndex])"""
    )
    assert all(tab_index == 0 for *_, tab_index in hidden), "a keyboard reaches what scrolls"
    fitting = [overflow for kind, overflow, _ in hidden if width > 1_000 or kind == "leads"]
    assert fitting
    assert max(fitting) <= 0
