"""Type silly command lines into the application, in one process, and check how each ends.

    python -m benchmarks.fuzz_commands [--lines 5000] [--first 0] [--seed 0]

Seed and number determine each line: a command, silly arguments, and options of this command with
silly values, often two or three. All options and all names of `--set` take part. They run in a
folder with images, a run, and a split without validation images, which ends every training after
all arguments were checked and before the first step. A line must end with exit code 0, 1 or 2; an
error must be one line on standard error. Anything else is printed as a finding.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import typer
from PIL import Image
from typer.core import TyperOption

from alexnet_cli.cli.app import app, main
from alexnet_cli.data.manifest import MANIFEST, read_manifest, write_manifest
from alexnet_cli.recipes.hyperparameters import hyperparameter_values
from alexnet_cli.recipes.presets import RECIPES
from alexnet_cli.recipes.variants import VARIANTS
from benchmarks.fuzz_runs import CLASSES, write_run

SLOWEST = 30  # seconds of the processor for one line
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
NAMES = sorted({name for recipe in RECIPES.values() for name in hyperparameter_values(recipe)})

NUMBERS = (
    *("", "0", "1", "2", "3", "-1", "0.5", "1.5", "-0.5", "1e-320", "1e20", "1e400", "nan", "inf"),
    *("-inf", "9" * 25, "9" * 5000, "9223372036854775807", "9223372036854775808", "0x10", "1_0"),
    *("٣", "½", "1,5", "1 2", " 1", "+1", "1e", "--1"),
)
TEXTS = (
    *(
        "",
        " ",
        "x",
        "true",
        "none",
        "null",
        "[]",
        "{}",
        ",",
        ",,",
        "=",
        "a=b",
        "-",
        "--",
        "é",
        "日本",
    ),
    *(
        "\u202e",
        "\ud800",
        "\udcff",
        "\n",
        "a\nb",
        "\r",
        "\t",
        "\x1b[31mred",
        "\0",
        "a\0b",
        "%s",
        "{0}",
    ),
    *("~", "$HOME", "*", "'", '"', "\\", "x" * 300, "x" * 5000, "[bold]", "🌹", "--help", "@x"),
)
WORDS = (*NUMBERS, *TEXTS)
# Names in the folder, and names that no file has or can have; none lies outside the folder.
PATHS = (
    *("colors", "data", "runs/latest", "runs/none", "image.png", "broken.jpg", "text.txt", "new"),
    *("new/deep", "x.npy", "text.txt/below", "colors/red", "new.html", "empty", "new.json"),
    *TEXTS[2:],
)
# Never two valid addresses, as the workers would wait for each other.
HOSTS = (
    *(
        "a:1",
        "a",
        "a:",
        ":1",
        "a:0",
        "a:65536",
        "a:-1",
        "a:1,a:1",
        "a:1,b",
        "a:1,",
        "é:1",
        "[::1]:1",
    ),
    *("\0:1,b:1", "a b:1,c:1", "a..b:1,c:1", "x" * 300 + ":1,b:1", "a:1,b:٣", "\udcff:1,b:1"),
    *TEXTS,
)
# What a run would be trained on: these end before the first step, other folders would not.
_ENDS_TRAINING = [path for path in PATHS if path not in ("colors", "new")]
# A cross-validation divides a split anew.
_ENDS_FOLDS = [path for path in _ENDS_TRAINING if path != "data"]


class CommandLines:
    """A folder to type command lines in."""

    def __init__(self, folder: Path) -> None:
        """Make images, a run and a split without validation images in `folder`."""
        self.folder, self.pristine = folder / "work", folder / "pristine"
        self.pristine.mkdir(parents=True)
        run = write_run(self.pristine / "made", n_val=0)
        shutil.copytree(self.pristine / "made" / "images", self.pristine / "colors")
        (self.pristine / "runs").mkdir()
        shutil.copytree(run, self.pristine / "runs" / "one")
        (self.pristine / "runs" / "latest").symlink_to("one")
        (self.pristine / "empty").mkdir()
        (self.pristine / "text.txt").write_text("words")
        (self.pristine / "broken.jpg").write_bytes(b"\xff\xd8\xff")
        (self.pristine / "x.npy").write_bytes(b"\x93NUMPY")
        Image.new("RGB", (30, 20), "red").save(self.pristine / "image.png")
        self._write_data(run)
        self._restore()

    def _write_data(self, run: Path) -> None:
        """Write `data`, the default of several commands: a split all of whose images train."""
        made = read_manifest(run / MANIFEST)
        data = self.pristine / "data"
        for label in CLASSES:
            shutil.copytree(made.root / label, data / "train" / label)
        root = self.folder / "data"
        moved = [
            replace(file, path=root / "train" / file.path.relative_to(made.root))
            for file in made.files
        ]
        write_manifest(
            replace(made, root=root, source=self.folder / "colors", files=tuple(moved)),
            data / MANIFEST,
        )

    def _restore(self) -> None:
        """Undo what a line wrote, so that each line finds the same folder."""
        if _names(self.folder) != _names(self.pristine):
            shutil.rmtree(self.folder, ignore_errors=True)
            shutil.copytree(self.pristine, self.folder, symlinks=True)

    def draw(self, number: int, seed: int) -> list[str]:
        """Return the words of line `number`, without the name of the program."""
        draw = random.Random(f"{seed}:{number}")
        if draw.random() < 0.02:
            return draw.choices(("--version", "--help", "-h", "fly", *COMMANDS, *WORDS), k=2)
        name = draw.choice([*COMMANDS, "train", "train"])
        options, words = [], []
        for parameter in COMMANDS[name].params:
            if isinstance(parameter, TyperOption):
                options.append(parameter)
            elif parameter.required or name == "crossval" or draw.random() < 0.4:
                words += [_positional(name, draw) for _ in range(draw.choice((1, 1, 1, 2)))]
        n_options = draw.choice((0, 1, 1, 1, 2, 2, 3)) if options else 0  # `recipes` has none
        chosen = draw.choices(options or [None], k=n_options)
        if name in ("train", "crossval"):  # whose hyperparameters are as many as all options
            chosen += [o for o in options if o.name == "set"] * draw.choice((0, 0, 1, 2))
        for option in chosen:
            words += _option(name, option, draw)
        if draw.random() < 0.05:
            words.insert(0, draw.choice(("--fly", "--lr", "--epoch=3", "-x", "--", *TEXTS)))
        return [name, *words]

    def type(self, words: list[str]) -> tuple[object, str, str]:
        """Run a command line; returns its exit code, standard output and standard error.

        For an exception that escapes, which is a bug, the code is its traceback.
        """
        before, code = os.getcwd(), None
        os.chdir(self.folder)
        sys.argv = ["alexnet", *words]
        try:
            with _captured() as (out, err):
                try:
                    main()
                except SystemExit as stop:
                    code = stop.code or 0
                except BaseException:
                    code = traceback.format_exc()
                return code, _text(out), _text(err)
        finally:
            os.chdir(before)
            self._restore()

    def problem(self, words: list[str]) -> str | None:
        """Run a command line and return what is wrong with its end, if anything is."""
        began = time.process_time()
        code, _, err = self.type(words)
        seconds = time.process_time() - began
        lines = err.splitlines()
        if code not in (0, 1, 2):
            return f"ends with {code}"
        if seconds > SLOWEST:
            return f"takes {seconds:.0f} s"
        if code == 0:
            allowed = ("confusion matrix drawn", "report written", "drawn in")  # beside --json
            odd = [line for line in lines if not line.startswith(allowed)]
            trained = words[0] in ("train", "crossval") and not {"--help", "-h"} & {*words}
            return f"writes {odd[0]!r}" if odd else "has trained" if trained else None
        several = words[0] == "predict" and code == 1  # a line for each image
        if not lines or (len(lines) > 1 and not several):
            return f"writes {len(lines)} lines: {err[:2000]!r}"
        odd = [line for line in lines if not line.startswith("alexnet: ")]
        return f"writes {odd[0]!r}" if odd else None


def _names(folder: Path) -> set[tuple[str, int]]:
    """Return each path below `folder` with its size."""
    return {
        (str(path.relative_to(folder)), path.lstat().st_size if path.is_file() else 0)
        for path in folder.rglob("*")
    }


def _positional(command: str, draw: random.Random) -> str:
    if command == "recipes":
        return draw.choice((*RECIPES, *VARIANTS, *PATHS, "modrn"))
    if command == "predict" and draw.random() < 0.5:
        return "image.png"
    if command in ("split", "evaluate") and draw.random() < 0.6:
        return "colors"
    return draw.choice({"train": _ENDS_TRAINING, "crossval": _ENDS_FOLDS}.get(command, PATHS))


def _option(command: str, option: TyperOption, draw: random.Random) -> list[str]:
    """Return an option with its value, as one word or two; at times without."""
    if option.is_flag and draw.random() < 0.9:
        return [option.opts[0]]
    if draw.random() < 0.03:
        return [option.opts[0]]
    value = _value(command, option.name or "", draw)
    return [f"{option.opts[0]}={value}"] if draw.random() < 0.5 else [option.opts[0], value]


def _value(command: str, name: str, draw: random.Random) -> str:
    if draw.random() < 0.1:
        return draw.choice(WORDS)
    match name:
        case "set":
            chosen = draw.choice(NAMES)
            if draw.random() < 0.1:
                chosen = draw.choice((chosen[1:], chosen.replace("_", "-"), chosen.upper(), ""))
            return f"{chosen}={draw.choice((*WORDS, 'relu,pool', 'relu,relu', '5', '64'))}"
        case "hosts":
            return draw.choice(HOSTS)
        case "recipe":
            return draw.choice((*RECIPES, "modrn", "Paper", *TEXTS))
        case "variant":
            return draw.choice((*VARIANTS, "no-dropot", "no-conv5", *TEXTS))
        case "out" | "report" | "weights" | "model" | "resume":
            return draw.choice(PATHS)
        case "precision" | "link" | "format" | "quantize" | "split" | "license":
            valid = ("float32", "float16", "int8", "copy", "hard", "onnx", "litert", "train", "val")
            return draw.choice((*valid, *TEXTS))
    return draw.choice(NUMBERS)


@contextmanager
def _captured() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Write the standard streams of Python, and of C, to files; yields these."""
    streams = sys.stdout, sys.stderr
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        kept = [os.dup(number) for number in (1, 2)]
        for number, file in ((1, out), (2, err)):
            streams[number - 1].flush()
            os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = (
            open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            for number in (1, 2)
        )
        try:
            yield out, err
        finally:
            for number, descriptor in zip((1, 2), kept):
                (sys.stdout, sys.stderr)[number - 1].flush()
                os.dup2(descriptor, number)
                os.close(descriptor)
            sys.stdout, sys.stderr = streams


def _text(file: IO[bytes]) -> str:
    sys.stdout.flush()
    sys.stderr.flush()
    file.seek(0)
    return file.read().decode(errors="replace")


def run() -> None:
    """Type all lines, and report how they end; exits with 1 if there are findings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="number of the first line")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    n_typed, n_found, began = Counter[str](), 0, time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="fuzz-commands-") as folder:
        lines = CommandLines(Path(folder))
        for number in range(given.first, given.first + given.lines):
            words = lines.draw(number, given.seed)
            n_typed[words[0] if words[0] in COMMANDS else "other"] += 1
            if problem := lines.problem(words):
                n_found += 1
                print(f"line {number}: {words!a:.400}\n  {problem}", flush=True)
    print(", ".join(f"{name} {count:,}" for name, count in sorted(n_typed.items())))
    print(f"{n_typed.total():,} lines, {n_found} findings, {time.perf_counter() - began:.0f} s")
    raise SystemExit(n_found > 0)


if __name__ == "__main__":
    run()
