"""Errors that a user can correct, and warnings; any other exception is a bug."""

from pathlib import Path


class AlexNetError(Exception):
    """An error message of one line: what is wrong, where, and what to do.

    Where an argument is wrong, the text names the argument as Python does, `val=1.5: must be below
    1`; the command line writes the same reason after the option, `--val 1.5`.
    """

    exit_code = 1

    def __init__(self, reason: str, *, argument: str | None = None, value: object = None) -> None:
        """Keep the parts, as the command line writes the argument as its option."""
        given = argument if value is None else f"{argument}={value!r}"
        super().__init__(f"{given}: {reason}" if argument else reason)
        self.reason, self.argument, self.value = reason, argument, value


class AlexNetWarning(UserWarning):
    """A message of one line about what works less well here: what, where, and what to do."""


class UsageError(AlexNetError):
    """An invalid argument, whatever the data."""

    exit_code = 2


class ImageError(AlexNetError):
    """A file or its content can't be used as an image.

    `path` is None where only the content is known. The text is "path: reason", or the reason.
    """

    def __init__(self, reason: str, path: Path | None = None) -> None:
        """Keep reason and path, for lists of skipped files."""
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason, self.path = reason, path
