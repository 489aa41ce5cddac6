"""Check on a machine with GPUs that they train right, and measure how fast; made for five minutes.

    python -m benchmarks.gpus [FOLDER] [--rehearse N]

FOLDER holds class folders of images, by default examples/flowers. It ends with `passed` and exit code
0, or with the first difference and 1:

- float32 is float32 on every GPU: a matrix product and a convolution whose results are known, of
  numbers that TensorFloat-32 would round.
- GPU memory is taken as needed when TensorFlow starts, and in an evaluation.
- The paper's network, trained for two epochs with dropout and the same seed, ends with the same losses,
  weights and velocities on the CPU, on one GPU and on all, and an evaluation on a GPU has the loss of
  the CPU.

Then it prints for one GPU and for all, in float32 and in the precision that `auto` chooses: images per
second, the share of time in which the trainer waits for data, and the share of the rate at which these
GPUs multiply matrices.

Each set of devices has a process of its own, as TensorFlow starts its devices once. `--rehearse N`
runs all of this without a GPU: a tiny network on the CPU, which is divided into N logical devices.

How far results may differ: two devices add in different orders, so a float32 sum of n terms differs by
some √n × 6e-8 of its size, 6e-6 for the 9216 inputs of fc6. Where two inputs of a ReLU or of a maximum are
that close, another one may win, and the gradient takes another way: that makes more. Two
implementations on one CPU, TensorFlow with and without oneDNN, were 5e-8 apart in losses, 1e-5 in the
velocities of the dense layers and 1.5e-2 in those of the convolutions; other dropout masks on each device
were 7e-5 and 3. So the limits are 1e-5 of a loss and a tenth of the norm of an array.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import wraps
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

import alexnet_cli as alexnet
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.recipes.presets import PAPER
from alexnet_cli.runs.run_folder import LAST
from alexnet_cli.runs.weights_file import load_arrays
from alexnet_cli.system import tensorflow_startup
from benchmarks.common import FLOWERS, link_images, print_row

if TYPE_CHECKING:
    from alexnet_cli.runs.records import EpochRow
    from alexnet_cli.training.callbacks import TrainPlan
    from alexnet_cli.training.devices import Devices

T = TypeVar("T")

_SPAWN = multiprocessing.get_context("spawn")

TOLERANCE = 0.1  # of the norm of an array
LOSS_TOLERANCE = 1e-5  # of a loss
# 1 + 2⁻¹² needs 12 bits after the point, and sums of up to 1024 of it 22: float32 has 23. TensorFloat-32
# has 10 and bfloat16 7, and both round it to 1: an error of 2⁻¹². A convolution by Winograd's algorithm
# rounds a little.
LONG_NUMBER, PRODUCT_TOLERANCE = 1 + 2**-12, 2**-16
# Of the memory that was free. TensorFlow takes over 0.9 of it unless it is told to grow as needed.
MEMORY_SHARE = 0.75
PATIENCE = 600  # seconds for one process, ten times what it takes; then it hangs
STEPS = 50  # in an epoch whose speed is measured

# Batches that are no multiple of most numbers of GPUs, and a last one of 8 images. At the paper's rate,
# 0.01, few classes are at the edge of stability: ten steps amplify rounding to a third of a velocity.
CHECKED = replace(PAPER, batch_size=48, epochs=2, learning_rate=1e-4)
TINY = replace(  # initialized by Keras, as the paper's deviations are too small for few inputs
    CHECKED,
    resize_size=72,
    crop_size=64,
    convs=tuple(replace(c, filters=n, stddev=None) for c, n in zip(PAPER.convs, (8, 12, 8, 8, 8))),
    dense=tuple(replace(layer, units=32, stddev=None) for layer in PAPER.dense),
    output_stddev=None,
)


class Difference(Exception):
    """Something is not as it should be."""


@dataclass(frozen=True)
class Setup:
    """Devices, and whether they stand for others in a rehearsal."""

    gpus: int  # 0: the CPU
    logical: int = 0  # logical devices of the CPU, in place of GPUs
    rehearsal: bool = False

    @property
    def name(self) -> str:
        """The name of the devices in the output."""
        count, what = (self.logical, "logical device") if self.rehearsal else (self.gpus, "GPU")
        return f"{count} {what}{'s' if count > 1 else ''}" if count else "the CPU"

    @property
    def recipe(self) -> Recipe:
        """The recipe that is trained."""
        return TINY if self.rehearsal else CHECKED

    @property
    def batch_size(self) -> int:
        """The size of a batch over all devices, where speed is measured."""
        return (16 if self.rehearsal else 128) * max(self.gpus, self.logical)


@dataclass(frozen=True)
class Speed:
    """The speed of a training in one precision; shares are from 0 to 1."""

    precision: str
    images_per_second: float
    waiting: float  # share of the time in which the trainer waits for the next batch
    of_matrix_rate: float


# In processes of their own


def gpu_names() -> list[str]:
    """Return the names of the GPUs that TensorFlow finds."""
    tensorflow_startup.load_tensorflow()
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in found]
    return [detail.get("device_name", gpu.name) for gpu, detail in zip(found, details)]


def train(setup: Setup, data: Path, out: Path) -> tuple[float, float]:
    """Train two epochs on `data` in float32, after a look at products and memory.

    Returns the largest error of a product and the share of the free memory that the start took.
    """
    before = card_memory() if setup.gpus else []
    devices = replace(start_devices(setup), precision="float32")
    error = product_error(devices)
    taken = memory_taken(before)
    from alexnet_cli.training import start_and_resume

    start_and_resume.train(data, recipe=setup.recipe, devices=devices, out=out, check=False)
    return error, taken


def evaluate(setup: Setup, run: Path) -> tuple[float, float]:
    """Return the loss of a run on its training images and the share of the free memory taken."""
    before = card_memory() if setup.gpus else []
    loss = alexnet.load(run).evaluate(split="train").score.loss
    return loss, memory_taken(before)


def measure(setup: Setup, data: Path, run: Path) -> list[Speed]:
    """Return the speed of a training on `data`, in float32 and in the precision of `auto`.

    `run`: a run of the same network, whose arithmetic is counted.
    """
    devices = start_devices(setup)
    from benchmarks.step_efficiency import flops_per_image

    n_devices, side = len(devices.names), 1024 if setup.rehearsal else 8192
    recipe = replace(setup.recipe, batch_size=setup.batch_size)
    flops = flops_per_image(alexnet.load(run).keras)
    found = []
    for precision in dict.fromkeys(("float32", devices.precision)):
        rate, waiting = training_speed(replace(devices, precision=precision), recipe, data)
        peak = n_devices * matrix_rate(precision, side)
        found.append(Speed(precision, rate, waiting, rate * flops / peak))
    return found


def start_devices(setup: Setup) -> Devices:
    """Start TensorFlow on the devices of `setup`, in the precision of `auto`."""
    tensorflow_startup.load_tensorflow()
    import tensorflow as tf

    from alexnet_cli.training.devices import choose_devices

    if not setup.logical:
        return choose_devices(setup.gpus)
    cpu, *_ = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration()] * setup.logical
    tf.config.set_logical_device_configuration(cpu, parts)
    devices = choose_devices(0)
    names = tuple(f"/cpu:{number}" for number in range(setup.logical))
    return replace(devices, strategy=tf.distribute.MirroredStrategy(names), names=names)


def product_error(devices: Devices, dtype: str = "float32") -> float:
    """Return the largest relative error of sums of `LONG_NUMBER` on any of the devices."""
    import tensorflow as tf

    errors = []
    for device in devices.strategy.extended.worker_devices:
        with tf.device(device):
            matrix = tf.fill((1024, 1024), tf.constant(LONG_NUMBER, dtype))
            image = tf.fill((1, 32, 32, 64), tf.constant(LONG_NUMBER, dtype))
            product = tf.matmul(matrix, tf.ones_like(matrix))
            convolved = tf.nn.conv2d(image, tf.ones((3, 3, 64, 64), dtype), 1, "VALID")
        for found, n_terms in ((product, 1024), (convolved, 3 * 3 * 64)):
            ratios = found.numpy().astype(np.float64) / (n_terms * LONG_NUMBER)
            errors.append(float(np.abs(ratios - 1).max()))
    return max(errors)


def card_memory() -> list[tuple[int, int]]:
    """Return used and free MiB of each card, as its driver counts them.

    TensorFlow's own count leaves out what it has taken and does not use.
    """
    query = ["nvidia-smi", "--query-gpu=memory.used,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, check=True, capture_output=True, text=True)
        lines = [line.split(",") for line in done.stdout.splitlines()]
        return [(int(used), int(free)) for used, free in lines]
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"nvidia-smi does not tell how much memory is in use: {error}")


def memory_taken(before: list[tuple[int, int]]) -> float:
    """Return the largest share of the memory free `before` that has been taken since, of any card."""
    now = card_memory() if before else []
    return max(((used - old) / free for (old, free), (used, _) in zip(before, now)), default=0.0)


class _Enough(Exception):
    """Ends a training that has been measured."""


class SecondEpoch(alexnet.Callback):
    """Measures the second epoch of a training, as TensorFlow compiles in the first, and ends it."""

    def __init__(self, waits: list[float]) -> None:
        """`waits`: gets the seconds before each batch."""
        self.waits, self.rate, self.waiting = waits, 0.0, 0.0

    def on_train_begin(self, plan: TrainPlan) -> None:
        """Keep the number of images."""
        self.n_images = plan.n_images["train"]

    def on_epoch_end(self, row: EpochRow, *, best: bool) -> None:
        """Take the images per second, and the share of the time spent waiting."""
        if row.epoch == 2:
            self.rate = row.images_per_second
            self.waiting = sum(self.waits) * self.rate / self.n_images
            raise _Enough
        self.waits.clear()


def training_speed(devices: Devices, recipe: Recipe, data: Path) -> tuple[float, float]:
    """Return images per second, and the share of the time that goes to waiting for batches."""
    from alexnet_cli.training import start_and_resume
    from alexnet_cli.training.batches import BatchLoader

    callback, plain = SecondEpoch([]), BatchLoader.epoch
    BatchLoader.epoch = timed(plain, callback.waits)
    try:
        with tempfile.TemporaryDirectory() as out, suppress(_Enough):
            start_and_resume.train(
                data, recipe=recipe, devices=devices, out=Path(out), check=False, callback=callback
            )
    finally:
        BatchLoader.epoch = plain
    return callback.rate, callback.waiting


def timed(generate: Callable[..., Iterator[Any]], waits: list[float]) -> Callable[..., Any]:
    """Return `generate`, which adds to `waits` the seconds that each of its values took."""

    @wraps(generate)
    def generate_and_time(*arguments: Any, **options: Any) -> Iterator[Any]:
        values = generate(*arguments, **options)
        while True:
            began = time.perf_counter()
            try:
                value = next(values)
            except StopIteration:
                return
            waits.append(time.perf_counter() - began)
            yield value

    return generate_and_time


def matrix_rate(precision: str, side: int) -> float:
    """Return the FLOP/s of products of square matrices on one device, the best of three."""
    import tensorflow as tf

    factor = tf.cast(tf.random.normal((side, side), stddev=side**-0.5), precision)
    n_products = 8

    @tf.function
    def products() -> tf.Tensor:
        found = factor
        for _ in range(n_products):
            found = tf.matmul(found, factor)
        return tf.reduce_sum(found)

    _, *seconds = timeit.repeat(lambda: float(products()), number=1, repeat=4)
    return 2 * side**3 * n_products / min(seconds)


# In this process, without TensorFlow


def call(function: Callable[..., T], *arguments: Any) -> T:
    """Return what a function returns in a new process; raises `Difference` if it fails."""
    receiver, sender = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=_answer, args=(sender, function, *arguments))
    process.start()
    sender.close()
    try:
        if receiver.poll(PATIENCE):
            return receiver.recv()
        raise Difference(f"{function.__name__}: no answer in {PATIENCE} s")
    except EOFError:  # it ended without an answer
        process.join()
        raise Difference(f"{function.__name__}: exit code {process.exitcode}; see above") from None
    finally:
        process.kill()
        process.join()


def _answer(sender: Connection, function: Callable[..., Any], *arguments: Any) -> None:
    sender.send(function(*arguments))


def require(what: str, found: float, limit: float) -> None:
    """Print a check; raises `Difference` if `found` is above its limit."""
    print_row(what, f"{found:.1e}", goal=f"at most {limit:.0e}")
    if not found <= limit:  # NaN fails too
        raise Difference(f"{what}: {found:.1e}, more than {limit:.0e}")


def compare_runs(expected: Path, found: Path, name: str) -> None:
    """Compare losses, weights and velocities; raises `Difference` with the first that differs."""
    for one, two in zip(alexnet.Run(expected).history, alexnet.Run(found).history, strict=True):
        for what in ("train_loss", "val_loss"):
            a, b = getattr(one, what), getattr(two, what)
            label = f"{name}: {what.replace('_', ' ')} of epoch {one.epoch}, {a:.5f} on the CPU"
            require(label, relative_error(a, b), LOSS_TOLERANCE)
    one, two = load_arrays(expected / LAST), load_arrays(found / LAST)
    errors = {key: relative_error(array, two[key]) for key, array in one.items()}
    worst = max(errors, key=lambda key: np.nan_to_num(errors[key], nan=np.inf))
    require(f"{name}: {len(errors)} arrays, the most in {worst}", errors[worst], TOLERANCE)


def relative_error(expected: np.ndarray | float, found: np.ndarray | float) -> float:
    """Return the norm of the difference, divided by that of what is expected."""
    one, two = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    return float(np.linalg.norm(two - one) / max(np.linalg.norm(one), 1e-30))


def check(setups: list[Setup], folder: Path, work: Path) -> None:
    """Check that all of `setups` agree with the first, the CPU; raises the first `Difference`."""
    data = link_images(folder, work / "data")
    runs = [work / str(number) / "latest" for number, _ in enumerate(setups)]
    for setup, run in zip(setups, runs):
        error, taken = call(train, setup, data, run.parent)
        require(f"{setup.name}: error of float32 products", error, PRODUCT_TOLERANCE)
        if setup.gpus:
            require(f"{setup.name}: free memory taken at the start", taken, MEMORY_SHARE)
        if run != runs[0]:
            compare_runs(runs[0], run, setup.name)
    loss, taken = call(evaluate, setups[1], runs[0])
    expected = alexnet.Run(runs[0]).metrics.best.train.loss
    require("evaluation: loss of the CPU's run", relative_error(expected, loss), LOSS_TOLERANCE)
    if setups[1].gpus:
        require("evaluation: free memory taken", taken, MEMORY_SHARE)


def print_speeds(setups: list[Setup], folder: Path, work: Path) -> None:
    """Train on more images with each of `setups` but the first, the CPU, and print the speed."""
    for setup in setups[1:]:
        n_images = setup.batch_size * (1 if setup.rehearsal else STEPS)
        data = link_images(folder, work / f"data of {setup.name}", n_images)
        for speed in call(measure, setup, data, work / "0" / "latest"):
            rate = f"{speed.images_per_second:.0f} images/s"
            print_row(f"{setup.name}, {speed.precision}", rate)
            print_row("  time waiting for data", f"{speed.waiting:.1%}")
            print_row("  arithmetic, of that of matrix products", f"{speed.of_matrix_rate:.1%}")


def choose_setups(rehearse: int) -> list[Setup]:
    """Return the CPU, one GPU and all GPUs, or for a rehearsal the CPU and its logical devices."""
    if rehearse:
        counts = dict.fromkeys((0, rehearse))
        return [Setup(0, count, rehearsal=True) for count in counts]
    names = call(gpu_names)
    if not names:
        raise Difference(
            "TensorFlow finds no GPU. Try the script itself with: "
            "python -m benchmarks.gpus --rehearse 2"
        )
    print(f"GPUs: {', '.join(names)}")
    if len(names) == 1:
        print("One GPU only: that several agree is not checked.")
    return [Setup(count) for count in dict.fromkeys((0, 1, len(names)))]


def main() -> None:
    """Check and measure all devices, and end with `passed` or the first difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=FLOWERS)
    parser.add_argument("--rehearse", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    began = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as work:
            setups = choose_setups(arguments.rehearse)
            check(setups, arguments.folder, Path(work))
            print_speeds(setups, arguments.folder, Path(work))
    except Difference as difference:
        sys.exit(str(difference))
    print(f"{time.perf_counter() - began:.0f} s")
    print("passed")


if __name__ == "__main__":
    main()
