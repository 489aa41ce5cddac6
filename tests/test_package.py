"""The package as it is installed: the wheel's contents, and the three commands in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from helpers import HANG, paint

from alexnet_cli.version import __version__

ROOT = Path(__file__).parent.parent


def run(*words, **options):
    done = subprocess.run(words, capture_output=True, text=True, timeout=HANG, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the sources by the tools that are installed."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", "wheel", *options, ROOT)
    (path,) = folder.iterdir()
    return path


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    """Oracle: the files of alexnet_cli on disk; license and version as the repository states them."""
    package = ROOT / "alexnet_cli"
    on_disk = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        info = f"alexnet_cli-{__version__}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        license = archive.read(f"{info}/licenses/LICENSE")
    assert {name for name in names if not name.startswith(info)} == on_disk
    assert {"alexnet_cli/py.typed", "alexnet_cli/reports/templates/report.html"} <= on_disk
    assert (metadata["Version"], metadata["License-Expression"]) == (__version__, "Apache-2.0")
    assert license == (ROOT / "LICENSE").read_bytes()


def test_the_three_commands_work_where_only_the_wheel_is_installed(wheel, tmp_path):
    """Oracle: a class of the folder, and probabilities that sum to 1; the sources are not in reach."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    options = ("--no-deps", "--no-index", "--quiet")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel)
    paint(tmp_path / "flowers", 3)
    # Other packages are those of this environment; its own alexnet_cli is linked, not in this folder.
    packages = sysconfig.get_path("purelib")
    assert not Path(packages, "alexnet_cli").exists()
    reach = {"env": {**os.environ, "PYTHONPATH": packages}, "cwd": tmp_path}
    alexnet = environment / "bin" / "alexnet"
    place = run(python, "-c", "import alexnet_cli; print(alexnet_cli.__file__)", **reach)
    assert place.startswith(str(environment))
    run(alexnet, "split", "flowers/", "--val", "0.34", **reach)
    run(
        alexnet,
        "train",
        "--epochs",
        "1",
        "--set",
        "resize_size=72",
        "--set",
        "crop_size=67",
        **reach,
    )
    answer = run(alexnet, "predict", "flowers/red/0.png", "--csv", **reach)
    rows = [line.split(",") for line in answer.splitlines()[1:]]
    assert {row[2] for row in rows} == {"blue", "green", "red"}
    assert sum(float(row[3]) for row in rows) == pytest.approx(1, abs=1e-4)
