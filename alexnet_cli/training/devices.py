"""The devices that train (the CPU, or GPUs of one or several machines) and their precision."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.network.keras_network import distribute
from alexnet_cli.runs.config import PRECISIONS
from alexnet_cli.system.tensorflow_startup import quiet_stderr, start_devices
from alexnet_cli.training.cluster import Cluster, wait_for_workers

CHOICES = ("auto", *PRECISIONS)
F = TypeVar("F", bound=np.floating)

# CPU flags of instructions for bfloat16; without them it is emulated, slower than float32.
_CPU_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
_GPU_BFLOAT16 = (8, 0)  # compute capability: Ampere
_GPU_FLOAT16 = (7, 0)  # Volta: its tensor cores support float16 only

_NO_GPU = (
    "TensorFlow finds no GPU. Omit the option, as in `alexnet train DATA`, to train on the CPU. Add "
    "GPU support, in the clone of alexnet, with: pip install '.[gpu]'"
)


@dataclass(frozen=True)
class Devices:
    """A distribution strategy, the names of its devices and the precision they compute in."""

    strategy: tf.distribute.Strategy
    names: tuple[str, ...]  # of this machine
    precision: str
    cluster: Cluster | None = None

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.cluster is None or self.cluster.is_chief

    @property
    def replicas(self) -> range:
        """The indices of this machine's replicas among the replicas of all machines."""
        first = self.cluster.index * len(self.names) if self.cluster else 0
        return range(first, first + len(self.names))

    @property
    def n_processes(self) -> int:
        """The number of processes of this training on this machine, which share its memory."""
        return self.cluster.n_on_this_machine if self.cluster else 1

    def share(self, n: int) -> range:
        """Return which of `n` items this worker handles; each item has exactly one worker."""
        if self.cluster is None:
            return range(n)
        return range(self.cluster.index, n, len(self.cluster.workers))

    @property
    def places(self) -> tuple[str, ...]:
        """The TensorFlow names of this machine's devices, one for each of `replicas`."""
        places: tuple[str, ...] = self.strategy.extended.worker_devices
        return places

    def distribute(self, parts: Sequence[tf.Tensor]) -> Any:
        """Return a value of the strategy whose part on each of `replicas` is that of `parts`."""
        return distribute(self.strategy, parts)

    def total(self, values: npt.NDArray[F]) -> npt.NDArray[F]:
        """Return the sum of `values` over all workers; each must call this with the same shape."""
        if self.cluster is None:
            return values
        parts = [tf.constant(values), *(tf.zeros_like(values) for _ in self.places[1:])]
        summed: npt.NDArray[F] = self.strategy.reduce(
            "SUM", self.distribute(parts), axis=None
        ).numpy()
        return summed

    def from_chief(self, array: npt.NDArray[F]) -> npt.NDArray[F]:
        """Return the chief's `array`; each worker must call this with one of the same shape."""
        return self.total(array if self.is_chief else np.zeros_like(array))


def choose_devices(
    gpus: int | None = None, precision: str = "auto", cluster: Cluster | None = None
) -> Devices:
    """Return the devices for `gpus` GPUs (None: all; 0: the CPU).

    `precision` "auto" selects the fastest that the devices support natively. In a `cluster`, this
    waits until all workers have started. Raises `AlexNetError` with the names of the GPUs if there
    are fewer, and if the workers of the cluster do not have the same number.
    """
    if precision not in CHOICES:
        raise UsageError(f"choose from {', '.join(CHOICES)}", argument="precision", value=precision)
    found = tf.config.list_physical_devices("GPU")
    count = len(found) if gpus is None else gpus
    if count < 0:
        raise UsageError("must be 0 (the CPU) or more", argument="gpus", value=count)
    if count > len(found):  # MirroredStrategy would silently use the CPU
        names = ", ".join(_gpu_name(gpu) for gpu in found)
        reason = f"TensorFlow finds {len(found)} ({names}); ask for {len(found)} or fewer"
        raise AlexNetError(reason if found else _NO_GPU, argument="gpus", value=count)
    used = found[:count]
    try:
        tf.config.set_visible_devices(used, "GPU")
    except RuntimeError:
        reason = "TensorFlow already runs on other devices; start a new process"
        raise AlexNetError(reason, argument="gpus", value=count) from None
    if precision == "auto":
        precision = _native_precision(used)
    if cluster:  # before the start of the devices, as joining configures them
        wait_for_workers(cluster, n_devices=max(count, 1))
        strategy = _join(cluster, used)
        start_devices()
    else:
        start_devices()
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
    """Return the instruction sets of the processor, as far as oneDNN may use them."""
    if "ONEDNN_MAX_CPU_ISA" in os.environ:  # it is held to older ones, which lack bfloat16
        return set()
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return set()
    lines = (line for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    return set(next(lines, "").split())
