"""Ctrl-C and SIGTERM as requests, which a training heeds between two steps.

An exception out of a signal handler can strike inside TensorFlow, which does not survive it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from alexnet_cli.errors import AlexNetError


class Interrupted(AlexNetError):
    """Ctrl-C or SIGTERM; what was finished is safe."""

    def __init__(self, text: str, exit_code: int) -> None:
        """Take the exit code that shells give to the signal."""
        super().__init__(text)
        self.exit_code = exit_code


@dataclass
class StopRequest:
    """Whether a signal has asked to stop; `code` is then the exit code that shells give to it."""

    code: int = 0


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """Note the first SIGINT or SIGTERM in the `Stop` yielded; the second raises KeyboardInterrupt."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # others can't handle signals
        yield stop
        return

    def note(number: int, _: object) -> None:
        if stop.code:
            raise KeyboardInterrupt
        stop.code = 128 + number

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, note) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)
