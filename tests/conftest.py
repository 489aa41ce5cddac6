"""Shared fixtures: a folder of images, a trained run, and devices and processors for all tests."""

from __future__ import annotations

import copy
import logging
import os
import shutil
from pathlib import Path

import pytest
from helpers import paint, run, sign

from alexnet_cli.system import tensorflow_startup

CPUS = "ALEXNET_TEST_CPUS"  # a number of processors to claim, in place of those of the machine


def pytest_configure() -> None:
    """Set up processors and import TensorFlow quietly, before any test module is imported."""
    if CPUS in os.environ:
        count = int(os.environ[CPUS])
        os.cpu_count = lambda: count
        os.sched_getaffinity = lambda pid: set(range(count))
    tensorflow_startup.load_tensorflow()
    logging.getLogger("tensorflow").addFilter(_is_not_about_retracing)


def _is_not_about_retracing(record) -> bool:
    """Drop the warning about repeated tracing, which many trainings in one process cause."""
    return "triggered tf.function retracing" not in record.getMessage()


def pytest_sessionstart(session) -> None:
    """Print the option that repeats this order, as pytest omits its header with -q."""
    if session.config.getoption("randomly_reorganize", False):
        seed = session.config.getoption("randomly_seed")
        if reporter := session.config.pluginmanager.get_plugin(
            "terminalreporter"
        ):  # no worker has it
            reporter.write_line(f"order and draws of these tests: --randomly-seed={seed}")


@pytest.fixture(autouse=True)
def reset_random(request, monkeypatch):
    """Give each test the RANDOM of its module in its initial state."""
    if generator := getattr(request.module, "RANDOM", None):
        monkeypatch.setattr(request.module, "RANDOM", copy.deepcopy(generator))


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory) -> Path:
    """Three classes of 12 images each; do not write into it."""
    return paint(tmp_path_factory.mktemp("images") / "colors", per_class=12)


@pytest.fixture(scope="session")
def training_report(image_folder, tmp_path_factory):
    """The report of the shared run: QUICK, in float32, on `image_folder`."""
    report = run(image_folder, tmp_path_factory.mktemp("trained"))
    before = _dates(report.run)
    yield report
    assert _dates(report.run) == before, "a test wrote into `trained`: it should take `run_copy`"


def _dates(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def trained(training_report) -> Path:
    """The folder of the shared run; do not write into it."""
    return training_report.run


@pytest.fixture
def run_copy(trained, tmp_path) -> Path:
    """A copy of the shared run that a test may change, the newest in `runs/` of its `tmp_path`."""
    runs = tmp_path / "runs"
    path = Path(shutil.copytree(trained, runs / trained.name))
    (runs / "latest").symlink_to(trained.name)
    return path


@pytest.fixture
def moved(run_copy, image_folder, tmp_path) -> tuple[Path, Path]:
    """A copy of the shared run that was trained on images in `old`, and the folder they moved to."""
    for name in ("config.json", "manifest.jsonl"):
        text = (run_copy / name).read_text()
        (run_copy / name).write_text(text.replace(str(image_folder), str(tmp_path / "old")))
    sign(run_copy)
    return run_copy, Path(shutil.copytree(image_folder, tmp_path / "new"))
