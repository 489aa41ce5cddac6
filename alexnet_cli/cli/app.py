"""The application: its commands, and errors as one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from typing import Annotated, Any

import typer

from alexnet_cli.cli.crossval import crossval
from alexnet_cli.cli.evaluate import evaluate
from alexnet_cli.cli.export import export
from alexnet_cli.cli.figures import figures
from alexnet_cli.cli.old_option_names import hint
from alexnet_cli.cli.options import Command, describe_error, error_line, print_error
from alexnet_cli.cli.predict import predict
from alexnet_cli.cli.recipes import recipes
from alexnet_cli.cli.split import split
from alexnet_cli.cli.train import train
from alexnet_cli.errors import AlexNetError, AlexNetWarning, UsageError, describe_os_error
from alexnet_cli.version import __version__

app = typer.Typer(
    help="Train, evaluate and use the AlexNet of 2012 on any folder of images.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich takes longer to import than all the rest
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (split, train, crossval, recipes, evaluate, predict, figures, export):
    app.command(cls=Command)(command)


def main() -> None:
    """Run the command line; an error that the user can correct is one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    warnings.filterwarnings("ignore", module="PIL")  # about damaged EXIF and large images
    warnings.formatwarning = _format_warning
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.stdout.flush()
    except AlexNetError as error:
        print_error(describe_error(error, sys.argv[1:]))
        code = error.exit_code
    except typer.TyperException as error:
        print_error(_parse_error(error))
        code = error.exit_code
    except BrokenPipeError:  # the reader, such as `head`, has closed its end
        _discard_output()
        code = 1  # as Rich exits where it is the one to write
    except OSError as error:
        # Without a file and for any other reason, it is a bug.
        if error.errno not in _ENVIRONMENT and not isinstance(error.filename, str | bytes):
            raise
        _discard_output()
        print_error(describe_os_error(error, "output"))
        code = 1
    sys.exit(code)


_format_python_warning = warnings.formatwarning


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Return an `AlexNetWarning` as one line, and another warning in the format of Python."""
    if issubclass(category, AlexNetWarning):
        return f"{error_line(str(message))}\n"
    return _format_python_warning(message, category, filename, lineno, line)


# Errors of the system that can occur at any time, also while writing to an open file.
_ENVIRONMENT = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
}


def _parse_error(error: typer.TyperException) -> str:
    """Return Typer's message; in our words for a wrong value, with advice for an unknown option."""
    if isinstance(error, typer.BadParameter) and error.param and error.__cause__:
        return _wrong_value(error.param, error.__cause__)
    option, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if option is None or context is None or not hasattr(error, "possibilities"):
        return error.format_message()
    known = {name for parameter in context.command.params for name in parameter.opts}
    advice = hint(option, known, list(error.possibilities or ()))
    return f"{error.message}. {advice}".rstrip() if advice else error.message


def _wrong_value(parameter: Any, cause: BaseException) -> str:
    """Return what is wrong with an option's value, as the Python API says it of an argument."""
    from pydantic import ValidationError

    from alexnet_cli.system import strict_json

    assert isinstance(cause, ValidationError)  # Typer validates by pydantic
    first = cause.errors()[0]
    _, is_choice, choices = first["msg"].partition(" is not one of ")
    reason = strict_json.first_error(cause).reason
    if is_choice:
        reason = f"choose from {choices.rstrip('.').replace(chr(39), '')}"
    return describe_error(UsageError(reason, argument=parameter.name, value=first["input"]))


def _discard_output() -> None:
    """Discard what is buffered, which Python would try to write at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_version(value: bool) -> None:
    if value:
        print(f"alexnet {__version__}")
        raise typer.Exit


@app.callback()
def _alexnet(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass
