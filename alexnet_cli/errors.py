"""The errors that a user caused and can mend; everything else is a bug and keeps its traceback."""


class AlexNetError(Exception):
    """One line that says what was wrong, where, and what to do."""

    exit_code = 1


class UsageError(AlexNetError):
    """An argument that can't be right, whatever the data."""

    exit_code = 2


class ImageError(AlexNetError):
    """A file that can't be used as an image; the text is the reason, without the file's name."""
