"""The Keras network as a classifier."""

from __future__ import annotations

import logging

import numpy as np
from helpers import PLAIN

from alexnet_cli.data.statistics import Statistics
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.network.keras_network import KerasNetwork


def test_many_networks_in_one_process_cause_no_warning(monkeypatch):
    """Oracle: the records of TensorFlow's logger, which warns of a function that is traced often."""
    records = []
    monkeypatch.setattr(logging.getLogger("tensorflow"), "filters", [records.append])
    statistics = Statistics(np.zeros((72, 72, 3), np.float32), np.eye(3))
    model = build_alexnet(PLAIN, 3, seed=0)
    crops = np.zeros((1, PLAIN.crop_size, PLAIN.crop_size, 3), np.float32)
    for _ in range(8):
        network = KerasNetwork(model, PLAIN, statistics)
        (probabilities,) = network.probabilities([crops])
        network.features([crops])
    np.testing.assert_allclose(probabilities.sum(), 1, atol=1e-6)
    assert records == []
