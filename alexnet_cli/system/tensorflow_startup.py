"""Start TensorFlow and its devices without printing their messages."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

# If the user sets TensorFlow's variable for messages, they are shown. "3" hides them: it is what
# `load_tensorflow` sets, which processes started from this one inherit.
VERBOSE = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3") != "3"


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hide what C++ code writes to file descriptor 2, unless an error follows."""
    if VERBOSE:
        yield
        return
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)
        failed = False
        try:
            yield
        except Exception:  # not KeyboardInterrupt
            failed = True
            raise
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
            if failed:
                messages.seek(0)
                sys.stderr.write(messages.read().decode(errors="replace"))


def load_tensorflow() -> None:
    """Import TensorFlow and find its devices, silently unless `TF_CPP_MIN_LOG_LEVEL` is set."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_stderr():
        import tensorflow as tf

        tf.config.list_physical_devices()


@cache
def start_devices() -> None:
    """Start the devices, which can't be configured afterwards, and XLA, which prints at its start.

    GPUs allocate memory as needed, so that other programs can use the rest. TF32, by which GPUs round
    float32 products to 10 bits, is switched off.
    """
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)
    with suppress(RuntimeError):  # the calling program has started TensorFlow, and chose for itself
        for gpu in tf.config.get_visible_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    with quiet_stderr():
        inner = tf.function(lambda x: x + x, jit_compile=True)
        tf.function(lambda x: inner(x) * x)(tf.constant(1.0))
