"""The HTML report of an evaluation: contents, self-containedness, behavior in a browser."""

from __future__ import annotations

import base64
import re
import shlex
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from helpers import QUICK, evaluate
from PIL import Image
from typer.testing import CliRunner

from alexnet_cli.cli import app
from alexnet_cli.data import split_folders
from alexnet_cli.data.store import load_image
from alexnet_cli.errors import AlexNetError
from alexnet_cli.inference import heatmaps
from alexnet_cli.recipes.hyperparameters import hyperparameter_values
from alexnet_cli.recipes.presets import RECIPES
from alexnet_cli.recipes.variants import build_recipe
from alexnet_cli.reports import heatmap_pictures, html_report
from alexnet_cli.reports.reproduce import train_commands
from alexnet_cli.runs import metrics
from alexnet_cli.runs.calibration import CalibratedScore
from alexnet_cli.runs.models import load_model
from alexnet_cli.runs.run_folder import RunFolder
from alexnet_cli.runs.weights_file import load_arrays

CHROMIUM = shutil.which("chromium")
HOSTILE = "<script>alert(1)</script>"


class Reader(HTMLParser):
    """Tags with their attributes, tables as rows of texts, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text, self._rows, self._in_cell = "", [], False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "table":
            self._rows = self.tables.setdefault(dict(attributes).get("id", ""), [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self._in_cell:
            self._rows[-1][-1] += data.strip()


@pytest.fixture(scope="module")
def report(trained):
    """The evaluation of the shared run, over all its training images."""
    return evaluate([trained], split="train", ten_crop=True)


def with_classes(report, names, seed=3):
    """The report with other classes and random counts."""
    random = np.random.default_rng(seed)
    matrix = random.poisson(0.005, (len(names),) * 2) + np.diag(random.integers(1, 9, len(names)))
    return replace(
        report,
        classes=names,
        matrix=matrix,
        per_class=metrics.per_class(matrix, names),
        most_confused=metrics.most_confused(matrix, names),
        one_crop=CalibratedScore(
            int(matrix.sum()), 1.0, np.trace(matrix) / matrix.sum(), 0.9, 1.1, 0.05
        ),
        ten_crop=None,
    )


@pytest.fixture(scope="module")
def written(report, tmp_path_factory):
    """A report with three classes, and one with a thousand, all of which have hostile names."""
    folder = tmp_path_factory.mktemp("pages")
    names = tuple(f"{number} {HOSTILE} &{'long' * (number % 9)}" for number in range(1000))
    many, models = with_classes(report, names), [load_model(report.members[0].path)]
    html_report.write(report, models, folder / "few.html")
    html_report.write(many, models, folder / "many.html")
    return folder, many


# Contents


def test_the_html_report_has_the_scores_of_the_evaluation(report, written):
    """Oracle: the values of the report, rounded here."""
    reader = Reader((written[0] / "few.html").read_text())
    rows = reader.tables["matrix"][1:]
    assert [[int(cell or 0) for cell in row[1:]] for row in rows] == report.matrix.tolist()
    for row, one in zip(reader.tables["classes"][1:], report.per_class):
        figures = (one.precision, one.recall, one.f1)
        assert row[:5] == [one.name, str(one.support), *(f"{figure:.3f}" for figure in figures)]
    low, high = report.top1_interval
    assert f"{report.ten_crop.top1:.1%}" in reader.text
    assert f"95 % interval {low:.1%} to {high:.1%}" in " ".join(reader.text.split())
    rows = (
        QUICK.epochs,
        sum(one.n > 0 for one in report.reliability),
        4,
        len(hyperparameter_values(QUICK)),
    )  # epochs, bins, thresholds, hyperparameters; each table has a header row
    assert len(reader.tables[""]) == sum(1 + n for n in rows)


def test_the_reliability_diagram_shows_the_accuracy_of_each_bin(report, written):
    """Oracle: the images of each bin, and the edges of the chart, between which all lies."""
    reader = Reader((written[0] / "few.html").read_text())
    bins = [one for one in report.reliability if one.n]
    bars = [{k: float(v) for k, v in a.items()} for tag, a in reader.tags if tag == "rect"]
    bottom, full = 230 - 28, 230 - 28 - 12
    for one, bar in zip(bins, bars, strict=True):
        assert bar["height"] / full == pytest.approx(one.n_correct / one.n, abs=1e-3)
        assert bar["y"] + bar["height"] == pytest.approx(bottom)
        assert (bar["x"] - 40) / (460 - 40 - 12) == pytest.approx(one.low, abs=1e-3)
    shown = " ".join(reader.text.split())
    assert f"calibration error {report.ten_crop.calibration_error:.1%}" in shown
    assert "the plain softmax, without a temperature" in shown


def test_the_shown_images_are_those_that_the_network_sees(report, written):
    """Oracle: each file decoded again; JPEG changes the channels of a smooth image by a few levels."""
    reader = Reader((written[0] / "few.html").read_text())
    images = [a for tag, a in reader.tags if tag == "img" and "jpeg" in a["src"]]
    shown = [a["src"] for a in images if a.get("class") != "heatmap"]
    scored = [*report.confident_errors, *report.least_certain]
    assert len(shown) == len(scored) > 0
    for source, one in zip(shown, scored):
        picture = Image.open(BytesIO(base64.b64decode(source.partition(",")[2])))
        square = load_image(one.file, QUICK)
        expected = Image.fromarray(square).resize((html_report.THUMBNAIL, html_report.THUMBNAIL))
        apart = np.abs(np.asarray(picture).astype(int) - np.asarray(expected)).mean()
        assert apart < 12  # measured for an image of another color: 80


def test_each_shown_image_of_one_model_has_a_heat_map(report, written, tmp_path):
    """Oracle: the map of the predicted class, drawn anew; of several models there is none."""
    tags = Reader((written[0] / "few.html").read_text()).tags
    maps = [a for _, a in tags if a.get("class") == "heatmap"]
    scored = [*report.confident_errors, *report.least_certain]
    assert len(maps) == len(scored) > 0
    model = load_model(report.members[0].path)
    for attributes, one in zip(maps, scored):
        assert attributes["alt"] == f"Its evidence for {one.predicted}"
        picture = Image.open(BytesIO(base64.b64decode(attributes["src"].partition(",")[2])))
        expected = heatmap_pictures.overlay(heatmaps.compute(model, one.file, one.predicted))
        expected = expected.resize((html_report.THUMBNAIL, html_report.THUMBNAIL))
        assert np.abs(np.asarray(picture).astype(int) - np.asarray(expected)).mean() < 12
    html_report.write(report, [model, model], tmp_path / "two.html")
    assert 'class="heatmap"' not in (tmp_path / "two.html").read_text()


def test_the_shown_kernels_are_those_of_the_first_layer(report, written):
    """Oracle: the weights of one kernel, scaled in NumPy by the largest of them."""
    weights = load_arrays(report.members[0].path / "best.safetensors")["conv1/kernel"]
    reader = Reader((written[0] / "few.html").read_text())
    towers = [a["src"] for _, a in reader.tags if a.get("class") == "kernels"]
    assert len(towers) == 2
    sheet = np.asarray(Image.open(BytesIO(base64.b64decode(towers[1].partition(",")[2]))))
    kernel = weights[..., 4 + 2]  # of eight, the third of the second tower
    expected = 127.5 + 127.5 * kernel / np.abs(kernel).max()
    np.testing.assert_allclose(sheet[1:12, 25:36, :3], expected, atol=0.51)
    assert (sheet[0, :, 3] == 0).all()


def test_the_html_report_loads_nothing(written):
    """Oracle: every URL in the file is a data: URL or an anchor in the file."""
    for name in ("few.html", "many.html"):
        html = (written[0] / name).read_text()
        for tag, attributes in Reader(html).tags:
            assert tag not in ("link", "iframe", "object", "embed")
            for key in ("src", "href", "data", "poster", "action"):
                assert attributes.get(key, "#").startswith(("data:image/", "#"))
        assert not re.search(r"url\(|@import|https?://", html)


def test_hostile_names_are_escaped(written):
    """Oracle: an HTML parser finds only the scripts of the template, and the names as text."""
    reader = Reader((written[0] / "many.html").read_text())
    assert sum(tag == "script" for tag, _ in reader.tags) == 2
    assert sum(HOSTILE in row[0] for row in reader.tables["classes"]) == 1000


@pytest.mark.parametrize("settings", [(), ("lrn_k=1", "conv2.bias=1", "drop_at=0.5,0.8")])
@pytest.mark.parametrize("variants", [(), ("no-lrn", "tanh"), ("finetune",)])
def test_the_training_command_gives_the_same_recipe(report, settings, variants):
    """Oracle: the recipe that the options give, compared hyperparameter by hyperparameter."""
    recipe = build_recipe(RECIPES["modern"], variants, settings)
    config = replace(RunFolder(report.members[0].path).config, recipe=recipe)
    (command,) = train_commands(config, in_place(report), config.recipe.epochs)
    words = shlex.split(command)
    options: dict[str, list[str]] = {}
    for option, value in zip(words[3::2], words[4::2]):
        options.setdefault(option, []).append(value)
    base = RECIPES[options["--recipe"][0]]
    again = build_recipe(base, options.get("--variant", ()), options.get("--set", ()))
    assert hyperparameter_values(again) == hyperparameter_values(recipe)


def in_place(report):
    """The manifest of the report's run, which was split in place."""
    return RunFolder(report.members[0].path).manifest


def known(report):
    """The configuration of the report's run, with the name of a recipe that exists."""
    config = RunFolder(report.members[0].path).config
    return replace(config, recipe=replace(config.recipe, name="paper"))


@pytest.mark.parametrize("how", [[], ["--no-check"], ["--prepare"], ["--group", r"([0-3])\."]])
def test_the_split_command_repeats_the_split(report, image_folder, tmp_path, how):
    """Oracle: the manifest that `split` with the same options wrote."""
    split = ["split", str(image_folder), *how, "--val", "0.2", "--test", "0.1", "--seed", "3"]
    (tmp_path / "one").mkdir()
    assert CliRunner().invoke(app.app, [*split, "--out", str(tmp_path / "one")]).exit_code == 0
    manifest = split_folders.open_data(tmp_path / "one")
    config = known(report)
    commands = train_commands(config, manifest, config.recipe.epochs)
    again, _ = (shlex.split(command)[1:] for command in commands)
    again[again.index("--out") + 1] = str(tmp_path / "two")
    assert CliRunner().invoke(app.app, again).exit_code == 0
    other = split_folders.open_data(tmp_path / "two")
    assert [(f.split, f.label, f.sha256) for f in other.files] == [
        (f.split, f.label, f.sha256) for f in manifest.files
    ]
    assert any(f.record for f in other.files) == ("--prepare" in how)
    unsplit = split_folders.open_data(image_folder)
    assert len([*train_commands(config, unsplit, config.recipe.epochs)]) == 1


def test_the_commands_include_added_epochs(report):
    """Oracle: the command that adds them, written by hand."""
    config = known(report)
    first, second = train_commands(config, in_place(report), config.recipe.epochs + 2)
    assert first.startswith("alexnet train ")
    assert second == f"alexnet train --resume runs/latest --epochs {config.recipe.epochs + 2}"


def test_no_training_command_for_an_unknown_recipe(report):
    """Oracle: an empty list, as any other command would train something else."""
    config = known(report)
    for name in ("mine", "paper+no-such"):
        other = replace(config, recipe=replace(config.recipe, name=name))
        assert list(train_commands(other, in_place(report), config.recipe.epochs)) == []


def test_evaluate_writes_the_html_report(run_copy, tmp_path):
    """Oracle: the complete file, and its path on the screen."""
    out = tmp_path / "report.html"
    command = ["evaluate", "--model", str(run_copy), "--report", str(out)]
    result = CliRunner().invoke(app.app, command, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert f"report written to {out}" in result.output
    assert out.read_text().rstrip().endswith("</html>")


# In a browser


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *quiet]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, written):
    """Opens a report; fails if anything else was loaded or a script had an error."""
    requests, complaints, contexts = [], [], []

    def opened(name, width=1200, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("dialog", lambda dialog: complaints.append(dialog.message))
        tab.goto((written[0] / name).as_uri())
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in requests if url.startswith("file:")]) == len(contexts)
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("name", ["few.html", "many.html"])
def test_nothing_overflows(visit, name, width, scheme):
    """Oracle: the browser's own layout, with every detail opened, is no wider than the window."""
    tab = visit(name, width, scheme)
    tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate("[...document.images].every(one => one.naturalWidth > 0)")


def _contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.1 for two computed CSS colors."""

    def luminance(color):
        channels = [int(number) / 255 for number in re.findall(r"\d+", color)[:3]]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(visit, scheme):
    """Oracle: the formula of WCAG 2.1 and its limit of 4.5 for text (AA), with computed colors."""
    tab = visit("few.html", scheme=scheme)
    color = "getComputedStyle(document.querySelector('{}')).{}"
    ground = tab.evaluate(color.format("body", "backgroundColor"))
    for selector in ("body", "p", ".bad, .good", "figcaption", ".cards dt", "footer"):
        assert _contrast(tab.evaluate(color.format(selector, "color")), ground) > 4.5, selector
    light = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light == (scheme == "light")
    # A cell whose share is all: its shade lies half transparent on the ground.
    tab.evaluate("document.querySelector('.matrix td').style.setProperty('--part', 1)")
    *shade, part = map(
        float, re.findall(r"[\d.]+", tab.evaluate(color.format(".matrix td", "backgroundColor")))
    )
    below = map(int, re.findall(r"\d+", ground))
    blended = [round(part * over + (1 - part) * under) for over, under in zip(shade, below)]
    ink = tab.evaluate(color.format(".matrix td", "color"))
    assert _contrast(ink, "rgb({}, {}, {})".format(*blended)) > 4.5


@pytest.mark.parametrize(
    ("column", "key", "by"),
    [(1, "support", "mouse"), (3, "recall", "keyboard"), (0, "name", "mouse")],
)
def test_the_table_sorts(visit, written, column, key, by):
    """Oracle: the values of the report sorted in Python, ascending and then descending."""
    tab = visit("many.html")
    button = tab.locator("#classes thead button").nth(column)
    for descending in (False, True):
        if by == "mouse":
            button.click()
        else:
            button.focus()
            tab.keyboard.press("Enter")
        cells = tab.locator(f"#classes tbody tr > :nth-child({column + 1})").all_inner_texts()
        values = [round(getattr(one, key), 3) for one in written[1].per_class if key != "name"]
        if values:
            assert list(map(float, cells)) == sorted(values, reverse=descending)
        else:
            assert (cells[0] > cells[-1]) == descending
            assert sorted(cells) == sorted(one.name for one in written[1].per_class)
        sorted_by = tab.locator("#classes [aria-sort]")
        expected = "descending" if descending else "ascending"
        assert sorted_by.get_attribute("aria-sort") == expected
        assert sorted_by.count() == 1


def test_a_thousand_classes_can_be_selected_and_filtered(visit, written):
    """Oracle: row and column of the class in the matrix, and a search of the names in Python."""
    tab, (_, report) = visit("many.html"), written
    chosen = int(np.argmax((report.matrix > 0).sum(axis=1)))
    tab.select_option("#class", str(chosen))
    own, others = tab.locator("#confusions").inner_text().split(". Other images ")
    for text, counts in ((own, report.matrix[chosen]), (others, report.matrix[:, chosen])):
        pairs = re.findall(r"(\d+) <script>[^,]* (\d+)", text.partition(": ")[2])
        found = {int(number): int(count) for number, count in pairs}
        found.pop(chosen, None)
        expected = {int(i): int(counts[i]) for i in np.flatnonzero(counts) if i != chosen}
        assert found == expected
    tab.fill("#filter", "99")
    shown = tab.locator("#classes tbody tr:visible").count()
    assert shown == sum("99" in name for name in report.classes)


def test_printed_text_is_black_on_white(visit):
    """Oracle: the computed colors for print of a report with the dark color scheme."""
    tab = visit("few.html", scheme="dark")
    tab.emulate_media(media="print", color_scheme="dark")
    style = "getComputedStyle(document.body)"
    assert tab.evaluate(f"{style}.backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate(f"{style}.color") == "rgb(0, 0, 0)"


def test_scores_are_shown_even_if_the_confusion_matrix_can_not_be_drawn(report, run_copy, tmp_path):
    """Oracle: the scores of the evaluation, and an error that is not hidden and names the file."""
    picture = run_copy / f"confusion-{report.split}.png"
    (picture / "in the way").mkdir(parents=True)
    page = tmp_path / "page.html"
    words = ["evaluate", "--split", report.split, "--model", str(run_copy), "--report", str(page)]
    result = CliRunner().invoke(app.app, words)
    assert f"top-1 {report.one_crop.top1:.4f}, 95 % interval" in result.output
    assert f"{report.one_crop.top1:.1%}" in page.read_text()
    assert isinstance(result.exception, AlexNetError)
    assert f"{picture}': is a folder" in str(result.exception)
