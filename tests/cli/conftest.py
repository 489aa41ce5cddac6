"""A command line, run in the process of the test."""

from __future__ import annotations

import sys

import pytest
from helpers import QUICK

from alexnet_cli.cli.app import main
from alexnet_cli.recipes import presets


@pytest.fixture
def alexnet(capfd, monkeypatch):
    """Run a command line in this process; returns exit code, stdout and stderr."""
    monkeypatch.setitem(presets.RECIPES, "quick", QUICK)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["alexnet", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capfd.readouterr()
        return stop.value.code or 0, out, err

    return run
