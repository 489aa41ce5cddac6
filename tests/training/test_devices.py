"""Devices: where batches lie, and that all of them classify."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from helpers import HANG, TESTS

SCRIPT = """
import json, sys
import numpy as np
import tensorflow as tf
sys.path.insert(0, sys.argv[1])
n = int(sys.argv[2])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * n)
from helpers import QUICK
from noise import noise_image, noise_statistics
from alexnet_cli.data.augment import Augmenter
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.network.keras_network import KerasNetwork, get_weights
from alexnet_cli.training.batches import BatchLoader
from alexnet_cli.training.devices import Devices

class Store:
    def __len__(self):
        return 5
    def get(self, index):
        return noise_image(seed=index)

names = [f"/cpu:{i}" for i in range(n)]
strategy = (
    tf.distribute.MirroredStrategy(names) if n > 1 else tf.distribute.OneDeviceStrategy(names[0])
)
devices, statistics = Devices(strategy, tuple(names), "float32"), noise_statistics()
loader = BatchLoader(
    Store(), np.zeros(5, np.int32), 3, Augmenter(QUICK, statistics), devices, 0, 5
)
(batch,) = loader.epoch(1)
images = strategy.experimental_local_results(batch.images)
positions = strategy.experimental_local_results(batch.positions)

arrays = get_weights(build_alexnet(QUICK, 3, seed=1))
network = KerasNetwork.from_arrays(QUICK, 3, arrays, statistics, strategy)
random = np.random.default_rng(0)
crops = [random.normal(0, 50, (1, 64, 64, 3)).astype(np.float32) for _ in range(7)]
seen = set()
for layer in network.model.layers:
    if layer.name == "fc6":
        call = layer.call
        layer.call = lambda x, **options: (seen.add(x.device), call(x, **options))[1]
answers = [np.concatenate(network.probabilities(crops[:k])).tolist() for k in (1, 2, 7)]
print(json.dumps({
    "images": np.concatenate(images).tolist(),
    "positions": [p.numpy().tolist() for p in positions],
    "on": [x.device[-5:] for x in images],
    "answers": answers,
    "used": sorted(device[-5:] for device in seen),
}))
"""


@pytest.fixture(scope="module")
def found():
    """What the script finds on one, two and three logical devices."""
    command = [sys.executable, "-c", SCRIPT, str(TESTS)]
    processes = {
        n: subprocess.Popen([*command, str(n)], stdout=-1, stderr=-1, text=True) for n in (1, 2, 3)
    }
    results = {}
    for n, process in processes.items():
        out, errors = process.communicate(timeout=HANG)
        assert process.returncode == 0, errors
        results[n] = json.loads(out)
    return results


@pytest.mark.parametrize(("n", "positions"), [(2, [[0, 1, 2], [3, 4]]), (3, [[0, 1], [2, 3], [4]])])
def test_a_batch_lies_on_the_devices_that_train_on_it(found, n, positions):
    """Oracle: the batch of one device, and its parts by hand."""
    assert found[n]["positions"] == positions
    assert found[n]["on"] == [f"CPU:{number}" for number in range(n)]
    np.testing.assert_array_equal(found[n]["images"], found[1]["images"])


@pytest.mark.parametrize("n", [2, 3])
def test_all_devices_classify(found, n):
    """Oracle: one device, for fewer images than devices too."""
    assert found[n]["used"] == [f"CPU:{number}" for number in range(n)]
    for several, one in zip(found[n]["answers"], found[1]["answers"]):
        np.testing.assert_allclose(several, one, atol=1e-5)
