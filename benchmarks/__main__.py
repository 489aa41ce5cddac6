"""Run the quick benchmarks, as `make bench` does: ratios of times measured on this machine.

    [TORCH=PYTHON] python -m benchmarks [FOLDER]

FOLDER holds a folder of images for each class; the default is examples/flowers. Every benchmark also
runs by itself, as `python -m benchmarks.NAME`. `pytorch_comparison` runs here only if TORCH is the
path of a Python that has PyTorch. The others take longer or need more, and only run by themselves:
`ablations`, `held_out_accuracy`, `learning_curves`, `none_of_these`, `heatmaps`, `near_copies`,
`million_files`, `cluster_scaling`, `kill_and_resume`, `endurance`, `fuzz`, `fuzz_runs`, `fuzz_commands`,
`equivalence` and, where there are GPUs, `gpus`.
"""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.common import image_folder

QUICK = (
    "startup_time",
    "data_loading",
    "step_efficiency",
    "inference",
    "peak_memory",
    "prepared_shards",
)

if __name__ == "__main__":
    torch = os.environ.get("TORCH")
    options = {"pytorch_comparison": ["--torch", torch]} if torch else {}
    for name in (*QUICK, *options):
        print(f"\n{name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", str(image_folder())]
        subprocess.run([*command, *options.get(name, [])], check=True)
    if not torch:
        print("\npytorch_comparison\nnot run: set TORCH to the path of a Python that has PyTorch")
