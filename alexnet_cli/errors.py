"""The errors that a user caused and can mend; everything else is a bug and keeps its traceback."""

from pathlib import Path


class AlexNetError(Exception):
    """One line that says what was wrong, where, and what to do."""

    exit_code = 1


class UsageError(AlexNetError):
    """An argument that can't be right, whatever the data."""

    exit_code = 2


class ImageError(AlexNetError):
    """Content that can't be used as an image; the text is the reason, without the file's name."""


class BadFile(AlexNetError):
    """A file that can't be used as an image, and the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        """Take both apart, for those who make a list of them."""
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason
