"""What the commands share: options, the layout of their help, and errors.

TensorFlow takes seconds to import, and Rich longer than `--help` should: a command imports what it
needs inside its function.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperOption

from alexnet_cli.errors import (
    AlexNetError,
    DataMovedError,
    UsageError,
    WrongPathError,
    describe_os_error,
)

MOST_SEED = 2**63 - 1  # as JSON may hold it

Models = Annotated[
    list[Path] | None,
    typer.Option(help="Run or .npy; repeat to average.", metavar="MODEL", show_default="newest"),
]

MovedData = Annotated[
    Path | None,
    typer.Option(help="New folder of the run's images, if moved.", metavar="DIR"),
]

TenCrop = Annotated[
    bool, typer.Option("--ten-crop", help="Average over ten crops, as the paper does.")
]

NoCheck = Annotated[
    bool,
    typer.Option("--no-check", help="Do not read images; select by extension."),
]

# Options of `train` and `crossval`.
Data = Annotated[
    Path, typer.Argument(help="Split, class folders, or a CSV file of images.", metavar="DATA")
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        help="Recipe name.",
        metavar="NAME",
        show_default="modern, or that of --weights",
    ),
]
Variants = Annotated[
    list[str] | None,
    typer.Option(help="Named change, such as half-size; repeatable.", metavar="NAME"),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(help="Set a hyperparameter (conv2.bias=1); repeatable.", metavar="NAME=VALUE"),
]
Epochs = Annotated[
    int | None,
    typer.Option(help="Passes over the images.", metavar="N", min=1, show_default="the recipe's"),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        help="Images a step, all devices.", metavar="N", min=1, show_default="the recipe's"
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(help="Peak learning rate.", metavar="RATE", show_default="the recipe's"),
]
Gpus = Annotated[
    int | None,
    typer.Option(help="GPUs to use; 0 is the CPU.", metavar="N", min=0, show_default="all"),
]
Precision = Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.", metavar="TYPE")]
Weights = Annotated[
    Path | None,
    typer.Option(help="Run or .npy to start from, but the last layer.", metavar="MODEL"),
]
SeedNumber = Annotated[
    int,
    typer.Option(help="Seed of everything random.", metavar="N", min=0, max=MOST_SEED),
]

# Arguments that are written without a name; all others are options, of the same name but for these.
_POSITIONAL = {"data", "source", "images", "run", "runs"}
_OPTIONS = {"settings": "--set", "variants": "--variant"}
# Commands that take a run as --model; the others take it without a name.
_WITH_MODEL = {"evaluate", "predict"}


class Command(TyperCommand):
    """A command whose help has a line for each parameter, without Python types and ranges."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write name, metavar, help and default of each argument and option."""
        rows: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, TyperArgument):
                rows["Arguments"].append((f"{parameter.metavar}", _describe(parameter)))
            elif isinstance(parameter, TyperOption):
                names = ", ".join(sorted(parameter.opts, key=len))
                metavar = "" if parameter.is_flag else f" {parameter.metavar}"
                rows["Options"].append((names + metavar, _describe(parameter)))
        for title, found in rows.items():
            if found:
                with formatter.section(title):
                    formatter.write_dl(found)


def _describe(parameter: TyperArgument | TyperOption) -> str:
    """Return the help of a parameter with its default, if there is one to name."""
    shown = parameter.show_default
    default = parameter.default if shown is True else shown
    if default is None or isinstance(default, bool):
        return parameter.help or ""
    return f"{parameter.help}  [default: {default.value if isinstance(default, Enum) else default}]"


def is_typed(context: typer.Context, name: str) -> bool:
    """Return whether an option was given, rather than left at its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def option_name(argument: str) -> str:
    """Return how an argument is written on the command line: `--batch-size`, `DATA`."""
    if argument in _POSITIONAL:
        return argument.upper()
    return _OPTIONS.get(argument, f"--{argument.replace('_', '-')}")


def describe_error(error: AlexNetError, words: Sequence[str] = ()) -> str:
    """Return the error's line, with the wrong argument as it is written on the command line.

    `words` are the arguments of the program; the line ends with the command to type in their place,
    if `error` knows it.
    """
    line = str(error)
    if error.argument == "path":  # a file that the command chose
        line = f"{error.value}: {error.reason}"
    elif error.argument is not None:
        value = "" if error.value is None else f" {error.value}"
        line = f"{option_name(error.argument)}{value}: {error.reason}"
    if isinstance(error, DataMovedError):
        words = [*words, "--moved-data", "FOLDER"]
    elif isinstance(error, WrongPathError):
        words = _correct_path(words, error)
    else:
        return line
    return f"{line}. Type: {shlex.join(['alexnet', *words])}"


def _correct_path(words: Sequence[str], error: WrongPathError) -> list[str]:
    from alexnet_cli.reports.reproduce import relative_path

    command, *given = words
    meant = str(relative_path(error.meant))
    fixed = [_replace_path(word, error.given, meant) for word in given]
    if fixed == given:  # the path was a default
        fixed += ["--model", meant] if command in _WITH_MODEL else [meant]
    return [command, *fixed]


def _replace_path(word: str, path: Path, new: str) -> str:
    """Return `new` for a word that stands for `path`, also as the value in `--option=value`."""
    option, equals, value = word.rpartition("=")
    if Path(value).absolute().resolve() != path.absolute().resolve():
        return word
    return f"{option}{equals}{new}"


def error_line(message: str) -> str:
    """Return the line that standard error shows for an error or a warning."""
    from alexnet_cli.system.safe_names import printable

    return f"alexnet: {printable(message)}"


def print_error(message: str) -> None:
    """Write one line on standard error."""
    print(error_line(message), file=sys.stderr)


@contextmanager
def report_undrawn(what: str) -> Iterator[None]:
    """Report a picture that a read-only run or a full disk prevents; the command goes on.

    A path that can never hold a picture is still an error.
    """
    try:
        yield
    except (UsageError, BrokenPipeError):
        raise
    except AlexNetError as error:
        print_error(f"{what} not drawn: {error}")
    except OSError as error:
        print_error(f"{what} not drawn: {describe_os_error(error)}")
