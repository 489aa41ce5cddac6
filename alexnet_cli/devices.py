"""Where to compute: the CPU, one GPU or several, and in which precision."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tensorflow as tf

from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.startup import quiet_stderr

PRECISIONS = ("auto", "float32", "bfloat16")

# Instructions that multiply bfloat16; without them it is emulated, and slower than float32.
_CPU_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
_GPU_BFLOAT16 = (8, 0)  # compute capability: Ampere


@dataclass(frozen=True)
class Devices:
    """A distribution strategy, the names of its devices and the precision they compute in."""

    strategy: tf.distribute.Strategy
    names: tuple[str, ...]
    precision: str


def choose_devices(gpus: int | None = None, precision: str = "auto") -> Devices:
    """Take that many GPUs (None: all there are; 0: the CPU) and the fastest native precision.

    Raises `AlexNetError` when there are fewer GPUs, naming those there are.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: choose from {', '.join(PRECISIONS)}")
    found = tf.config.list_physical_devices("GPU")
    count = len(found) if gpus is None else gpus
    if count < 0:
        raise UsageError(f"--gpus {count}: must be 0 (the CPU) or more")
    if count > len(found):  # MirroredStrategy itself would silently take the CPU
        names = ", ".join(_gpu_name(gpu) for gpu in found) or "none"
        raise AlexNetError(
            f"--gpus {count}: TensorFlow finds {len(found)} ({names}); "
            f"ask for {len(found)}{' (the CPU)' if not found else ' or fewer'}"
        )
    used = found[:count]
    tf.config.set_visible_devices(used, "GPU")
    start(*used)
    if precision == "auto":
        precision = _native_precision(used)
    return Devices(_strategy(count), tuple(map(_gpu_name, used)) or ("CPU",), precision)


@cache
def start(*gpus: tf.config.PhysicalDevice) -> None:
    """Start the devices, which later can't be configured, and XLA, which tells of it."""
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    with quiet_stderr():
        inner = tf.function(lambda x: x + x, jit_compile=True)
        tf.function(lambda x: inner(x) * x)(tf.constant(1.0))


def _strategy(n_gpus: int) -> tf.distribute.Strategy:
    if n_gpus > 1:
        return tf.distribute.MirroredStrategy([f"/gpu:{number}" for number in range(n_gpus)])
    return tf.distribute.OneDeviceStrategy("/gpu:0" if n_gpus else "/cpu:0")


def _gpu_name(gpu: tf.config.PhysicalDevice) -> str:
    return tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)


def _native_precision(gpus: list[tf.config.PhysicalDevice]) -> str:
    if gpus:
        details = map(tf.config.experimental.get_device_details, gpus)
        native = all(d.get("compute_capability", (0, 0)) >= _GPU_BFLOAT16 for d in details)
    else:
        native = bool(_CPU_BFLOAT16 & _cpu_flags())
    return "bfloat16" if native else "float32"


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return set()
    lines = (line for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    return set(next(lines, "").split())
