"""Weights of Caffe's bvlc_alexnet, as the widely used NumPy file `bvlc_alexnet.npy` holds them.

The file is a pickled dictionary, layer → [weights, biases], and loading a pickle can run any program.
So the unpickler here knows no real class. For the classes of an array it builds a stand-in that keeps
the array's bytes and does nothing else; any other name in the pickle is an error.
"""

from __future__ import annotations

import mmap
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
from alexnet_cli.system.safe_names import printable

# The mean pixel (R, G, B) of ILSVRC-2012's training images, which Caffe's users subtract.
# (python/caffe/imagenet/ilsvrc_2012_mean.npy)
MEAN = (122.67891434, 116.66876762, 104.00698793)

_MOST_BYTES, _MOST_STEPS = 300_000_000, 2000  # the usual file has 244 MB and some 300 steps
_START = b"\x93NUMPY\x01\x00"  # of NumPy's files; the length of a header follows, in two bytes


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
        raise AlexNetError(f"{path}: {printable(odd[0])[:60]} is {state}")
    weights: dict[str, Float32Array] = {}
    n_bytes = 0
    for name in expected:
        layer = recipe.layers().get(name)
        try:
            kernel, bias = _kernel_and_bias(layers[name], 4 if isinstance(layer, Conv) else 2)
        except Exception as error:  # a pickle can hold anything in the place of an array
            raise AlexNetError(
                f"{path}: {name} is not [weights, biases]: {_reason(error)}"
            ) from None
        n_bytes += kernel.nbytes + bias.nbytes
        if n_bytes > _MOST_BYTES:  # as several arrays can share the same bytes of a file
            raise AlexNetError(f"{path}: the arrays have more than {_MOST_BYTES:,} bytes")
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
        with (
            open_file(path, _MOST_BYTES, links=True) as file,
            # Reading from a file allocates as many bytes as the pickle claims; from a map, as it has.
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            if content.read(len(_START)) != _START:
                raise ValueError("it does not begin as a NumPy file")
            start = len(_START) + 2 + int.from_bytes(content.read(2), "little")
            content.seek(start)
            _check_steps(content)
            content.seek(start)
            # latin1: the usual file was written by Python 2, whose bytes are its strings
            layers = _Unpickler(content, encoding="latin1").load().data[0]
        if not (isinstance(layers, dict) and all(isinstance(name, str) for name in layers)):
            raise ValueError("it holds no dictionary of layers")
        return layers
    except OSError as error:
        raise AlexNetError(f"{path}: {error.strerror}") from None
    except Exception as error:  # a damaged or hostile file can raise anything
        raise AlexNetError(
            f"{path}: not the weights of Caffe's AlexNet: {_reason(error)}"
        ) from None


def _check_steps(content: Any) -> None:
    """Parse the pickle without executing it; raises `ValueError` for one that can't hold 16 arrays."""
    for number, (step, argument, _) in enumerate(pickletools.genops(content)):
        if number > _MOST_STEPS:
            raise ValueError("it has more steps than 16 arrays need")
        # The memo is a list as long as its largest index, which can be 2³² − 1.
        if step.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > _MOST_STEPS:
            raise ValueError(f"its memo has no place {argument:,}")


def _reason(error: Exception) -> str:
    """Return the error's text as part of a line; parts of a hostile file may be in it."""
    return printable(error)[:200] or type(error).__name__


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


def _kernel_and_bias(parts: Any, n_dimensions: int) -> tuple[Float32Array, Float32Array]:
    kernel, bias = parts
    return _array(kernel, n_dimensions), _array(bias, 1)


def _array(part: _Array, n_dimensions: int) -> Float32Array:
    """Build an array from the bytes of a stand-in."""
    kind = (part.dtype.order, part.dtype.code)
    if kind != ("<", "f4"):
        # show only text: nested tuples are short in a pickle and endless when printed
        words = [word for word in kind if isinstance(word, str)]
        raise ValueError(f"expected <f4. Received: {''.join(words)[:60]}")
    if len(part.shape) != n_dimensions:
        raise ValueError(f"expected {n_dimensions} dimensions. Received: {len(part.shape)}")
    data = part.data.encode("latin1") if isinstance(part.data, str) else part.data
    order: Literal["F", "C"] = "F" if part.fortran else "C"  # F for a transposed array
    array: Float32Array = np.frombuffer(data, np.float32).reshape(part.shape, order=order)
    return array
