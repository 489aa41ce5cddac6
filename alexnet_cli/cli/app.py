"""The command line: its commands, and errors as one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from alexnet_cli.cli.evaluate import evaluate
from alexnet_cli.cli.export import export
from alexnet_cli.cli.figures import figures
from alexnet_cli.cli.options import complain
from alexnet_cli.cli.predict import predict
from alexnet_cli.cli.recipes import recipes
from alexnet_cli.cli.split import split
from alexnet_cli.cli.train import train
from alexnet_cli.errors import AlexNetError
from alexnet_cli.version import __version__

app = typer.Typer(
    help="Train, evaluate and use the AlexNet of 2012 on any folder of images.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its renderer takes longer to import than all the rest
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (split, train, recipes, evaluate, predict, figures, export):
    app.command()(command)


def main() -> None:
    """Run the command line; an error that the user can mend is one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.stdout.flush()
    except (AlexNetError, typer.TyperException) as error:
        message = str(error) if isinstance(error, AlexNetError) else error.format_message()
        complain(message)
        code = error.exit_code
    except BrokenPipeError:  # whoever reads us, such as `head`, has had enough
        _forget_output()
        code = 1  # as Rich has it where it writes
    except OSError as error:
        if error.errno not in _SURROUNDINGS:
            raise
        _forget_output()
        complain(f"{error.filename or 'output'}: {error.strerror}")
        code = 1
    sys.exit(code)


# What a file system may say at any time: no fault of ours, and nothing that a traceback explains.
_SURROUNDINGS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def _forget_output() -> None:
    """Keep Python from writing at its end what can't be written."""
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
