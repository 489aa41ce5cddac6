"""Lists of images in place of folders."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest
from folders import make, png, tree, two_classes

from alexnet_cli.api.splits import split
from alexnet_cli.data import scanning, split_folders, tfrecords
from alexnet_cli.data.manifest import MANIFEST, read_manifest
from alexnet_cli.data.split_plan import group_files
from alexnet_cli.errors import AlexNetError, UsageError


def write_list(path: Path, rows: list[tuple[str, ...]], header=("file", "label"), **options):
    """Write `rows` as CSV; returns its path."""
    encoding = options.pop("encoding", "utf-8")
    with path.open("w", encoding=encoding, newline="") as stream:
        csv.writer(stream, **options).writerows([header, *rows])
    return path


def rows_of(folder: Path) -> list[tuple[str, str]]:
    """Return path, relative to the folder above, and class of each image in a folder of class folders."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        (f"{folder.name}/{p.relative_to(folder)}", p.relative_to(folder).parts[0]) for p in paths
    ]


def test_a_list_is_split_like_the_same_images_in_class_folders(tmp_path: Path) -> None:
    """Oracle: the split of the folder; rows in another order, and the same files on disk."""
    photos = make(two_classes(tmp_path / "photos"), {"cat/sub/x.png": png(99)})
    listed = write_list(tmp_path / "images.csv", rows_of(photos)[::-1])
    (tmp_path / "a").mkdir()
    of_folder = split(photos, tmp_path / "a" / "data", val=0.2, test=0.1)
    of_list = split(listed, tmp_path / "b", val=0.2, test=0.1)
    assert of_list.counts() == of_folder.counts()
    assert {(f.sha256, f.split, f.label) for f in of_list.files} == {
        (f.sha256, f.split, f.label) for f in of_folder.files
    }
    assert (of_list.image_list, of_list.source) == (listed, photos)
    assert split_folders.open_data(tmp_path / "b") == of_list
    ours, theirs = tree(tmp_path / "b"), tree(tmp_path / "a" / "data")
    assert {k: v for k, v in ours.items() if k != MANIFEST and "/x" not in k} == {
        k: v for k, v in theirs.items() if k != MANIFEST and "/x" not in k
    }
    (moved,) = (
        f for f in of_list.files if f.origin
    )  # all others are CLASS/NAME in the source, too
    assert (moved.path.name, moved.origin) == ("x.png", "cat/sub/x.png")


def test_colliding_names_get_numbers_and_keep_their_origin(tmp_path: Path) -> None:
    """Oracle: the bytes that each image had where it came from, which no other image has."""
    names = ["one/0.png", "two/0.png", "three/0.PNG", "three/0-2.png", "four/0.png"]
    make(tmp_path, {f"shelf/{name}": png(i) for i, name in enumerate(names)})
    make(tmp_path / "shelf", {"dogs/1.png": png(50), "dogs/2.png": png(51)})
    (tmp_path / "lists").mkdir()
    rows = [(f"../shelf/{name}", "cat") for name in names]
    rows += [(str(tmp_path / "shelf/dogs" / name), "dog") for name in ("1.png", "2.png")]
    rows = [(*row, "val" if i in (4, 6) else "train") for i, row in enumerate(rows)]
    listed = write_list(tmp_path / "lists/x.csv", rows, ("file", "label", "split"))
    written = split(listed, tmp_path / "out")
    assert len(written.files) == 7
    assert len({str(f.path).casefold() for f in written.files}) == 7
    for file in read_manifest(tmp_path / "out" / MANIFEST).files:
        came_from = written.source / (file.origin or f"{file.label}/{file.path.name}")
        assert file.path.read_bytes() == came_from.read_bytes()
    cats = {f.path.name for f in written.files if (f.label, f.split) == ("cat", "train")}
    assert cats == {"0.png", "0-2.png", "0-3.PNG", "0-4.png"}  # "0-2.PNG" differs in case only
    assert [f.path.name for f in written.of("val")] == ["0.png", "2.png"]
    assert written.seed is None


@pytest.mark.parametrize(
    ("encoding", "delimiter", "lineterminator"),
    [
        ("utf-8", ",", "\n"),
        ("utf-8-sig", ";", "\r\n"),  # Excel: CSV UTF-8, where the comma is decimal
        ("utf-16", "\t", "\r\n"),  # Excel: Unicode Text
        ("utf-16-be", ",", "\n"),
        ("cp1252", ";", "\r\n"),  # Excel: CSV
    ],
)
def test_lists_are_read_as_spreadsheets_write_them(tmp_path, encoding, delimiter, lineterminator):
    """Oracle: Python's csv and codecs, which write the list; names with umlauts, commas and quotes."""
    names = ['grün, "alt".png', "b;c.png", "d.png", "e.png"]
    make(tmp_path, {name: png(i) for i, name in enumerate(names)})
    rows = list(zip(names, ["Bäume", "Bäume", "Gras", "Gras"]))
    path = write_list(
        tmp_path / "images.csv",
        [*rows, ("", "")],
        ("Image Path", " Class "),
        encoding=encoding,
        delimiter=delimiter,
        lineterminator=lineterminator,
    )
    if encoding == "utf-16-be":  # Python writes no byte order mark
        path.write_bytes(b"\xfe\xff" + path.read_bytes())
    found = scanning.scan(path)
    assert {(f.path, f.label) for f in found.files} == {(tmp_path / n, c) for n, c in rows}
    assert found.classes == ("Bäume", "Gras")


def test_lists_that_pandas_writes_are_read(tmp_path: Path) -> None:
    """Oracle: pandas; its index is a column without a name."""
    pandas = pytest.importorskip("pandas")
    photos = two_classes(tmp_path / "photos", 3)
    rows = rows_of(photos)
    frame = pandas.DataFrame({"path": [r[0] for r in rows], "target": [r[1] for r in rows]})
    frame.to_csv(tmp_path / "images.csv")
    assert len(scanning.scan(tmp_path / "images.csv").files) == 6


BAD = [
    ("file,label\na.png,x\nb.png,\n", "3: no label"),
    ("file,label\na.png,x\n,y\n", "3: no file"),
    ("file,label\na.png,x\nb.png\n", "3: no label"),
    ("file,label\na.png,x\n\n./a.png,y\n", "4: ./a.png is listed already in line 2"),
    ("file,label\na.png,a/b\n", "2: label 'a/b' can't be the name of a folder"),
    ("file,label\na.png,..\n", "2: label '..' can't"),
    (f"file,label\na.png,{'ü' * 128}\n", "2: label 'ü"),
    (f"file,label,group\na.png,x,{'ü' * 128}\n", "2: group 'ü+ is too long"),
    ("sep=;\n\nfile;label\na.png;x\nb.png;\n", "5: no label"),
    ("file,label,split\na.png,x,train\nb.png,y,val\n", " class 'y' contains no readable .* train"),
    ("file,label\na\0.png,x\n", "2: 'a\\\\x00.png' contains a null character"),
    ("file,label\na,b.png,x\n", "2: has 3 cells, the header 2"),
    ('file,label\n"a.png,x\nb.png,y\n', "3: is not valid CSV: unexpected end of data"),
    ("file,label,split\na.png,x,train\nb.png,y,hold out\n", "3: unknown split 'hold out'"),
    ("file,label,split\na.png,x,train\nb.png,y,\n", "3: no split.*remove the row, or the column"),
    (
        "file,label,split,group\na.png,x,train,g\nb.png,y,val,g\n",
        "3: group 'g' is in train and in val",
    ),
    ("file,label,split\na.png,x,train\nb.png,y,Test\n", " no image of the split val"),
    ("file,label\na.png,x\nb.png,x\n", " contains only one class, 'x'"),
    ("file,label\n1.png,x\n2.png,y\n", " none of its files exists, such as .*/1.png. Paths are"),
    ("file,label\n", " no row"),
    ("", "1: no column file"),
    ("image;species?\n", "1: no column label, only 'image, species.'"),
    ("path,image,label\n", "1: columns 'path' and 'image' both mean file"),
]


@pytest.mark.parametrize(("text", "problem"), BAD, ids=[problem[:30] for _, problem in BAD])
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, text: str, problem: str) -> None:
    """Oracle: the line, counted by hand, as an editor counts it; nothing is written."""
    make(tmp_path, {"a.png": png(1), "b.png": png(2), "images.csv": text.encode()})
    with pytest.raises(AlexNetError, match=rf"images\.csv:{problem}") as caught:
        split(tmp_path / "images.csv", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_images_are_skipped_and_listed(tmp_path: Path) -> None:
    """Oracle: the files made: one missing, one damaged, one text and one folder; the manifest as read back."""
    photos = make(two_classes(tmp_path / "photos"), {"bad.png": png(1)[:20], "notes.txt": b"no"})
    wrong = [("photos/gone.png", "cat"), ("photos/bad.png", "cat")]
    wrong += [("photos/notes.txt", "dog"), ("photos/cat", "dog")]
    rows = [row for row in rows_of(photos) if row[1] in ("cat", "dog")]
    split(write_list(tmp_path / "images.csv", rows + wrong), tmp_path / "out")
    written = read_manifest(tmp_path / "out" / MANIFEST)
    assert len(written.files) == 20
    assert {item.path: item.reason for item in written.rejected} == {
        photos / "gone.png": "No such file or directory",
        photos / "bad.png": "does not decode",
        photos / "notes.txt": "is not an image",
        photos / "cat": "is not an image",
    } or {item.path.name for item in written.rejected} == {
        "gone.png",
        "bad.png",
        "notes.txt",
        "cat",
    }
    rows = [row for row in rows if row[1] == "cat"] + wrong
    with pytest.raises(AlexNetError, match=r"images.csv: class 'dog' contains no readable image"):
        scanning.scan(write_list(tmp_path / "images.csv", rows))


def test_the_column_split_is_kept_and_can_not_be_planned_anew(tmp_path: Path) -> None:
    """Oracle: the column; and what a folder split by another tool gives."""
    photos = two_classes(tmp_path / "photos")
    names = ["training", "Valid", "testing", "train"]
    rows = [(*row, names[i % 4]) for i, row in enumerate(rows_of(photos))]
    listed = write_list(tmp_path / "images.csv", rows, ("filename", "class", "subset"))
    opened = split_folders.open_data(listed)
    assert scanning.is_split(listed)
    expected = {"training": "train", "Valid": "val", "testing": "test", "train": "train"}
    assert {f.path: f.split for f in opened.files} == {
        tmp_path / name: expected[split] for name, _, split in rows
    }
    for file in opened.files:
        make(
            tmp_path / "other",
            {f"{file.split}/{file.label}/{file.path.name}": file.path.read_bytes()},
        )
    other = split_folders.open_data(tmp_path / "other")
    assert (opened.counts(), opened.val, opened.test) == (other.counts(), other.val, other.test)
    with pytest.raises(
        UsageError, match=r"test=0.1: leave it out, as .*images.csv is already split"
    ):
        split(listed, tmp_path / "out", test=0.1)
    with pytest.raises(AlexNetError, match="is already split"):
        scanning.scan(listed)


def test_groups_of_a_list_never_cross_splits(tmp_path: Path) -> None:
    """Oracle: the law, on groups across both classes; folder rules need folders."""
    photos = two_classes(tmp_path / "photos", 30)
    rows = [(*row, f"plant {i % 15}" if i % 3 else "") for i, row in enumerate(rows_of(photos))]
    listed = write_list(tmp_path / "images.csv", rows, ("file", "label", "group"))
    planned = split_folders.open_data(listed, seed=3)
    splits: dict[str, set[str]] = {}
    for file in planned.files:
        splits.setdefault(file.group, set()).add(file.split)
    assert len(splits) == 11
    assert splits.pop("") == {"train", "val"}
    assert all(len(found) == 1 for found in splits.values())
    ungrouped = scanning.scan(write_list(tmp_path / "plain.csv", rows_of(photos)))
    assert {f.group for f in group_files(ungrouped, r"^(\d)").files} == set("0123456789")
    for scanned, rule in ((ungrouped, "folder"), (scanning.scan(listed), r"^(\d)")):
        with pytest.raises(UsageError, match="Group its images by a column named group"):
            group_files(scanned, rule)


def test_names_are_grouped_wherever_the_images_of_a_list_lie(tmp_path: Path) -> None:
    """Oracle: the number in each name; some images are in the folder that all share, some below it."""
    paths = [f"{'below/' * (i % 3 == 0)}plant{i // 2}_{i % 2}.png" for i in range(24)]
    make(tmp_path, {path: png(number) for number, path in enumerate(paths)})
    rows = [(path, ("cat", "dog")[number // 4 % 2]) for number, path in enumerate(paths)]
    grouped = group_files(scanning.scan(write_list(tmp_path / "l.csv", rows)), r"(plant\d+)_")
    assert all(file.group == file.path.name.partition("_")[0] for file in grouped.files)


def test_the_output_may_lie_beside_the_images_but_not_around_them(tmp_path: Path) -> None:
    """Oracle: every byte of the folder before and after."""
    photos = two_classes(tmp_path / "photos")
    listed = write_list(photos / "images.csv", [(p[7:], label) for p, label in rows_of(photos)])
    split(listed, photos / "data", link="symbolic")  # the folder of the list and of all images
    inside = [(str(f), f.parent.name) for f in (photos / "data").glob("*/*/*")]
    listed = write_list(tmp_path / "inside.csv", inside)
    before = tree(tmp_path)
    with pytest.raises(
        AlexNetError, match=r"photos/data: contains the source .*/photos/data/\w+/\w+\."
    ):
        split(listed, photos / "data", force=True)
    with pytest.raises(AlexNetError, match=r"contains the source .*/inside\.csv"):
        split(listed, tmp_path)
    assert tree(tmp_path) == before


def test_a_prepared_list_has_the_same_images_and_origins(tmp_path: Path) -> None:
    """Oracle: the split of the same list in files, and that split prepared."""
    photos = make(two_classes(tmp_path / "photos"), {"more/0.png": png(70), "more/1.png": png(71)})
    rows = [(path, label if label != "more" else "cat") for path, label in rows_of(photos)]
    listed = write_list(tmp_path / "images.csv", rows)
    files = split(listed, tmp_path / "files")
    shards = split(listed, tmp_path / "shards", prepare=True)
    again = tfrecords.write(files, tmp_path / "again", processes=False)
    for prepared in (shards, again):
        assert [
            replace(f, record=None, path=f.path.relative_to(prepared.root)) for f in prepared.files
        ] == [replace(f, path=f.path.relative_to(files.root)) for f in files.files]
    assert sum(bool(f.origin) for f in files.files) == 2


def test_a_list_without_checks_reads_no_image(tmp_path: Path) -> None:
    """Oracle: files that are no images, named like some, are in the plan."""
    make(tmp_path, {f"{i}.jpg": b"no" for i in range(8)} | {"x.txt": b"no"})
    rows = [*((f"{i}.jpg", "ab"[i % 2]) for i in range(8)), ("x.txt", "a")]
    options = scanning.ScanOptions(check=False)
    planned = split_folders.open_data(write_list(tmp_path / "l.csv", rows), options=options)
    assert (len(planned.files), planned.n_ignored) == (8, 1)


def test_links_to_folders_do_not_hide_that_a_file_is_listed_twice(tmp_path: Path) -> None:
    """Oracle: `os.path.samefile`."""
    two_classes(tmp_path / "photos")
    os.symlink("photos", tmp_path / "linked")
    assert os.path.samefile(tmp_path / "photos/cat/0.png", tmp_path / "linked/cat/0.png")
    rows = [("photos/cat/0.png", "cat"), ("linked/cat/0.png", "cat")]
    with pytest.raises(AlexNetError, match=r":3: linked/cat/0.png is listed already in line 2"):
        scanning.scan(write_list(tmp_path / "l.csv", rows))
