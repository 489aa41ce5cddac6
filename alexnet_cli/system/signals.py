"""Turn Ctrl-C and SIGTERM into requests to stop, which a training checks between two steps.

An exception from a signal handler may be raised inside TensorFlow, which would crash.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from alexnet_cli.errors import AlexNetError


class Interrupted(AlexNetError):
    """Raised after Ctrl-C or SIGTERM, when finished work has been saved."""

    def __init__(self, text: str, exit_code: int) -> None:
        """Take the message and the exit code that shells use for the signal."""
        super().__init__(text)
        self.exit_code = exit_code


@dataclass
class StopRequest:
    """A possible request to stop: `code` is 0, or the exit code that shells use for the signal."""

    code: int = 0


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """Yield a request set by the first SIGINT or SIGTERM; the second raises KeyboardInterrupt."""
    stop = StopRequest()
    if (
        threading.current_thread() is not threading.main_thread()
    ):  # only the main thread can handle signals
        yield stop
        return

    def handle(number: int, _: object) -> None:
        if stop.code:
            raise KeyboardInterrupt
        stop.code = 128 + number

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handle) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)
