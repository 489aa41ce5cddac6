"""HTML tables of a notebook: hostile names stay text."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import alexnet_cli as alexnet
from alexnet_cli.data.manifest import ImageFile
from alexnet_cli.inference.results import Neighbor

# name → as it is shown; None: unchanged
NAMES = {
    "<script>alert(1)</script>": None,
    '"><img src=x onerror=alert(1)>': None,
    "</td></tr></table><h1>": None,
    "&lt;b&gt; & 'c'": None,
    "$x$ `code` **bold**": None,
    "\x1b[31mred": r"\x1b[31mred",
    "abc\u202egpj": r"abc\u202egpj",
    "\udcff": r"\udcff",  # a byte that is no UTF-8
}
SHOWN = [shown or name for name, shown in NAMES.items()]
# the classes of which MathJax says that it typesets nothing within
TABLE = ("table", ("class", "tex2jax_ignore mathjax_ignore"))


class Reader(HTMLParser):
    """Collects the tags with their attributes, and the texts of tables."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = set(), []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add((tag, *attributes))
        self.texts.append("")

    def handle_data(self, data):
        self.texts[-1] += data


def read(shown):
    """Return the texts of the HTML of `shown`, which has nothing but the tags of a table."""
    text = shown._repr_html_()
    text.encode()
    assert text.isprintable()
    reader = Reader(text)
    assert reader.tags <= {TABLE, *((tag,) for tag in ("caption", "tr", "th", "td"))}
    return reader.texts


def test_a_prediction_shows_hostile_names_as_text():
    """Oracle: Python's HTML parser, which finds each name as in the table above."""
    files = [ImageFile(Path("folder", name.replace("/", "")), label=name) for name in NAMES]
    prediction = alexnet.Prediction(
        file=files[0],
        classes=tuple(NAMES),
        probabilities=(0.5, 0.25, 0.15, 0.1, 0.0, 0.0, 0.0, 0.0),
        neighbors=tuple(Neighbor(file, 1.25) for file in files),
        below_threshold=True,
    )
    texts = read(prediction)
    assert all(texts.count(name) >= 2 for name in SHOWN)
    assert {"50.0%", "25.0%", "0.0%", "█" * 10, "█" * 5, "1.2"} <= {*texts}
    assert any("none of these" in text for text in texts)
    assert "image from memory" in read(replace(prediction, file=None, below_threshold=False))


@pytest.fixture
def report(trained):
    """The report of the shared run on its validation images."""
    return alexnet.load(trained).evaluate()


def test_a_report_shows_hostile_names_as_text(report):
    """Oracle: Python's HTML parser, and the same numbers by hand."""
    details = report.details
    classes = [replace(details.per_class[0], name=n, recall=0.125) for n in NAMES]
    hostile = replace(details, per_class=tuple(classes), split="<b>")
    texts = read(alexnet.Report(hostile, []))
    assert all(name in texts for name in SHOWN)
    assert texts.count("12.5%") == len(NAMES)
    assert any("<b>" in text for text in texts)


def test_a_report_shows_its_scores_and_the_first_classes_of_many(report):
    """Oracle: trace and sum of its own confusion matrix; 20 of 30 rows by name."""
    details = report.details
    n, hits = details.matrix.sum(), details.matrix.trace()
    texts = read(report)
    assert f"{n}" in texts
    assert f"{hits / n:.1%}" in texts
    assert {*details.classes} <= {*texts}
    many = tuple(replace(details.per_class[0], name=f"class {i}") for i in range(30))
    texts = read(alexnet.Report(replace(details, per_class=many, validation=details), []))
    assert [text for text in texts if text.startswith("class ")] == [
        f"class {i}" for i in range(20)
    ]
    assert f"first 20 of 30 classes, {details.split}" in texts
    assert texts.count(f"{hits / n:.1%}") >= 2
