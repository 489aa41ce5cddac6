"""Where to compute: the CPU, one GPU or several, on one machine or several, in which precision."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.system.tensorflow_startup import quiet_stderr
from alexnet_cli.training.cluster import Cluster

PRECISIONS = ("auto", "float32", "bfloat16", "float16")

# Instructions that multiply bfloat16; without them it is emulated, and slower than float32.
_CPU_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
_GPU_BFLOAT16 = (8, 0)  # compute capability: Ampere
_GPU_FLOAT16 = (7, 0)  # Volta, whose tensor cores know float16 only


@dataclass(frozen=True)
class Devices:
    """A distribution strategy, the names of its devices and the precision they compute in."""

    strategy: tf.distribute.Strategy
    names: tuple[str, ...]  # of this machine
    precision: str
    cluster: Cluster | None = None

    @property
    def is_chief(self) -> bool:
        """Say whether this process writes what lasts."""
        return self.cluster is None or self.cluster.is_chief

    @property
    def replicas(self) -> range:
        """Number this machine's replicas among all."""
        first = self.cluster.index * len(self.names) if self.cluster else 0
        return range(first, first + len(self.names))

    def share(self, n: int) -> range:
        """Name which of `n` things this worker looks after; every one has its worker."""
        if self.cluster is None:
            return range(n)
        return range(self.cluster.index, n, len(self.cluster.workers))

    def total(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sum `values` over the workers, who all must call this, with arrays of one shape."""
        if self.cluster is None:
            return values
        first = self.replicas[0]
        mine = self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                values if context.replica_id_in_sync_group == first else np.zeros_like(values)
            )
        )
        summed: npt.NDArray[np.float64] = self.strategy.reduce("SUM", mine, axis=None).numpy()
        return summed


def choose_devices(
    gpus: int | None = None, precision: str = "auto", cluster: Cluster | None = None
) -> Devices:
    """Take that many GPUs (None: all there are; 0: the CPU) and the fastest native precision.

    In a `cluster` every worker takes as many, and they must have met already. Raises
    `AlexNetError` when there are fewer GPUs, naming those there are.
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
    if precision == "auto":
        precision = _native_precision(used)
    if cluster:  # joining configures the devices, which can't be changed once they have started
        strategy = _join(cluster, used)
        start()
    else:
        start(*used)
        strategy = _strategy(count)
    return Devices(strategy, tuple(map(_gpu_name, used)) or ("CPU",), precision, cluster)


def _join(cluster: Cluster, gpus: list[tf.config.PhysicalDevice]) -> tf.distribute.Strategy:
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.workers)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
    )
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    with quiet_stderr():
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)


@cache
def start(*gpus: tf.config.PhysicalDevice) -> None:
    """Start the devices, which later can't be configured, and XLA, which tells of it.

    What is called float32 is computed in it: GPUs would silently round to 10 bits (TF32).
    """
    tf.config.experimental.enable_tensor_float_32_execution(False)
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
        weakest = min(d.get("compute_capability", (0, 0)) for d in details)
        if weakest >= _GPU_BFLOAT16:
            return "bfloat16"
        return "float16" if weakest >= _GPU_FLOAT16 else "float32"
    return "bfloat16" if _CPU_BFLOAT16 & _cpu_flags() else "float32"


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return set()
    lines = (line for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    return set(next(lines, "").split())
