"""What a stranger types and reads first: help at 80 columns, and options of other names."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import typer
from typer.core import TyperOption

from alexnet_cli.cli import old_option_names
from alexnet_cli.cli.app import app, main
from alexnet_cli.recipes import presets, variants
from alexnet_cli.recipes.hyperparameters import Conv, Dense, Recipe
from alexnet_cli.recipes.old_names import HYPERPARAMETERS, VARIANTS

COMMANDS = typer.main.get_command(app).commands


def show_help(*command):
    """Return the help of a real process on a screen of 80 columns."""
    words = [sys.executable, "-m", "alexnet_cli", *command, "--help"]
    environment = {**os.environ, "COLUMNS": "80"}
    return subprocess.run(words, capture_output=True, text=True, env=environment, check=True).stdout


def assert_readable(text):
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"…|<|\b(TEXT|INTEGER|FLOAT|PATH|list|range)\b", text)
    assert not [number for number in re.findall(r"\d+", text) if int(number) > 10**9]


def test_the_list_of_commands_is_not_cut():
    """Oracle: the first sentence of each command, of at most 45 characters."""
    text = show_help()
    assert_readable(text)
    rows = dict(re.findall(r"^  (\w+) +(.*)$", text[text.index("Commands:") :], re.MULTILINE))
    assert list(rows) == list(COMMANDS)
    for name, row in rows.items():
        assert row == COMMANDS[name].help.partition("\n")[0]
        assert len(row) <= 45


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_has_one_line(name):
    """Oracle: the options of the command."""
    text = show_help(name)
    assert_readable(text)
    *lines, _ = text[text.index("Options:") :].splitlines()[1:]  # the last is that of --help
    options = [p for p in COMMANDS[name].params if isinstance(p, TyperOption)]
    assert len(lines) == len(options)
    for option in options:
        (line,) = (line for line in lines if re.match(rf"  (-\w, )?{option.opts[0]}\b", line))
        assert option.help in line
        assert option.is_flag or re.search(r"^  --[\w-]+ [\w=:,.|]+  ", line)  # a metavar


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("predict x.jpg --none-below 0.5", "No such option: --none-below. It is now --threshold."),
        ("evaluate --none-below=0.5", "No such option: --none-below. It is now --threshold."),
        ("export --form int8", "No such option: --form. It is now --quantize."),
        ("export --licence MIT", "No such option: --licence. It is now --license."),
        ("train --workers a:1,b:1", "No such option: --workers. It is now --hosts."),
        ("train --worker 1", "No such option: --worker. It is now --rank."),
        ("train --lr 0.1", "No such option: --lr. Did you mean --learning-rate?"),
        ("train --batch 16", "No such option: --batch. Did you mean --batch-size?"),
        ("train --device cpu", "No such option: --device. Did you mean --gpus?"),
        ("train --epoch 3", "No such option: --epoch. Did you mean --epochs?"),
        ("train --recip x", "No such option: --recip. Did you mean --recipe or --precision?"),
        ("train --set squash=true", "--set squash: is now stretch"),
        ("train --set conv2.then=relu", "--set conv2.then: is now conv2.post_ops"),
        ("train --variant no-colour-noise", "--variant no-colour-noise: is now no-color-noise"),
        ("evaluate --device cpu", "No such option: --device"),
        ("train --form int8", "No such option: --form"),
    ],
)
def test_an_old_name_is_answered_with_the_new_name(words, answer, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["alexnet", *words.split()])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", f"alexnet: {answer}\n")


def test_new_names_of_renamed_options_exist():
    """Oracle: the existing options, hyperparameters and variants; none has the old name."""
    options = {name for command in COMMANDS.values() for p in command.params for name in p.opts}
    for table in (old_option_names.RENAMED, old_option_names.ALIASES):
        assert set(table.values()) <= options
    assert not options & set(old_option_names.RENAMED)
    named = {name for owner in (Recipe, Conv, Dense) for name in owner.__dataclass_fields__}
    assert set(HYPERPARAMETERS.values()) <= named
    assert not named & set(HYPERPARAMETERS)
    assert set(VARIANTS.values()) <= set(variants.VARIANTS)


def test_the_default_recipe_is_marked(capsys, monkeypatch):
    """Oracle: the name of the default recipe; no other line is marked."""
    monkeypatch.setattr(sys, "argv", ["alexnet", "recipes"])
    with pytest.raises(SystemExit):
        main()
    marked = re.findall(r"^(\S+) +\(default\)", capsys.readouterr().out, re.MULTILINE)
    assert marked == [presets.DEFAULT]
