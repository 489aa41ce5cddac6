"""Find labels that may be wrong: confident learning (Northcutt, Jiang and Chuang 2021)."""

from __future__ import annotations

import numpy as np

from alexnet_cli.runs.metrics import FloatArray, IntArray


def find_label_errors(y_true: IntArray, y_score: FloatArray) -> tuple[IntArray, IntArray]:
    """Return the indices of suspect labels, the likeliest first, and the proposed classes.

    `y_true`: the given labels (n,). `y_score`: probabilities (n, classes) of models that were not
    trained on these images, as a network trained on a wrong label repeats it.

    A label is a candidate if another class is the likeliest, and if any other class reaches its
    threshold, the mean probability that images labeled with the class have for it (section 3.1, as in
    the authors' package cleanlab). The likeliest of these classes is proposed. The order is that
    of the normalized margin: probability of the given label minus the highest.
    """
    n, n_classes = y_score.shape
    images = np.arange(n)
    given = y_score[images, y_true].astype(np.float64)
    support = np.bincount(y_true, minlength=n_classes)
    thresholds = np.full(n_classes, np.inf)  # a class without images is never proposed
    np.divide(np.bincount(y_true, given, n_classes), support, out=thresholds, where=support > 0)
    reached = np.where(y_score >= thresholds, y_score, -1)
    reached[images, y_true] = -1
    found = np.flatnonzero((reached.max(axis=1) >= 0) & (y_score.argmax(axis=1) != y_true))
    order = found[np.argsort((given - y_score.max(axis=1))[found], kind="stable")]
    return order, reached.argmax(axis=1)[order]
