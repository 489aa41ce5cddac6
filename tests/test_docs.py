"""The README against the program: neither may know an option that the other lacks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from alexnet_cli.cli.app import app
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.recipes import presets

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("name", COMMANDS)
def test_the_readme_has_every_option_and_no_other(name):
    """Oracle: the options that the command itself declares."""
    section = re.search(rf"### alexnet {name} .*?(?=\n##)", README, re.DOTALL).group()
    documented = set(re.findall(r"`(--[a-z-]+)", section))
    declared = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    declared = {option for option in declared if option.startswith("--")} - {"--help"}
    assert documented == declared


def test_the_readme_has_every_recipe_and_every_package():
    for name in presets.RECIPES:
        assert f"`{name}` is " in README
    tree = README[README.index("## The code") :]
    packages = {path.parent.name for path in (ROOT / "alexnet_cli").glob("*/__init__.py")}
    assert set(re.findall(r"^  (\w+)/", tree, re.MULTILINE)) == packages


def test_what_the_readme_points_at_is_there():
    targets = re.findall(r"\]\(([^)#:]+)\)|src=\"([^\":]+)\"", README)
    assert "docs/curves.png" in {"".join(target) for target in targets}
    for target in targets:
        assert (ROOT / "".join(target)).exists(), target


def test_make_targets_are_real():
    """Oracle: the Makefile's own rules."""
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", README)) <= rules


def test_the_example_credits_exactly_its_images():
    """Oracle: the files on disk; the license asks for credit of each."""
    flowers = ROOT / "examples" / "flowers"
    lines = (flowers / "LICENSE.txt").read_text().splitlines()
    credited = sorted(line.split()[0] for line in lines if " CC-BY " in line)
    assert credited == sorted(str(p.relative_to(flowers)) for p in flowers.rglob("*.jpg"))
    assert len(credited) == 200


def test_the_scale_on_paper_is_what_its_formulas_give():
    """Oracle: the formulas, with the parameters of the network itself."""
    parameters, speed = build_alexnet(presets.PAPER, 1000).count_params(), 100e12
    flop = 2 * (3 * 724_406_816 - 96 * 363 * 55 * 55)
    text = (ROOT / "docs" / "scale.md").read_text()
    assert f"{parameters:,} parameters" in text
    assert f"{flop / 1e9:.2f} GFLOP" in text

    def wire(n, bandwidth):
        return 2 * (n - 1) / n * 4 * parameters / (bandwidth * 1e9)

    batches = re.findall(r"^\| ([\d.]+) GB/s [^|]*\| (.*) \|$", text, re.MULTILINE)
    hours = re.findall(r"^\| (1|8|64) \| (.*) \|$", text, re.MULTILINE)
    assert len(batches) == len(hours) == 3
    for bandwidth, row in batches:
        for n, cell in zip((2, 8, 64), row.split(" | ")):
            equal = n * speed * wire(n, float(bandwidth)) / flop
            assert float(cell.replace(",", "")) == pytest.approx(equal, rel=0.01)
    columns = ((128, 300), (1024, 300), (1024, 25), (1024, 1.25))
    for n, row in hours:
        for (batch, bandwidth), cell in zip(columns, row.split(" | ")):
            seconds = batch / int(n) * flop / speed + wire(int(n), bandwidth)
            expected = 1_281_167 * 90 / batch * seconds / 3600
            assert float(cell) == pytest.approx(expected, abs=0.011)
