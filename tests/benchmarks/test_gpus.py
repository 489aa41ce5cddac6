"""The check of a machine's GPUs, on logical devices and on results that are wrong on purpose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import HANG

from alexnet_cli.runs.run_folder import LAST
from alexnet_cli.runs.weights_file import load_arrays, read_notes, save_arrays
from alexnet_cli.training.devices import choose_devices
from benchmarks import gpus

ROOT = Path(__file__).parents[2]


def run_check(*options):
    """Run `python -m benchmarks.gpus` where TensorFlow finds no GPU."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpus", *options],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG,
    )


def test_a_rehearsal_compares_and_measures_everything():
    """Oracle: the CPU undivided; the same network on two logical devices adds in another order."""
    done = run_check("--rehearse", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "passed"
    of_devices = [line for line in lines if line.startswith("2 logical devices")]
    assert sum("at most" in line for line in of_devices) == 6  # products, 4 losses, weights
    assert sum("images/s" in line for line in of_devices) >= 1


def test_without_gpus_it_says_so_in_one_line():
    """Oracle: the contract: one line on standard error, and exit code 1."""
    done = run_check()
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("TensorFlow finds no GPU")
    assert done.stderr.count("\n") == 1


def test_a_run_agrees_with_itself(trained, capsys):
    """Oracle: the definition of a difference."""
    gpus.compare_runs(trained, trained, "itself")
    assert " 0.0e+00 " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["conv2/tower1/kernel", "velocity/fc7/bias"])
def test_an_array_that_differs_is_named(trained, run_copy, name):
    """Oracle: the one array that was changed, by a hundredth more than is allowed."""
    arrays = load_arrays(trained / LAST)
    arrays[name] = arrays[name] * np.float32(1 + 1.01 * gpus.TOLERANCE)
    save_arrays(run_copy / LAST, arrays, read_notes(trained / LAST))
    with pytest.raises(gpus.Difference, match=f"the most in {name}"):
        gpus.compare_runs(trained, run_copy, "changed")


def test_a_loss_that_differs_is_named_by_its_epoch(trained, run_copy):
    """Oracle: the one loss that was changed."""
    notes = read_notes(trained / LAST)
    notes["history"][1]["val_loss"] *= 1 + 2 * gpus.LOSS_TOLERANCE
    save_arrays(run_copy / LAST, load_arrays(trained / LAST), notes)
    with pytest.raises(gpus.Difference, match="val loss of epoch 2"):
        gpus.compare_runs(trained, run_copy, "changed")


def test_nan_is_a_difference(capsys):
    """Oracle: a NaN is within no limit."""
    with pytest.raises(gpus.Difference):
        gpus.require("loss", float("nan"), 1.0)


def test_a_product_that_is_rounded_like_tensor_float_32_is_seen():
    """Oracle: 1 + 2⁻¹² rounds to 1 in bfloat16, as in TensorFloat-32: an error of 2⁻¹² of 1 + 2⁻¹²."""
    devices = choose_devices(0)
    assert gpus.product_error(devices) <= gpus.PRODUCT_TOLERANCE
    error = gpus.product_error(devices, "bfloat16")
    assert error == pytest.approx(1 - 1 / (1 + 2**-12), rel=1e-6)
    assert error > gpus.PRODUCT_TOLERANCE


def test_the_memory_of_the_cards_is_that_of_the_driver(tmp_path, monkeypatch):
    """Oracle: by hand. 300 of the free 1000 MiB are taken on one card, 1800 of 2000 on the other."""
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "500, 700"\necho "1900, 200"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpus.card_memory() == [(500, 700), (1900, 200)]
    assert gpus.memory_taken([(200, 1000), (100, 2000)]) == 0.9
    assert gpus.memory_taken([]) == 0


def test_a_driver_that_counts_no_memory_ends_the_check_in_one_line(tmp_path, monkeypatch):
    """Oracle: `[N/A]`, as nvidia-smi prints for a part of a card."""
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "[N/A], [N/A]"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(SystemExit, match="nvidia-smi does not tell"):
        gpus.card_memory()


def test_every_wait_for_a_batch_is_counted():
    """Oracle: the values themselves; one wait for each."""
    waits: list[float] = []
    assert list(gpus.timed(lambda n: iter(range(n)), waits)(5)) == [0, 1, 2, 3, 4]
    assert len(waits) == 5
