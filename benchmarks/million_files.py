"""Time and memory on a data set of ImageNet's size, made of hard links to a few images.

    python -m benchmarks.million_files FOLDER WORK

FOLDER holds class folders of images; WORK lies on the same file system and gets 1,281,167 links in
1000 folders. The benchmark plans a split without reading the images, trains on the first batches,
and interrupts `alexnet split` twice to see that the second scan resumes where the first stopped.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from alexnet_cli.data.scan_cache import cache_path
from benchmarks.common import alexnet_command, print_row

N_IMAGES, N_CLASSES = 1_281_167, 1000

# Prints the seconds since the start and the peak memory at each stage.
STAGES = """
import resource, sys, time
began = time.time()
from pathlib import Path

def mark(what):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{what:<44} {time.time() - began:6.1f} s, peak {peak:.2f} GB", flush=True)

tree, out = map(Path, sys.argv[2:])
if sys.argv[1] == "plan":
    from alexnet_cli.data import scanning, split_folders
    from alexnet_cli.data.split_plan import plan_split
    scan = scanning.scan(tree, scanning.ScanOptions(check=False))
    mark("folders listed")
    plan = plan_split(scan)
    mark("split planned")
else:
    from alexnet_cli.system import tensorflow_startup
    tensorflow_startup.load_tensorflow()
    import alexnet_cli as alexnet
    mark("TensorFlow imported")

    class FewSteps(alexnet.Callback):
        steps = 0
        def on_read_progress(self, done, total):
            if done in (1, total):
                mark(f"image {done:,} of {total:,} read for statistics")
        def on_train_begin(self, plan):
            mark("network built")
        def on_batch_end(self, epoch, done, total):
            self.steps += 1
            if self.steps in (1, 20):
                mark(f"step {self.steps} done")
            if self.steps == 20:
                raise SystemExit

    alexnet.train(tree, recipe="paper", gpus=0, out=out, check=False, callback=FewSteps())
"""


def make_links(folder: Path, tree: Path) -> None:
    """Make class folders of hard links to the images of `folder`."""
    images = sorted(folder.rglob("*.jpg"))
    for number in range(N_CLASSES):
        label = tree / f"n{number:08d}"
        label.mkdir(parents=True)
        for index in range(N_IMAGES * number // N_CLASSES, N_IMAGES * (number + 1) // N_CLASSES):
            os.link(images[index % len(images)], label / f"{index:07d}.JPEG")


def interrupt_split(tree: Path, out: Path, seconds: float) -> int:
    """Run `alexnet split`, interrupt it, and return the number of files in its scan cache."""
    command = alexnet_command("split", tree, "--out", out, "--link", "symbolic")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        process.wait()
    cache = cache_path(out)
    assert cache
    with cache.open() as lines:
        return sum(len(text) > 1 for text in lines)


def main() -> None:
    """Plan a split, train a few steps, and interrupt two scans."""
    folder, work = Path(sys.argv[1]), Path(sys.argv[2])
    tree = work / "tree"
    if not tree.exists():
        make_links(folder, tree)
    for what in ("plan", "train"):
        subprocess.run([sys.executable, "-c", STAGES, what, tree, work / "runs"], check=True)
    counts = [interrupt_split(tree, work / "split", seconds) for seconds in (60, 60)]
    print_row("files checked after one minute", f"{counts[0]:,}")
    print_row("files checked after two minutes", f"{counts[1]:,}")


if __name__ == "__main__":
    main()
