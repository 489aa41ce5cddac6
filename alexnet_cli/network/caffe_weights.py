"""Weights of Caffe's bvlc_alexnet, as the widely used NumPy file `bvlc_alexnet.npy` holds them.

The file is a pickled dictionary, layer → [weights, biases], and loading a pickle can run any program.
So the unpickler here knows no real class. For the classes of an array it builds a stand-in that keeps
the array's bytes and does nothing else; any other name in the pickle is an error.
"""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alexnet_cli.data.images import Float32Array
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.errors import AlexNetError
from alexnet_cli.recipes.hyperparameters import Conv, Recipe
from alexnet_cli.recipes.presets import CAFFE
from alexnet_cli.system.atomic_files import open_file

# The mean pixel (R, G, B) of ILSVRC-2012's training images, which Caffe's users subtract.
# (python/caffe/imagenet/ilsvrc_2012_mean.npy)
MEAN = (122.67891434, 116.66876762, 104.00698793)

_MOST_BYTES, _MOST_STEPS = 300_000_000, 2000  # the usual file has 244 MB and some 300 steps


def read_caffe(path: Path, recipe: Recipe = CAFFE) -> dict[str, Float32Array]:
    """Return the weights in the file by our names and in our order; raises `AlexNetError`.

    The converter of the file (caffe-tensorflow) stored kernels, and the weights of fc6, in the order
    (height, width, channels, filters). Two differences remain: conv1 expects blue, green, red, and
    the kernels of both towers are one array.
    """
    layers = _read_dictionary(path)
    expected = [*recipe.layers(), recipe.last_layer]
    odd = sorted(set(expected) ^ layers.keys())
    if odd:
        state = "missing" if odd[0] in expected else "not a layer of AlexNet"
        raise AlexNetError(f"{path}: {odd[0]} is {state}")
    weights: dict[str, Float32Array] = {}
    for name in expected:
        try:
            kernel, bias = (_array(part) for part in layers[name])
        except (ValueError, TypeError, AttributeError) as error:
            raise AlexNetError(f"{path}: {name} is not [weights, biases]: {error}") from None
        layer = recipe.layers().get(name)
        if name == "conv1":
            kernel = kernel[..., ::-1, :]
        towers = layer.towers if isinstance(layer, Conv) else 1
        if towers == 1:
            weights |= {f"{name}/kernel": kernel, f"{name}/bias": bias}
            continue
        for number in range(towers):
            own = np.s_[..., number * bias.size // towers : (number + 1) * bias.size // towers]
            weights[f"{name}/tower{number + 1}/kernel"] = kernel[own]
            weights[f"{name}/tower{number + 1}/bias"] = bias[own]
    return weights


def caffe_statistics(recipe: Recipe) -> Statistics:
    """Return Caffe's mean pixel as statistics, with a covariance of zero, as Caffe stores none."""
    shape = (recipe.resize_size, recipe.resize_size, 3)
    return Statistics(np.broadcast_to(np.array(MEAN, np.float32), shape), np.zeros((3, 3)))


def _read_dictionary(path: Path) -> dict[str, Any]:
    try:
        with open_file(path, _MOST_BYTES, links=True) as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            start = file.tell()
            for number, _ in enumerate(pickletools.genops(file)):  # parses without executing
                if number > _MOST_STEPS:
                    raise ValueError("it has more steps than 16 arrays need")
            file.seek(start)
            # latin1: the usual file was written by Python 2, whose bytes are its strings
            layers = _Unpickler(file, encoding="latin1").load().data[0]
        if not (isinstance(layers, dict) and all(isinstance(name, str) for name in layers)):
            raise ValueError("it holds no dictionary of layers")
        return layers
    except OSError as error:
        raise AlexNetError(f"{path}: {error.strerror}") from None
    except Exception as error:  # a damaged or hostile file can raise anything
        raise AlexNetError(f"{path}: not the weights of Caffe's AlexNet: {error}") from None


class _Array:
    """A stand-in for an array; keeps the shape, dtype and bytes in the pickle."""

    def __init__(self, *_: Any) -> None:
        self.data: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state


class _DType:
    """A stand-in for a dtype; keeps its code and byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


def _encode(text: str, _: str) -> str:
    return text  # `_array` encodes it once: a pickle can ask for the same text a million times


_STAND_INS: dict[str, Any] = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.ndarray": _Array,
    "numpy.dtype": _DType,
    "_codecs.encode": _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _STAND_INS:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is not part of an array"
            )
        return _STAND_INS[f"{module}.{name}"]


def _array(part: _Array) -> Float32Array:
    """Build an array from the bytes of a stand-in."""
    kind = (part.dtype.order, part.dtype.code)
    if kind != ("<", "f4"):
        # show only text: nested tuples are short in a pickle and endless when printed
        words = [word for word in kind if isinstance(word, str)]
        raise ValueError(f"expected <f4. Received: {''.join(words)[:60]}")
    data = part.data.encode("latin1") if isinstance(part.data, str) else part.data
    order: Literal["F", "C"] = "F" if part.fortran else "C"  # F for a transposed array
    array: Float32Array = np.frombuffer(data, np.float32).reshape(part.shape, order=order)
    return array
