"""The packages import each other downward only, as `make check` enforces."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint(folder):
    """Check the contracts of the project on the copy of the package in `folder`."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("", True),
        ("from alexnet_cli.runs import models\n", False),
        ("def upward():\n    from alexnet_cli.runs import models\n", False),
        ("if TYPE_CHECKING:\n    from alexnet_cli.runs import models\n", True),
    ],
)
def test_an_upward_import_fails_the_check(tmp_path, line, kept):
    """Oracle: import-linter itself, on a module of `system` with one more line."""
    shutil.copytree(ROOT / "alexnet_cli", tmp_path / "alexnet_cli")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    module = tmp_path / "alexnet_cli" / "system" / "memory.py"
    module.write_text(module.read_text() + "\nfrom typing import TYPE_CHECKING\n" + line)
    done = lint(tmp_path)
    assert (done.returncode == 0) == kept, done.stdout + done.stderr
    if not kept:
        assert "alexnet_cli.system is not allowed to import alexnet_cli.runs" in done.stdout


def test_nothing_imports_the_root_of_the_package():
    """Oracle: the syntax tree of every module; the root hands on the API, which is above all others."""
    for path in (ROOT / "alexnet_cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module != "alexnet_cli", path
            if isinstance(node, ast.Import):
                assert "alexnet_cli" not in {alias.name for alias in node.names}, path
