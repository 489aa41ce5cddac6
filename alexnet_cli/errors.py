"""Errors that a user can correct, and warnings; any other exception is a bug."""

import errno
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
        line = f"{given}: {reason}" if argument else reason
        super().__init__("\\n".join(line.splitlines()))  # names may hold line breaks
        self.reason, self.argument, self.value = reason, argument, value


class AlexNetWarning(UserWarning):
    """A message of one line about what works less well here: what, where, and what to do."""


class UsageError(AlexNetError):
    """An invalid argument, whatever the data."""

    exit_code = 2


class WrongPathError(AlexNetError):
    """A folder that can't be used, beside one that can: `meant` in place of `given`."""

    def __init__(self, reason: str, given: Path, meant: Path) -> None:
        """Keep both paths, for the command line, which writes the command with `meant`."""
        super().__init__(reason)
        self.given, self.meant = given, meant


class DataMovedError(AlexNetError):
    """The images of a run are no longer where they were; the argument `moved_data` says where."""

    def __init__(self, run: Path, root: Path) -> None:
        """Take the run and the folder that it names."""
        reason = f"needed, as {root} does not hold the images of {run} any more"
        super().__init__(f"{reason}. Give the folder that holds them now", argument="moved_data")


class ImageError(AlexNetError):
    """A file or its content can't be used as an image.

    `path` is None where only the content is known. The text is "path: reason", or the reason.
    """

    def __init__(self, reason: str, path: Path | None = None) -> None:
        """Keep reason and path, for lists of skipped files."""
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason, self.path = reason, path


# What to do about an error of the file system, by its number.
_REMEDIES = {
    errno.ENOENT: "Check the path",
    errno.ENOTDIR: "Choose another path: a part of it is a file",
    errno.EISDIR: "Give the path of a file",
    errno.EEXIST: "Choose another name",
    errno.ELOOP: "Give the path itself in place of the link",
    errno.ENAMETOOLONG: "Use a shorter path",
    errno.EACCES: "Change its permissions, or choose another path",
    errno.EPERM: "Change its permissions, or choose another path",
    errno.EROFS: "Choose a path on another disk",
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EIO: "Check the disk",
    errno.EMFILE: "Raise the limit of open files: ulimit -n",
}


def describe_os_error(error: OSError, file: object = None) -> str:
    """Return the line of a system error: file, reason, what to do; `file` stands in for no name.

    Of the two files of a move it is the target, as the other one is ours.
    """
    line = f"{error.filename2 or error.filename or file}: {error.strerror or error}"
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{line}. {remedy}" if remedy else line
