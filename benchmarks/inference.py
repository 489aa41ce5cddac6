"""Evaluation and prediction, against the same forward pass fed from memory.

python -m benchmarks.inference [FOLDER]
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.common import alexnet, folder_of_photographs, line, run

# In a process of its own, so that its peak of memory is its own.
PREDICT = """
import resource, sys, time
from pathlib import Path
from alexnet_cli.system import tensorflow_startup
tensorflow_startup.load_tensorflow()
from alexnet_cli.inference import prediction
photographs = sorted(Path(sys.argv[1]).rglob("*.jpg"))
wanted = int(sys.argv[3])
paths = (photographs * -(-wanted // len(photographs)))[:wanted]
outcomes = prediction.predict(paths, models=[Path(sys.argv[2])])
next(outcomes)  # the network is loaded and compiled, and the first batch computed
began, first = time.perf_counter(), 128
n = sum(1 for _ in outcomes) - first
print(n / (time.perf_counter() - began), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def bench(data: Path) -> None:
    """Train an epoch, then time the forward pass alone and what the commands make of it."""
    from alexnet_cli.system import tensorflow_startup

    tensorflow_startup.load_tensorflow()
    import numpy as np

    from alexnet_cli.inference import evaluation
    from alexnet_cli.runs.models import load_member
    from alexnet_cli.runs.run_folder import RunFolder

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "runs")
        run(alexnet("train", data, "--epochs", 1, "--gpus", 0, "--out", out))
        model = RunFolder.find(out / "latest")
        network = load_member(model.path).network
        crops = [np.zeros((1, 224, 224, 3), np.float32)] * 128

        def forward() -> float:
            began = time.perf_counter()
            for _ in range(4):
                network.run(crops)
            return 4 * 128 / (time.perf_counter() - began)

        def evaluate(ten_crop: bool) -> float:
            times: list[float] = []
            counts: list[int] = []

            def progress(done: int, total: int) -> None:
                times.append(time.perf_counter())
                counts.append(done)

            evaluation.evaluate(
                models=[model.path], split="train", ten_crop=ten_crop, progress=progress
            )
            # From the end of the first batch to that of the last whole one.
            batch = 12 if ten_crop else 128
            last = (len(times) - 1) // batch * batch
            return (last - batch) / (times[last] - times[batch])

        forward()
        memory = max(forward(), forward())
        one, ten = evaluate(False), evaluate(True)
        line("forward pass from memory", f"{memory:.1f} crops/s")
        line("alexnet evaluate", f"{one:.1f} images/s", one / memory, "0.9")
        line("alexnet evaluate --ten-crop", f"{10 * ten:.1f} crops/s", 10 * ten / memory, "0.9")
        command = [alexnet()[0], "-c", PREDICT, str(data), str(model.path)]
        few, many = (list(map(float, run([*command, str(n)]).split())) for n in (500, 1500))
        line("alexnet predict, 1500 photographs", f"{many[0]:.1f} images/s", many[0] / one, "0.8")
        line("its peak of memory, 500 photographs", f"{few[1]:.2f} GB")
        line("its peak of memory, 1500 photographs", f"{many[1]:.2f} GB", many[1] / few[1], "flat")


if __name__ == "__main__":
    bench(folder_of_photographs())
