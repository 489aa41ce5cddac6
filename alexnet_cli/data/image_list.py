"""Read a list of images, a CSV file with columns file and label, and perhaps split and group."""

from __future__ import annotations

import codecs
import csv
import io
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from alexnet_cli.data.manifest import SPLIT_NAMES, ImageFile, Manifest, require_name
from alexnet_cli.errors import AlexNetError, describe_os_error
from alexnet_cli.system.atomic_files import open_file

# Names of the columns, in lower case and with _ for a space or hyphen.
_COLUMNS = {
    "file": (
        *("file", "filename", "file_name", "filepath", "file_path", "path"),
        *("image", "image_path", "image_file", "image_name", "img"),
    ),
    "label": ("label", "class", "class_name", "target", "category", "species", "synset", "wnid"),
    "split": ("split", "set", "subset", "partition"),
    "group": ("group", "group_id"),
}
_SPLITS = {title: split for split, titles in SPLIT_NAMES.items() for title in titles}

_MOST_BYTES = 1 << 30
_LONGEST_NAME = 255  # bytes of a file name on Linux


def has_splits(path: Path) -> bool:
    """Return whether the list at `path` has a column for the split; raises as `read`."""
    return "split" in _find_columns(path, next(_rows(path))[1])


def read(path: Path) -> Manifest:
    """Return the images of a list, unread; its root is the folder that all of them share.

    Paths are relative to the folder of the list, or absolute. Raises `AlexNetError` with the line for
    a row without file, label or a known split, for a label that can't name a folder, for a file
    listed twice and for a group in two splits; and if no file exists, if there is only one class, or
    if there are splits but no training or validation images.
    """
    path = path.absolute()
    rows = _rows(path)
    header = next(rows)[1]
    columns = _find_columns(path, header)
    folders: dict[str, str] = {}  # as listed → absolute; few folders hold all the images
    lines: dict[str, int] = {}
    files: list[ImageFile] = []
    split_of: dict[str, str] = {}  # by group
    for line, cells in rows:
        if not any(cells):  # as spreadsheets write below the last row
            continue
        try:
            if any(cells[len(header) :]):
                raise ValueError(
                    f"has {len(cells)} cells, the header {len(header)}. Put names that contain the "
                    "delimiter in quotes"
                )
            cells += [""] * (len(header) - len(cells))
            file, label, split, group = _parse({name: cells[at] for name, at in columns.items()})
            folder, name = os.path.split(file)
            if folder not in folders:
                folders[folder] = os.path.realpath(path.parent / folder)
            full = os.path.join(folders[folder], name)
            if (first := lines.setdefault(full, line)) != line:
                raise ValueError(f"{file} is listed already in line {first}. Remove one of them")
            if group and split_of.setdefault(group, split) != split:
                raise ValueError(
                    f"group {group!r} is in {split_of[group]} and in {split}. Keep it in one split"
                )
        except ValueError as error:
            raise AlexNetError(f"{path}:{line}: {error}") from None
        files.append(ImageFile(Path(full), label, split, group=group))
    if not any(os.path.exists(file.path) for file in files):
        found = f"none of its files exists, such as {files[0].path}" if files else "no row"
        raise AlexNetError(f"{path}: {found}. Paths are absolute or relative to {path.parent}")
    classes = tuple(sorted({file.label for file in files}))
    if len(classes) == 1:
        problem = f"contains only one class, {classes[0]!r}"
        raise AlexNetError(f"{path}: {problem}. Add images of at least one more class")
    missing = {"train", "val"} - {file.split for file in files}
    if missing and "split" in columns:
        raise AlexNetError(
            f"{path}: no image of the split {min(missing)}. Add some, or remove the column "
            f"{header[columns['split']]} to have the images divided"
        )
    root = Path(os.path.commonpath(folders.values()))
    return Manifest(
        root=root,
        source=root,
        classes=classes,
        files=tuple(files),
        rejected=(),
        n_ignored=0,
        image_list=path,
    )


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of each row, the header first; there is always one."""
    try:
        with open_file(path, _MOST_BYTES, links=True) as stream:
            content = stream.read()
    except OSError as error:
        raise AlexNetError(describe_os_error(error)) from error
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace")  # spreadsheets on Windows in Europe and America
    delimiter = max(",;\t", key=text.lstrip("\r\n").partition("\n")[0].count)
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    begun = False
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            # Some spreadsheets name the delimiter in a line of its own above the header.
            begun |= any(cells) and not cells[0].startswith("sep=")
            if begun:
                yield reader.line_num, cells
    except csv.Error as error:
        raise AlexNetError(f"{path}:{reader.line_num}: is not valid CSV: {error}") from None
    if not begun:
        yield 1, []


def _find_columns(path: Path, header: list[str]) -> dict[str, int]:
    """Return the number of each of the columns that there are, by its name in `_COLUMNS`."""
    titles = [title.lower().replace(" ", "_").replace("-", "_") for title in header]
    columns: dict[str, int] = {}
    for name, usual in _COLUMNS.items():
        found = [number for number, title in enumerate(titles) if title in usual]
        if len(found) > 1:
            which = " and ".join(repr(header[number]) for number in found)
            raise AlexNetError(f"{path}:1: columns {which} both mean {name}. Rename one of them")
        if found:
            columns[name] = found[0]
        elif name in ("file", "label"):
            raise AlexNetError(
                f"{path}:1: no column {name}, only {', '.join(header)!r:.80}. Expected a list with "
                "columns file and label, or a folder with one folder per class"
            )
    return columns


def _parse(row: Mapping[str, str]) -> tuple[str, str, str, str]:
    """Return file, label, split and group of a row; raises `ValueError` if it has no such values."""
    for name, cell in row.items():
        if not cell and name != "group":
            whole = ", or the column, to have the images divided" if name == "split" else ""
            raise ValueError(f"no {name}. Fill the cell, or remove the row{whole}")
        require_name(cell)
    label, split = row["label"], row.get("split", "")
    if "/" in label or label.startswith(".") or len(label.encode()) > _LONGEST_NAME:
        reason = "contains a slash, begins with a dot or is too long"
        raise ValueError(f"label {label!r:.60} can't be the name of a folder: it {reason}")
    if len(row.get("group", "").encode()) > _LONGEST_NAME:
        raise ValueError(f"group {row['group']!r:.60} is too long")
    if split and not (split := _SPLITS.get(split.lower(), "")):
        reason = f"unknown split {row['split']!r:.60}. Choose from {', '.join(SPLIT_NAMES)}"
        raise ValueError(reason)
    return row["file"], sys.intern(label), split, sys.intern(row.get("group", ""))
