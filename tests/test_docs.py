"""The README and docs/ against the program: neither has a name that the other lacks."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import numpy as np
import pytest
import typer
from PIL import Image

import alexnet_cli
from alexnet_cli.cli.app import app
from alexnet_cli.data import scanning
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.recipes import presets
from alexnet_cli.recipes.variants import VARIANTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = typer.main.get_command(app).commands
API = (ROOT / "docs" / "python.md").read_text()
PUBLIC = [name for name in alexnet_cli.__all__ if name != "__version__"]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_commands_has_a_section_with_every_option(name):
    """Oracle: the options that the command itself declares."""
    section = sections((ROOT / "docs" / "cli.md").read_text())[name]
    declared = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert declared - set(re.findall(r"--[a-z-]+", section)) <= {
        o for o in declared if o[:1] != "-"
    }


def test_the_page_of_commands_is_what_the_program_shows():
    """Oracle: `docs/generate.py`, which runs every command with --help."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import generate
    finally:
        sys.path.pop(0)
    page = generate.CLI.read_text()
    assert len(generate.HELP.findall(page)) == len(COMMANDS) + 1
    assert generate.with_current_help(page) == page


def test_every_recipe_is_described():
    """Oracle: `presets.RECIPES`."""
    page = (ROOT / "docs" / "replicate-2012.md").read_text()
    for name in presets.RECIPES:
        assert f"- `{name}` is " in page


def test_every_variant_is_named():
    """Oracle: `variants.VARIANTS`."""
    page = (ROOT / "docs" / "replicate-2012.md").read_text()
    assert [name for name in VARIANTS if f"`{name}`" not in page] == []


def test_the_readme_is_short_and_has_the_three_commands():
    """Oracle: 150 lines, 1,200 words; the commands as people type them."""
    assert len(README.splitlines()) <= 150
    assert len(README.split()) <= 1200
    commands = (
        "alexnet split flowers/\nalexnet train --epochs 90 --gpus 2\nalexnet predict rose.jpg"
    )
    assert f"```\n{commands}\n```" in README


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page):
    """Oracle: the files on disk, and the headings as GitHub makes them anchors."""
    for target, anchor in re.findall(r"\]\(([^)#: ]*)(?:#([^)]+))?\)", page.read_text()):
        path = page.parent / target if target else page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
            assert anchor in anchors, f"{target}#{anchor}"


def test_the_list_of_pages_is_complete():
    """Oracle: the files in docs/."""
    listed = re.findall(r"^\| \[(.+?)\]", (ROOT / "docs" / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(p.name for p in ROOT.glob("docs/*.md") if p.name != "README.md")


def test_files_and_modules_that_pages_name_exist():
    """Oracle: the files on disk."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")]
    for page in pages:
        text = page.read_text()
        named = re.findall(r"\b(?:alexnet_cli|benchmarks|docs|tests)/[\w/-]+\.\w+", text)
        named += [f"benchmarks/{name}.py" for name in re.findall(r"-m benchmarks\.(\w+)", text)]
        missing = [name for name in named if not (ROOT / name).exists()]
        assert not missing, page


def test_make_targets_are_real():
    """Oracle: the Makefile's own rules."""
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert (
            set(re.findall(r"(?:^|`)make ([a-z]+)(?=[`\s])", page.read_text(), re.MULTILINE))
            <= rules
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_has_valid_options(page):
    """Oracle: the parser of the command line."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    shell = "\n".join(text for language, text in blocks if not language)
    context = click.Context(typer.main.get_command(app))
    for line in re.findall(r"^(?:\$ )?alexnet (.*)$", shell, re.MULTILINE):
        name, *words = shlex.split(line, comments=True)
        if name in COMMANDS and "--help" not in words:
            COMMANDS[name].make_context(name, words, parent=context)


def test_the_example_credits_exactly_its_images():
    """Oracle: the files on disk; the license asks for credit of each."""
    flowers = ROOT / "examples" / "flowers"
    lines = (flowers / "LICENSE.txt").read_text().splitlines()
    credited = sorted(line.split()[0] for line in lines if " CC-BY " in line)
    assert credited == sorted(str(p.relative_to(flowers)) for p in flowers.rglob("*.jpg"))
    assert len(credited) == 200


def test_the_list_of_imagenet_is_what_its_page_writes(tmp_path, monkeypatch):
    """Oracle: rows by hand; a kit made up here in the form of the real one, whose folders are the list's."""
    scipy_io = pytest.importorskip("scipy.io")
    kit, images = tmp_path / "ILSVRC2012_devkit_t12" / "data", tmp_path / "imagenet"
    kit.mkdir(parents=True)
    synsets = np.array(
        [(1, "n02119789", "kit fox"), (2, "n02100735", "English setter")],
        [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")],
    )
    scipy_io.savemat(kit / "meta.mat", {"synsets": synsets})
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n1\n2\n")
    paths = [
        *(f"train/{name}/{name}_1.JPEG" for name in ("n02119789", "n02100735")),
        *(f"val/ILSVRC2012_val_0000000{number}.JPEG" for number in (1, 2, 3)),
    ]
    for number, path in enumerate(paths):
        (images / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (number, 0, 0)).save(images / path, "JPEG")
    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/replicate-2012.md").read_text(), re.S
    )
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "replicate-2012.md", "exec"), {})
    labels = ["n02119789", "n02100735", "n02100735", "n02119789", "n02100735"]
    found = scanning.find_candidates(tmp_path / "imagenet.csv").files
    assert {(file.path, file.label, file.split) for file in found} == {
        (images / path, label, path.partition("/")[0]) for path, label in zip(paths, labels)
    }


def test_the_scale_on_paper_is_what_its_formulas_give():
    """Oracle: the formulas, with the parameters of the network itself."""
    parameters, speed = build_alexnet(presets.PAPER, 1000).count_params(), 100e12
    flop = 2 * (3 * 724_406_816 - 96 * 363 * 55 * 55)
    text = (ROOT / "docs" / "performance.md").read_text()
    assert f"{parameters:,} parameters" in text
    assert f"{flop / 1e9:.2f} GFLOP" in text

    def traffic(n, bandwidth):
        return 2 * (n - 1) / n * 4 * parameters / (bandwidth * 1e9)

    batches = re.findall(r"^\| ([\d.]+) GB/s [^|]*\| (.*) \|$", text, re.MULTILINE)
    hours = re.findall(r"^\| (1|8|64) \| (.*) \|$", text, re.MULTILINE)
    assert len(batches) == len(hours) == 3
    for bandwidth, row in batches:
        for n, cell in zip((2, 8, 64), row.split(" | ")):
            equal = n * speed * traffic(n, float(bandwidth)) / flop
            assert float(cell.replace(",", "")) == pytest.approx(equal, rel=0.01)
    columns = ((128, 300), (1024, 300), (1024, 25), (1024, 1.25))
    for n, row in hours:
        for (batch, bandwidth), cell in zip(columns, row.split(" | ")):
            seconds = batch / int(n) * flop / speed + traffic(int(n), bandwidth)
            expected = 1_281_167 * 90 / batch * seconds / 3600
            assert float(cell) == pytest.approx(expected, abs=0.011)


def sections(text):
    """Return the text below each `## ` heading by its title."""
    return dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))


def rows(section):
    """Return the names in the first column of a section's table."""
    first_cells = "".join(re.findall(r"^\|([^|]*)\|", section, re.MULTILINE))
    return re.findall(r"`(.+?)`", first_cells)


def written(arguments):
    """Return name, kind and default of every parameter of a documented call; `...` is any function."""
    return parameters(eval(f"(lambda {arguments}: None)"))


def parameters(function):
    """Return name, kind and default of every parameter but self; a default function is `...`."""
    found = inspect.signature(function).parameters.values()
    found = [(p.name, p.kind, p.default) for p in found if p.name != "self"]
    return [(*rest, ... if inspect.isfunction(default) else default) for *rest, default in found]


def members(cls):
    """Return the public attributes of a class: its methods, properties, fields, and what it sets."""
    set_by_itself = re.findall(r"self\.(\w+)", inspect.getsource(cls))
    names = {*vars(cls), *inspect.get_annotations(cls), *set_by_itself}
    return {name for name in names if not name.startswith("_")}


def test_the_python_page_has_every_public_name_and_no_other():
    """Oracle: `alexnet_cli.__all__`."""
    titles = [title.replace("\\", "") for title in sections(API)]
    assert sorted(titles) == sorted(alexnet_cli.__all__)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name.islower()])
def test_the_python_page_has_every_parameter_of_a_function(name):
    """Oracle: the function's own signature; the table has a row for each parameter and no other."""
    section = sections(API)[name]
    (arguments,) = re.findall(
        rf"^```python\n{name}\((.*?)\)\n```", section, re.MULTILINE | re.DOTALL
    )
    expected = parameters(getattr(alexnet_cli, name))
    assert written(arguments) == expected
    assert sorted(rows(section)) == sorted(parameter for parameter, *_ in expected)


@pytest.mark.parametrize("name", [name for name in PUBLIC if not name.islower()])
def test_the_python_page_has_every_member_of_a_class(name):
    """Oracle: the class itself, and the signature of each of its methods."""
    cls = getattr(alexnet_cli, name)
    calls = {row.partition("(")[0]: row for row in rows(sections(API)[name])}
    assert set(calls) == members(cls)
    for member, row in calls.items():
        method = inspect.isfunction(vars(cls).get(member))
        assert row.endswith(")") == method, member
        if method:
            arguments = row.partition("(")[2][:-1]
            assert written(arguments) == parameters(getattr(cls, member)), member


def test_the_architecture_page_has_every_module_and_the_import_order():
    """Oracle: the files of the packages, and the contract that import-linter enforces."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    (order,) = re.findall(r"^```\n(.*?)^```", ARCHITECTURE, re.MULTILINE | re.DOTALL)
    assert order.splitlines() == contract["layers"]
    described = {name: text for name, text in sections(ARCHITECTURE).items() if name.islower()}
    assert list(described) == re.findall(r"\w+", order)
    for package, section in described.items():
        modules = {path.stem for path in (ROOT / "alexnet_cli" / package).glob("*.py")}
        listed = re.findall(r"^- `(\w+)`: ", section, re.MULTILINE)
        assert listed == sorted(modules - {"__init__"}), package


def test_the_picture_of_a_terminal_loads_nothing():
    """Oracle: the text that was given; the addresses of the namespace and the generator, no others."""
    command = [sys.executable, str(ROOT / "docs" / "terminal.py"), "make demo"]
    screen = "\x1b[1mroses\x1b[0m 72.5%\ntulips 20.3%\n"
    picture = subprocess.run(
        command, input=screen, capture_output=True, text=True, check=True
    ).stdout
    assert ">roses<" in picture
    addresses = set(re.findall(r"https?://[^\s\"')<]+", picture))
    assert addresses == {"http://www.w3.org/2000/svg", "https://www.textualize.io"}
    assert set(re.findall(r"font-family: (.*?);", picture)) == {"monospace"}
