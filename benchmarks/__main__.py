"""`make bench`: ratios of things timed in one run, on this machine.

    [TORCH=PYTHON] python -m benchmarks [FOLDER]

FOLDER holds class folders of photographs; the default is examples/flowers. Each benchmark also runs
alone, as `python -m benchmarks.NAME`; `ablations`, `seeds`, `learning`, `none`, `million`, `scale`, `kills`,
`endurance` and `fuzz`, which take longer or need more, run only so. `rivals` needs PyTorch: TORCH names
a Python that has it.
"""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.common import folder_of_photographs

NAMES = ("starting", "pipeline", "efficiency", "inference", "memory", "forms")

if __name__ == "__main__":
    torch = os.environ.get("TORCH")
    for name in (*NAMES, "rivals") if torch else NAMES:
        print(f"\n{name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", str(folder_of_photographs())]
        command += ["--torch", torch] if name == "rivals" and torch else []
        subprocess.run(command, check=True)
