"""Dropout and batch normalization of a batch that several replicas share."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from helpers import HANG

from alexnet_cli.network.batch_layers import (
    BatchDropout,
    BatchNormalization,
    BatchRows,
    rows_of_batch,
)


def rows(positions, key=(1, 2), batch_size=8, counted=None):
    counted = [True] * len(positions) if counted is None else counted
    tensors = tf.constant(key), tf.constant(positions), tf.constant(counted)
    return BatchRows(tensors[0], batch_size, *tensors[1:])


def masked(layer, which, inputs=None):
    """What the layer makes of ones in a training step, for the rows that a replica has."""
    with rows_of_batch(which):
        ones = tf.ones((len(which.positions), 512)) if inputs is None else inputs
        return layer(ones, training=True).numpy()


# Dropout


def test_a_row_has_the_same_mask_on_any_replica():
    """Oracle: the whole batch on one device; parts of it, uneven, out of order and at the same time."""
    layer = BatchDropout(0.5, name="dropout6")
    whole = masked(layer, rows(range(8)))
    parts = [[0, 1, 2], [3], [7, 5], [4, 6], [0]]
    with ThreadPoolExecutor(len(parts)) as pool:  # as the replicas of MirroredStrategy
        found = list(pool.map(lambda part: masked(layer, rows(part)), parts))
    for part, mask in zip(parts, found):
        np.testing.assert_array_equal(mask, whole[part])


def test_masks_are_as_often_0_as_the_rate_says_and_independent():
    """Oracle: Bernoulli(0.3) and, for two that are independent, 0.3² + 0.7² equal; five deviations."""
    layers = [BatchDropout(0.3, name=f"dropout{number}") for number in (6, 7)]
    one, other_key, other_layer = (
        masked(layer, rows(range(8), key))
        for layer, key in ((layers[0], (1, 2)), (layers[0], (1, 3)), (layers[1], (1, 2)))
    )
    n = one.size
    values = np.unique(one)
    np.testing.assert_allclose(values, [0, 1 / 0.7], rtol=1e-6)
    assert abs((one == 0).mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / n)
    for a, b in ((one, other_key), (one, other_layer), (one[:4], one[4:])):
        expected = 0.3**2 + 0.7**2
        deviation = np.sqrt(expected * (1 - expected) / a.size)
        assert abs((a == b).mean() - expected) < 5 * deviation


def test_outside_a_training_step_dropout_is_that_of_keras():
    """Oracle: Keras: nothing changes without training, a share of zeros with it."""
    layer, ones = BatchDropout(0.5), tf.ones((4, 512))
    np.testing.assert_array_equal(layer(ones, training=False), ones)
    assert abs((layer(ones, training=True).numpy() == 0).mean() - 0.5) < 5 * 0.5 / np.sqrt(2048)
    assert masked(layer, rows([0])).any()
    with rows_of_batch(rows([0, 1, 2, 3])):
        np.testing.assert_array_equal(layer(ones, training=False), ones)


# Batch normalization

REPLICAS = """
import json, sys
import numpy as np
import tensorflow as tf
n = int(sys.argv[1])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * n)
from alexnet_cli.network.batch_layers import BatchNormalization, BatchRows, rows_of_batch
names = [f"/cpu:{i}" for i in range(n)]
strategy = (
    tf.distribute.MirroredStrategy(names) if n > 1 else tf.distribute.OneDeviceStrategy(names[0])
)
with strategy.scope():
    layer = BatchNormalization(synchronized=True)
    layer.build((None, 2, 3, 4))
images = np.random.default_rng(0).normal(3, 2, (5, 2, 3, 4)).astype(np.float32)
# The third image was skipped, and with two replicas the last place only fills up.
parts = {1: [[0, 1, 2, 3]], 2: [[0, 1, 2], [3, 4]]}[n]
counted = [True, True, False, True, False]

def spread(values):
    tensors = [tf.constant(value) for value in values]
    return strategy.experimental_distribute_values_from_function(
        lambda context: tensors[context.replica_id_in_sync_group]
    )

@tf.function
def run(x, positions, counts):
    def replica(x, positions, counts):
        with rows_of_batch(BatchRows(tf.constant([0, 0]), 5, positions, counts)):
            return layer(x, training=True)
    return strategy.run(replica, args=(x, positions, counts))

out = run(
    spread([images[part] for part in parts]),
    spread([np.array(part, np.int32) for part in parts]),
    spread([np.array(counted)[part] for part in parts]),
)
outputs = np.concatenate([x.numpy() for x in strategy.experimental_local_results(out)])
print(json.dumps([v.tolist() for v in (outputs, layer.moving_mean.numpy(), layer.moving_variance.numpy())]))
"""


@pytest.mark.parametrize("n_replicas", [1, 2])
def test_statistics_are_those_of_the_images_that_count(n_replicas):
    """Oracle: mean and variance of three images in NumPy; ε and momentum of Keras' documentation."""
    command = [sys.executable, "-c", REPLICAS, str(n_replicas)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    outputs, moving_mean, moving_variance = map(np.array, json.loads(done.stdout))
    images = np.random.default_rng(0).normal(3, 2, (5, 2, 3, 4)).astype(np.float32)
    good = images[[0, 1, 3]].astype(np.float64)
    mean, variance = good.mean(axis=(0, 1, 2)), good.var(axis=(0, 1, 2))
    np.testing.assert_allclose(moving_mean, 0.01 * mean, rtol=1e-5)
    np.testing.assert_allclose(moving_variance, 0.99 + 0.01 * variance, rtol=1e-5)
    expected = (good - mean) / np.sqrt(variance + 1e-3)
    np.testing.assert_allclose(outputs[[0, 1, 3]], expected, atol=1e-5)


def test_a_batch_without_a_readable_image_changes_no_statistics():
    """Oracle: the initial moving mean 0 and variance 1."""
    layer = BatchNormalization()
    masked(layer, rows([0], counted=[False]), tf.zeros((1, 2, 2, 3)))
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(3))
    np.testing.assert_array_equal(layer.moving_variance, np.ones(3))


def test_outside_a_training_step_batch_normalization_is_that_of_keras():
    """Oracle: the layer of Keras on the same images, in training and in inference."""
    import keras

    ours, theirs = BatchNormalization(), keras.layers.BatchNormalization()
    images = tf.random.stateless_normal((4, 2, 2, 3), (0, 1), 3.0, 2.0)
    for training in (True, False):
        np.testing.assert_allclose(
            ours(images, training=training), theirs(images, training=training), rtol=1e-6
        )
    np.testing.assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=1e-6)
