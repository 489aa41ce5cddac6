"""What `make` would run, by its own dry run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMES = {".": "running", "'.[dev]'": "developing"}

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


@pytest.fixture
def project(tmp_path):
    """The files that installing depends on, and an environment with both stamps."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
        os.utime(tmp_path / name, (100, 100))
    (tmp_path / ".venv").mkdir()
    for age, stamp in ((200, "ready"), (300, "dev-ready")):
        (tmp_path / ".venv" / stamp).touch()
        os.utime(tmp_path / ".venv" / stamp, (age, age))
    return tmp_path


def installed(project, target):
    """Return what `make` would install for `target`, in order."""
    # The tests may themselves run in a `make`, whose flags are not meant for this one.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    command = ["make", "--dry-run", target]
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if "pip install" in line]
    return [NAMES[line.split("--editable ")[1]] for line in lines]


@pytest.mark.parametrize("target", ["demo", "test", "check", "fix", "bench"])
@pytest.mark.parametrize(
    ("removed", "demo", "others"),
    [
        ((), [], []),
        (("dev-ready",), [], ["developing"]),
        (("ready", "dev-ready"), ["running"], ["running", "developing"]),
    ],
)
def test_the_demo_installs_no_tools_of_developers(project, target, removed, demo, others):
    """Oracle: what is missing, after no other target, after the demo, and after the tests."""
    for stamp in removed:
        (project / ".venv" / stamp).unlink()
    assert installed(project, target) == (demo if target == "demo" else others)


def test_other_packages_are_installed_anew(project):
    """Oracle: both kinds, as both come from pyproject.toml."""
    os.utime(project / "pyproject.toml", (400, 400))
    assert installed(project, "demo") == ["running"]
    assert installed(project, "test") == ["running", "developing"]
