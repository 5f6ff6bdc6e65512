"""Reads a page as a browser does, for the tests of every page."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Every element with its attributes and the text inside it; refuses a page that is not well-formed."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self._open = [], []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute twice in {tag}"
        element = {"tag": tag, "attrs": dict(attrs), "text": ""}
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop()["tag"] == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def all(self, tag, css_class=None):
        return [
            element
            for element in self.elements
            if element["tag"] == tag and (not css_class or css_class in element["attrs"].get("class", "").split())
        ]

    def texts(self, tag, css_class=None):
        return [" ".join(element["text"].split()) for element in self.all(tag, css_class)]

    @property
    def text(self):
        return " ".join(self.all("body")[0]["text"].split())

    def marks(self):
        return [e for e in self.elements if "mark" in e["attrs"].get("class", "").split()]

    def assert_refers_to_nothing_outside(self):
        """No script, no frame, and no attribute or style that makes a browser fetch something."""
        assert not {element["tag"] for element in self.elements} & {
            "script",
            "iframe",
            "object",
            "embed",
            "img",
            "form",
        }
        links = [
            value for e in self.elements for name, value in e["attrs"].items() if name in ("href", "src", "srcset")
        ]
        assert links == ["data:,"]
        (style,) = self.all("style")
        assert "@import" not in style["text"]
        assert "url(" not in style["text"]
        policies = [meta["attrs"]["content"] for meta in self.all("meta") if "http-equiv" in meta["attrs"]]
        assert len(policies) == 1
        assert policies[0].startswith("default-src 'none'; style-src 'unsafe-inline'")
