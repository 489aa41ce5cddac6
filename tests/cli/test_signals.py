"""Ctrl-C and SIGTERM where no training has begun: an exit code, no word, and nothing left behind.

Those that come within a training are in `test_training.py` and `test_kills.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers import HANG

# Runs the command line, and sends the signal once, at the audit event EVENT with TEXT.
STRIKE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background lacks
number, event, text, *sys.argv[1:] = sys.argv[1:]
def strike(name, arguments):
    global event
    if name == event and text in str(arguments[0]):
        event = None
        os.kill(os.getpid(), getattr(signal, number))
sys.addaudithook(strike)
from alexnet_cli.__main__ import main
main()
"""


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize(
    ("command", "event", "text"),
    [
        ("split {image_folder}", "import", "alexnet_cli.cli.app"),
        ("split {image_folder}", "open", "green/5.png"),
        ("split {image_folder}", "shutil.copyfile", "green/5.png"),
        ("train {image_folder} --no-check --gpus 0", "open", "green/5.png"),
        # TensorFlow has written to the screen by then.
        ("train {image_folder} --gpus 0", "import", "keras.src"),
    ],
)
def test_a_signal_leaves_nothing(image_folder, tmp_path, command, event, text, number, code):
    """Oracle: the exit code that shells use, no output, and a folder that is still empty."""
    words = command.format(image_folder=image_folder).split()
    quiet = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", STRIKE, number, event, text, *words],
        cwd=tmp_path,
        env={**quiet, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    assert list(tmp_path.iterdir()) == []
