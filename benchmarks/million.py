"""A data set of ImageNet's size, of hard links to a few photographs: time and memory.

    python -m benchmarks.million FOLDER WORK

FOLDER holds class folders of photographs, WORK lies on the same file system and takes 1,281,167
links in 1000 folders. Plans it without reading, trains to the first batches, and interrupts a
check of the contents to see that the next goes on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import alexnet, line

N_IMAGES, N_CLASSES = 1_281_167, 1000

# Prints a line of seconds and peak bytes whenever something is done.
WORK = """
import resource, sys, time
began = time.time()
from pathlib import Path

def mark(what):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{what:<44} {time.time() - began:6.1f} s, peak {peak:.2f} GB", flush=True)

tree, out = map(Path, sys.argv[2:])
if sys.argv[1] == "plan":
    from alexnet_cli.data import scanning, splitting
    from alexnet_cli.data.split_plan import plan_split
    scan = scanning.scan(tree, scanning.ScanOptions(check=False))
    mark("folders listed")
    plan = plan_split(scan)
    mark("split planned")
else:
    from alexnet_cli.system import tensorflow_startup
    tensorflow_startup.load_tensorflow()
    from alexnet_cli.training import start_and_resume
    from alexnet_cli.training.devices import choose_devices
    from alexnet_cli.recipes.presets import PAPER
    from alexnet_cli.training.callbacks import Callback
    mark("TensorFlow imported")

    class Few(Callback):
        steps = 0
        def on_read_progress(self, done, total):
            if done in (1, total):
                mark(f"image {done:,} of {total:,} measured")
        def on_train_begin(self, plan):
            mark("network built")
        def on_batch_end(self, epoch, done, total):
            self.steps += 1
            if self.steps in (1, 20):
                mark(f"batch {self.steps} learned from")
            if self.steps == 20:
                raise SystemExit

    devices, callback = choose_devices(0), Few()
    start_and_resume.train(tree, recipe=PAPER, devices=devices, out=out, check=False, callback=callback)
"""


def grow(folder: Path, tree: Path) -> None:
    """Make the tree of links."""
    photographs = sorted(folder.rglob("*.jpg"))
    for number in range(N_CLASSES):
        label = tree / f"n{number:08d}"
        label.mkdir(parents=True)
        for index in range(N_IMAGES * number // N_CLASSES, N_IMAGES * (number + 1) // N_CLASSES):
            os.link(photographs[index % len(photographs)], label / f"{index:07d}.JPEG")


def interrupt(tree: Path, out: Path, seconds: float) -> int:
    """Check contents for a while, then Ctrl-C; returns how many the journal knows."""
    command = alexnet("split", tree, "--out", out, "--link", "symbolic")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        process.wait()
    with out.with_name(f".{out.name}.checked.jsonl").open() as lines:
        return sum(len(text) > 1 for text in lines)


def main() -> None:
    """Plan, begin to train, interrupt a check."""
    folder, work = Path(sys.argv[1]), Path(sys.argv[2])
    tree = work / "tree"
    if not tree.exists():
        grow(folder, tree)
    for what in ("plan", "train"):
        subprocess.run([sys.executable, "-c", WORK, what, tree, work / "runs"], check=True)
    counts = [interrupt(tree, work / "split", seconds) for seconds in (60, 60)]
    line("contents known after a minute", f"{counts[0]:,}")
    line("after another", f"{counts[1]:,}")


if __name__ == "__main__":
    main()
