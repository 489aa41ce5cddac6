"""The memory that a training step needs, and the largest batch that fits."""

from __future__ import annotations

import math
from dataclasses import replace

import keras
import tensorflow as tf

from alexnet_cli.system import memory
from alexnet_cli.training.batches import PREFETCH_BATCHES
from alexnet_cli.training.trainer import Trainer


def step_bytes(model: keras.Model, batch_size: int) -> int:
    """Estimate the memory of an update, beside the weights and their velocities.

    It holds the gradients; for each image the outputs of all layers; and its crop in every
    prefetched batch and the one in use. Measured for `paper`: 9.0 MB an image without the batches,
    8.9 by this estimate.
    """
    outputs = sum(math.prod(layer.output.shape[1:]) for layer in model.layers)
    crop = math.prod(model.input.shape[1:])
    n_bytes: int = 4 * (
        model.count_params() + batch_size * (outputs + (PREFETCH_BATCHES + 1) * crop)
    )
    return n_bytes


def require_memory(trainer: Trainer) -> None:
    """Raise `MemoryError` if a step does not fit on the CPU, before the system kills this process."""
    if trainer.devices.names == ("CPU",) and not fits(trainer, trainer.config.recipe.batch_size):
        raise MemoryError


def fits(trainer: Trainer, batch_size: int) -> bool:
    """Return whether a step of `trainer` with `batch_size` images fits into memory.

    Computed for the CPU, where the system promises memory that it does not have, also to the stores
    of images that are not decoded yet; tried on a GPU.
    """
    devices, model = trainer.devices, trainer.model
    if devices.names == ("CPU",):
        n_images = min(batch_size, len(trainer.data.train))
        n_replicas = devices.strategy.num_replicas_in_sync
        unfilled = sum(store.unfilled_bytes for store in trainer.data.stores.values())
        needed = step_bytes(model, -(-n_images // n_replicas)) + unfilled
        return devices.n_processes * needed < memory.available()
    if devices.cluster:  # the other workers would not join the trial
        return True
    rates = tf.zeros(len(model.trainable_variables))
    try:
        batches = replace(trainer.batches, batch_size=batch_size).epoch(trainer.meta.epoch + 1)
        trainer.step(next(batches), rates)
    except tf.errors.ResourceExhaustedError:
        return False
    return True


def out_of_memory(trainer: Trainer) -> str:
    """Return the message for a batch that memory does not hold, with a size that fits."""
    batch_size = trainer.config.recipe.batch_size
    smaller = (batch_size >> halvings for halvings in range(1, batch_size.bit_length()))
    size = next((size for size in smaller if fits(trainer, size)), None)
    way_out = f"--batch-size {size} would fit" if size else "not even one image would fit"
    return f"out of memory with batches of {batch_size:,}: {way_out}"
