"""`make bench`: ratios of things timed in one run, on this machine.

    python -m benchmarks [FOLDER]

FOLDER holds class folders of photographs; the default is examples/flowers. Each benchmark also runs
alone, as `python -m benchmarks.NAME`; `rivals`, `ablations`, `million`, `scale` and `kills`, which
take longer or need more, run only so.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.common import folder_of_photographs

NAMES = ("starting", "pipeline", "efficiency", "inference", "memory", "forms")

if __name__ == "__main__":
    for name in NAMES:
        print(f"\n{name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", str(folder_of_photographs())]
        subprocess.run(command, check=True)
