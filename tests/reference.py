"""AlexNet's arithmetic in plain NumPy, float64, written from the paper and from nothing of ours.

Slow loops over windows; every array is (batch, height, width, channels).
"""

from __future__ import annotations

import numpy as np


def convolve(x, kernel, bias, stride=1):
    """Cross-correlate: 'same' for stride 1, the released code's edge rule for larger strides."""
    size = kernel.shape[0]
    if stride == 1:
        before = (size - 1) // 2
        pads = (before, size - 1 - before)
        n_out = x.shape[1]
    else:
        n_out = 1 + int(np.ceil((x.shape[1] - size) / stride))
        pads = (0, (n_out - 1) * stride + size - x.shape[1])
    x = np.pad(x, ((0, 0), pads, pads, (0, 0)))
    out = np.zeros((x.shape[0], n_out, n_out, kernel.shape[3]))
    for row in range(n_out):
        for column in range(n_out):
            top, left = row * stride, column * stride
            window = x[:, top : top + size, left : left + size]
            out[:, row, column] = np.tensordot(window, kernel, axes=3) + bias
    return out


def convolve_in_towers(x, kernels, biases):
    """Each tower sees its own share of the channels (section 3.5)."""
    width = x.shape[-1] // len(kernels)
    parts = [
        convolve(x[..., i * width : (i + 1) * width], kernel, bias)
        for i, (kernel, bias) in enumerate(zip(kernels, biases))
    ]
    return np.concatenate(parts, axis=-1)


def normalize_locally(x, k=2.0, n=5, alpha=1e-4, beta=0.75):
    """The formula of section 3.3, index by index."""
    channels = x.shape[-1]
    out = np.empty_like(x)
    for i in range(channels):
        near = range(max(0, i - n // 2), min(channels - 1, i + n // 2) + 1)
        total = sum(x[..., j] ** 2 for j in near)
        out[..., i] = x[..., i] / (k + alpha * total) ** beta
    return out


def pool(x, size=3, stride=2):
    """Overlapping max pooling (section 3.4)."""
    n_out = (x.shape[1] - size) // stride + 1
    out = np.empty((x.shape[0], n_out, n_out, x.shape[3]))
    for row in range(n_out):
        for column in range(n_out):
            top, left = row * stride, column * stride
            out[:, row, column] = x[:, top : top + size, left : left + size].max(axis=(1, 2))
    return out


def relu(x):
    """max(0, x) (section 3.1)."""
    return np.maximum(x, 0)


def batch_norm(x, gamma, beta, mean, variance, epsilon=1e-3):
    """Ioffe and Szegedy, 2015, at test time."""
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


def softmax(x):
    """Exponentials that sum to 1."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _towers(x, w, name):
    names = [f"{name}/tower{number}" for number in (1, 2)]
    kernels, biases = ([w[f"{n}/{part}"] for n in names] for part in ("kernel", "bias"))
    return convolve_in_towers(x, kernels, biases)


def paper_fc7(x, w, k=2.0, alpha=1e-4):
    """The network of section 3.5 up to fc7; `w` are weights by name, dropout is off."""
    x = relu(convolve(x, w["conv1/kernel"], w["conv1/bias"], stride=4))
    x = pool(normalize_locally(x, k=k, alpha=alpha))
    x = pool(normalize_locally(relu(_towers(x, w, "conv2")), k=k, alpha=alpha))
    x = relu(convolve(x, w["conv3/kernel"], w["conv3/bias"]))
    x = relu(_towers(x, w, "conv4"))
    return _hidden(pool(relu(_towers(x, w, "conv5"))), w)


def paper_logits(x, w, k=2.0, alpha=1e-4):
    """The whole network of section 3.5."""
    return paper_fc7(x, w, k=k, alpha=alpha) @ w["fc8/kernel"] + w["fc8/bias"]


def caffe_logits(x, w):
    """Caffe's network on weights by our names: k = 1, α over n."""
    return paper_logits(x, w, k=1.0, alpha=1e-4 / 5)


def released_logits(x, w):
    """The released program: LRN before the first ReLU, twice in conv2, pooling before ReLU."""

    def normalized(x):
        return normalize_locally(x, k=2, n=5, alpha=1e-4 / 5, beta=0.75)

    x = relu(pool(normalized(convolve(x, w["conv1/kernel"], w["conv1/bias"], stride=4))))
    x = pool(normalized(normalized(relu(_towers(x, w, "conv2")))))
    x = relu(convolve(x, w["conv3/kernel"], w["conv3/bias"]))
    x = relu(_towers(x, w, "conv4"))
    x = relu(pool(_towers(x, w, "conv5")))
    return _dense_layers(x, w)


def notebook_logits(x, w):
    """The notebook's network: full convolutions, batch norm in blocks 1 and 2."""

    def normalized(x, number):
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        return batch_norm(x, *(w[f"batch_norm{number}/{name}"] for name in names))

    x = relu(convolve(x, w["conv1/kernel"], w["conv1/bias"], stride=4))
    x = pool(normalized(x, 1))
    x = pool(normalized(relu(convolve(x, w["conv2/kernel"], w["conv2/bias"])), 2))
    for number in (3, 4, 5):
        x = relu(convolve(x, w[f"conv{number}/kernel"], w[f"conv{number}/bias"]))
    return _dense_layers(pool(x), w)


def _hidden(x, w):
    x = x.reshape(len(x), -1)
    x = relu(x @ w["fc6/kernel"] + w["fc6/bias"])
    return relu(x @ w["fc7/kernel"] + w["fc7/bias"])


def _dense_layers(x, w):
    return _hidden(x, w) @ w["fc8/kernel"] + w["fc8/bias"]
