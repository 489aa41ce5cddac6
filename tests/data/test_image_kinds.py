"""One folder with every kind of file, and the same result from every command.

`ROWS` is the table of docs/images.md, and each of `CASES` is a file that belongs to one of its rows.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from helpers import QUICK, evaluate, predict, run
from PIL import Image, features
from rich.console import Console
from test_images import (
    ALPHA,
    GRAY,
    HAS_HEIF_DECODER,
    HEIC,
    HEIC_FILES,
    HEIC_PIXELS,
    ORIENTATIONS,
    PICTURE,
    SHARP_JPEG,
    encode,
    half_a_jpeg,
    png_header,
)

from alexnet_cli.cli import tables
from alexnet_cli.data import images, scanning, split_folders
from alexnet_cli.data.manifest import MANIFEST, Manifest, Rejected, read_manifest
from alexnet_cli.data.split_plan import plan_split
from alexnet_cli.system.safe_names import MAX_LISTED

AS_IT_IS, CONVERTED, SKIPPED, IGNORED = "read", "read, converted", "skipped, listed", "ignored"

# As `images` configures Pillow at import; pytest makes all warnings errors again.
pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")

HEIC_READ = "HEIC and HEIF, with the extra `heic`; also turned, 10 bits, gray, transparent, several"
HEIC_SKIPPED = "HEIC and HEIF, without that extra"

ROWS = {
    "JPEG, also progressive and gray; PNG, BMP, GIF, PPM": (AS_IT_IS, "its pixels"),
    "WebP, AVIF, JPEG 2000, TIFF (also LZW and deflate)": (AS_IT_IS, "its pixels"),
    "any of them by another suffix or none, or with any name": (AS_IT_IS, "its content decides"),
    "a link to an image; an image in a folder below, whatever its name": (AS_IT_IS, "its pixels"),
    "EXIF orientation, 1 to 8": (CONVERTED, "turned upright"),
    "CMYK and YCCK, in JPEG and TIFF": (CONVERTED, "to RGB, each ink taking its share of light"),
    "16 bits a channel, gray or RGB": (CONVERTED, "the upper 8 bits"),
    "palette, 1-bit, gray": (CONVERTED, "three channels"),
    "transparency: RGBA, LA, palette, WebP, AVIF": (CONVERTED, "composited on white"),
    "animations: GIF, APNG, WebP; MPO; TIFF of several pages": (CONVERTED, "the first frame"),
    "a truncated image": (SKIPPED, "does not decode"),
    "an empty file that is named like an image": (SKIPPED, "is empty"),
    "HTML, text or SVG that is named like an image": (SKIPPED, "is not an image"),
    HEIC_READ: (CONVERTED, "upright, 8 bits, on white, the primary image"),
    HEIC_SKIPPED: (
        SKIPPED,
        "is HEIC. Add its decoder, in the clone of alexnet: pip install '.[heic]'",
    ),
    "floating-point TIFF": (SKIPPED, "contains floating-point pixels of unknown range"),
    "over 178,956,970 pixels by the header": (SKIPPED, "does not decode: Image size"),
    "over 89,478,485 pixels, or a side over 65,535": (SKIPPED, "has"),
    "JPEG of more than 100 scans": (SKIPPED, "has"),
    "over 1 GiB": (SKIPPED, "is larger than 1,073,741,824 bytes"),
    "a link to nothing": (SKIPPED, "No such file or directory"),
    "a link to itself": (SKIPPED, "Too many levels of symbolic links"),
    "a pipe or device that is named like an image": (SKIPPED, "is not a regular file"),
    "no permission, or a failing disk": (SKIPPED, "what the system says"),
    "dot files; all that lies in `__MACOSX` and dot folders": (IGNORED, "nothing"),
    "anything else, such as `Thumbs.db` and notes": (IGNORED, "nothing"),
}


@dataclass(frozen=True)
class Case:
    """A file of the corpus; its name is the path below the class folder."""

    name: str
    row: str
    content: bytes = b""
    pixels: np.ndarray = field(default_factory=lambda: PICTURE)  # where it is read
    tolerance: int = 2

    @property
    def result(self) -> str:
        return ROWS[self.row][0]


def _row(start: str) -> str:
    (row,) = (row for row in ROWS if row.startswith(start))
    return row


def _file(name: str, row: str, image, file_format: str, pixels=PICTURE, **options) -> Case:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    return Case(name, _row(row), encode(image, file_format, **options).getvalue(), pixels)


def _gray(pixels: np.ndarray) -> np.ndarray:
    return np.stack([pixels] * 3, axis=-1)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checked = kind + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))


def _png_of_16_bit_rgb() -> bytes:
    """Return a 16-bit RGB PNG with lower bytes of 77, which Pillow can't write."""
    deep = (PICTURE.astype(np.uint16) * 256 + 77).astype(">u2")
    height, width, _ = deep.shape
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    body = _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


BLACK = 51  # of 255: ink that leaves 0.8 of the light
INKS = np.dstack([255 - PICTURE, np.full(PICTURE.shape[:2], BLACK, np.uint8)])
DARKER = PICTURE * 0.8


def _ycck() -> bytes:
    """A CMYK JPEG whose Adobe marker says that its first three planes are YCbCr of the inks."""
    inks = Image.fromarray(INKS[..., :3].copy()).convert("YCbCr")
    planes = np.dstack([255 - np.asarray(inks), INKS[..., 3]])
    image = Image.merge("CMYK", [Image.fromarray(plane) for plane in np.moveaxis(planes, 2, 0)])
    jpeg = bytearray(encode(image, "JPEG", **SHARP_JPEG).getvalue())
    jpeg[jpeg.index(b"Adobe") + 11] = 2
    return bytes(jpeg)


def _cases() -> list[Case]:
    """Return all cases that the installed Pillow can write."""
    read, more = "JPEG, also", "WebP, AVIF"
    cases = [
        _file("rgb.jpg", read, PICTURE, "JPEG", **SHARP_JPEG),
        _file("progressive.jpg", read, PICTURE, "JPEG", progressive=True, **SHARP_JPEG),
        _file("gray.jpg", read, GRAY, "JPEG", _gray(GRAY), **SHARP_JPEG),
        *(_file(f"rgb.{f.lower()}", read, PICTURE, f) for f in ("PNG", "BMP", "PPM")),
        _file("rgb.gif", read, Image.fromarray(PICTURE).quantize(8), "GIF"),
        _file("rgb.tif", more, PICTURE, "TIFF"),
        _file("lzw.tiff", more, PICTURE, "TIFF", compression="tiff_lzw"),
        _file("deflate.tiff", more, PICTURE, "TIFF", compression="tiff_adobe_deflate"),
    ]
    rgba = np.dstack([PICTURE, ALPHA]).astype(np.uint8)
    white = HEIC_PIXELS["alpha"]
    cases += [_file("alpha.png", "transparency", rgba, "PNG", white)]
    frames = [Image.new("RGB", (48, 32), color) for color in ("red", "blue")]
    frames = {"save_all": True, "append_images": frames}
    upright = Image.fromarray(PICTURE)
    cases += [
        _file("moving.gif", "animations", upright.quantize(8), "GIF", **frames),
        _file("moving.png", "animations", upright, "PNG", **frames),
        _file("pages.tiff", "animations", upright, "TIFF", **frames),
        _file("several.mpo", "animations", upright, "MPO", **frames, **SHARP_JPEG),
    ]
    if features.check("webp"):
        lossless = {"lossless": True, "exact": True}
        cases += [
            _file("rgb.webp", more, PICTURE, "WEBP", lossless=True),
            _file("alpha.webp", "transparency", rgba, "WEBP", white, **lossless),
            _file("moving.webp", "animations", upright, "WEBP", lossless=True, **frames),
        ]
    if features.check("avif"):
        sharp = {"quality": 100, "subsampling": "4:4:4"}
        cases += [
            _file("rgb.avif", more, PICTURE, "AVIF", **sharp),
            _file("alpha.avif", "transparency", rgba, "AVIF", white, **sharp),
        ]
    if features.check("jpg_2000"):
        cases.append(_file("rgb.jp2", more, PICTURE, "JPEG2000", irreversible=False))
    for orientation, turn in ORIENTATIONS.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = np.ascontiguousarray(turn(PICTURE))
        name = f"orientation {orientation}.jpg"
        cases.append(_file(name, "EXIF", stored, "JPEG", exif=exif, **SHARP_JPEG))
    cmyk = Image.merge("CMYK", [Image.fromarray(plane) for plane in np.moveaxis(INKS, 2, 0)])
    deep = GRAY.astype(np.uint16) * 256 + 77
    la = Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(ALPHA[..., 0].astype(np.uint8))])
    white_gray = GRAY * (ALPHA[..., 0] / 255) + 255 * (1 - ALPHA[..., 0] / 255)
    bits = np.where(GRAY > 100, 255, 0).astype(np.uint8)
    key = _palette_whose_first_is_clear()
    cases += [
        _file("cmyk.jpg", "CMYK", cmyk, "JPEG", DARKER, **SHARP_JPEG),
        Case("ycck.jpg", _row("CMYK"), _ycck(), DARKER, 4),
        _file("cmyk.tif", "CMYK", cmyk, "TIFF", DARKER),
        _file("deep gray.png", "16 bits", deep, "PNG", _gray(GRAY)),
        _file("deep gray.tif", "16 bits", deep, "TIFF", _gray(GRAY)),
        Case("deep.png", _row("16 bits"), _png_of_16_bit_rgb()),
        _file("gray.png", "palette, 1-bit", GRAY, "PNG", _gray(GRAY)),
        _file("palette.png", "palette, 1-bit", upright.quantize(8), "PNG"),
        _file("bits.png", "palette, 1-bit", Image.fromarray(bits).convert("1"), "PNG", _gray(bits)),
        _file("la.png", "transparency", la, "PNG", _gray(white_gray)),
        _file("clear.png", "transparency", key[0], "PNG", key[1], transparency=0),
    ]
    png = encode(Image.fromarray(PICTURE), "PNG").getvalue()
    names = ["png.JPEG", "none", "image.old", "two words.png", "two\nlines.png", "[red].png"]
    names += ["\x1b[31mred.png", os.fsdecode(b"caf\xe9.png"), "-rf.png", "=1+1.png", "ü.PNG"]
    cases += [Case(name, _row("any of them"), png) for name in names]
    cases += [Case("link.png", _row("a link to an"), png)]
    cases += [Case("folder.jpg/below/a.png", _row("a link to an"), png)]
    jpeg = encode(Image.fromarray(PICTURE), "JPEG", progressive=True).getvalue()
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    page = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
    heic = HEIC_READ if HAS_HEIF_DECODER else HEIC_SKIPPED
    cases += [
        Case(path.name, heic, path.read_bytes(), HEIC_PIXELS.get(stem, PICTURE))
        for stem, path in HEIC_FILES.items()
    ]
    cases += [Case(name, heic, HEIC) for name in ("IMG_1.HEIC", "heic.jpg", "heic")]
    svg = b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"
    floats = encode(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF").getvalue()
    cases += [
        Case("half.jpg", _row("a truncated"), half_a_jpeg()),
        Case("half", _row("a truncated"), half_a_jpeg()),
        Case("endless.jpg", _row("a truncated"), cases[0].content[:-2]),
        Case("half.png", _row("a truncated"), png[: len(png) // 2]),
        Case("empty.jpg", _row("an empty")),
        Case("page.jpg", _row("HTML"), page),
        Case("text.png", _row("HTML"), b"The cat sat on the mat."),
        Case("drawing.svg", _row("HTML"), svg),
        Case("drawing.jpg", _row("HTML"), svg),
        Case("half.heic", _row("a truncated") if HAS_HEIF_DECODER else heic, HEIC[:1000]),
        Case("float.tif", _row("floating"), floats),
        Case("65000.png", _row("over 178"), png_header(65_000, 65_000)),
        Case("20000.png", _row("over 178"), png_header(20_000, 20_000)),
        Case("9500.png", _row("over 89"), png_header(9_500, 9_500)),
        Case("line.png", _row("over 89"), png_header(70_000, 1)),
        Case("scans.jpg", _row("JPEG of"), jpeg[:-2] + 1000 * scan + b"\xff\xd9"),
        Case("huge.jpg", _row("over 1 GiB")),
        Case("gone.jpg", _row("a link to nothing")),
        Case("self.jpg", _row("a link to itself")),
        Case("pipe.jpg", _row("a pipe")),
        Case("failing.jpg", _row("no permission")),
        Case(".DS_Store", _row("dot files"), b"\0\0\0\1Bud1"),
        Case("._rgb.jpg", _row("dot files"), b"\0\5\26\7"),
        Case(".hidden.png", _row("dot files"), png),
        Case("__MACOSX/rgb.png", _row("dot files"), png),
        Case(".cache/rgb.png", _row("dot files"), png),
        Case("Thumbs.db", _row("anything"), b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)),
        Case("notes.txt", _row("anything"), b"A cat."),
        Case("page.html", _row("anything"), page),
        Case("pipe", _row("anything")),
        Case("film.mp4", _row("anything")),
    ]
    if os.geteuid():  # nothing is shut to root
        cases.append(Case("shut.jpg", _row("no permission"), png))
    return cases


def _palette_whose_first_is_clear() -> tuple[Image.Image, np.ndarray]:
    image = Image.fromarray(PICTURE).quantize(8)
    clear = (np.asarray(image) == 0)[..., None]
    return image, np.where(clear, 255, PICTURE)


N_DOGS = 3
CASES = {case.name: case for case in _cases()}
READ = {name: case for name, case in CASES.items() if case.result.startswith("read")}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Class folders `cat`, which contains every case, and `dog`."""
    root = tmp_path_factory.mktemp("corpus") / "tree"
    for number in range(N_DOGS):
        (root / "dog").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (number, 0, 0)).save(root / "dog" / f"{number}.png")
    for case in CASES.values():
        path = root / "cat" / case.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(case.content)
    cat = root / "cat"
    for name in ("huge.jpg", "film.mp4"):
        os.truncate(cat / name, 2**30 + 1)  # takes no room on the disk
    for name in ("pipe.jpg", "pipe"):
        (cat / name).unlink()
        os.mkfifo(cat / name)
    links = {"gone.jpg": "nowhere", "self.jpg": "self.jpg", "failing.jpg": "/proc/self/mem"}
    for name, target in {**links, "link.png": "../../elsewhere.png"}.items():
        (cat / name).unlink()
        (cat / name).symlink_to(target)
    (root.parent / "elsewhere.png").write_bytes(CASES["link.png"].content)
    (cat / "loop").symlink_to(cat)
    if "shut.jpg" in CASES:
        (cat / "shut.jpg").chmod(0)
    return root


def of_manifest(manifest: Manifest, *folders: Path) -> dict[str, str]:
    """Return the reason why each file in `folders` was skipped, "" for images."""
    found = {file.path: "" for file in manifest.files}
    found |= {item.path: item.reason for item in manifest.rejected}
    return below(found, *folders)


def below(found: dict[Path, str], *folders: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): reason
        for path, reason in found.items()
        for folder in folders
        if folder in path.parents
    }


@pytest.fixture(scope="module")
def split(corpus, tmp_path_factory) -> Manifest:
    """The split of the corpus."""
    planned = plan_split(scanning.scan(corpus))
    return split_folders.write(planned, tmp_path_factory.mktemp("split") / "data")


@pytest.fixture(scope="module")
def expected(split) -> dict[str, str]:
    """The result of `split` for each file, which every other command must have too."""
    folders = (split.root / name / "cat" for name in ("train", "val"))
    return of_manifest(split, *folders, split.source / "cat")


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory) -> Path:
    """A run on another tool's split, whose train and val are both the corpus."""
    other = tmp_path_factory.mktemp("other")
    for name in ("train", "val"):
        (other / name).symlink_to(corpus)
    return run(other, tmp_path_factory.mktemp("runs"), replace(QUICK, epochs=1)).run


def test_split_handles_every_file_as_documented(expected, split):
    """Oracle: `ROWS`; reasons start as in the table."""
    for name, case in CASES.items():
        if case.result == IGNORED:
            assert name not in expected, name
            continue
        what = ROWS[case.row][1] if case.result == SKIPPED else ""
        what = {"failing.jpg": "Input/output", "shut.jpg": "Permission"}.get(name, what)
        assert name in expected, name
        assert expected[name].startswith(what), (name, expected[name])
        assert bool(expected[name]) == bool(what), (name, expected[name])
    assert expected.keys() <= CASES.keys()
    counted = [n for n, c in CASES.items() if c.result == IGNORED and "/" not in n]
    assert split.n_ignored == len(counted)  # hidden folders are never entered


@pytest.mark.parametrize("name", READ)
def test_images_have_the_right_pixels(corpus, name):
    """Oracle: the encoded picture; blends, inks and upper bytes by hand."""
    case, path = CASES[name], corpus / "cat" / name
    found = np.asarray(images.open_rgb(path)).astype(float)
    np.testing.assert_allclose(found, case.pixels, atol=case.tolerance, rtol=0)


def test_training_on_an_unsplit_folder_agrees(corpus, expected, split):
    """Oracle: the results of `split`; also the same counts, as the plan is the same."""
    planned = split_folders.open_data(corpus)
    assert of_manifest(planned, corpus / "cat") == expected
    assert planned.n_ignored == split.n_ignored
    assert planned.counts() == split.counts()


def test_training_on_the_split_of_another_tool_agrees(trained, expected):
    """Oracle: the results of `split`, in both parts."""
    manifest = read_manifest(trained / MANIFEST)
    for name in ("train", "val"):
        assert of_manifest(manifest, manifest.root / name / "cat") == expected


def test_evaluation_agrees(trained, corpus, expected):
    """Oracle: the results of `split`; every image that is read counts once."""
    report = evaluate([trained], corpus)
    found = below({item.path: item.reason for item in report.rejected}, corpus / "cat")
    assert found == {name: reason for name, reason in expected.items() if reason}
    assert report.one_crop.n == len(READ) + N_DOGS
    written = report.as_json()["rejected"]
    assert {Path(item["path"]): item["reason"] for item in written} == {
        corpus / "cat" / name: reason for name, reason in found.items()
    }
    console = Console(file=StringIO(), width=200)
    tables.show_evaluation(console, report)
    lines = [line for line in console.file.getvalue().splitlines() if "skipped" in line]
    assert lines[0] == f"skipped: {report.rejected[0].path}: {report.rejected[0].reason}"
    assert lines[-1].startswith(f"and {len(found) - MAX_LISTED} more skipped")


def test_prediction_agrees(trained, corpus, expected):
    """Oracle: the results of `split`, for a folder and for files by name.

    A file that is given by name is never ignored: it is an image or an error.
    """
    cat = corpus / "cat"

    def results(paths: list[Path]) -> dict[str, str]:
        outcomes = predict(paths, [trained])
        reasons = {o.path: o.reason for o in outcomes if isinstance(o, Rejected)}
        read = {o.file.path: "" for o in outcomes if not isinstance(o, Rejected)}
        return below(reasons | read, cat)

    assert results([cat]) == expected
    one_by_one = results([cat / name for name in CASES])
    assert {name: one_by_one[name] for name in expected} == expected
    ignored = {name: one_by_one[name] for name in CASES if name not in expected}
    hidden = {name for name, case in CASES.items() if "png" in name and case.result == IGNORED}
    assert {name for name, reason in ignored.items() if not reason} == hidden


def test_documentation_contains_the_table():
    """Oracle: `ROWS`, line by line; every row has a case."""
    text = (Path(__file__).parents[2] / "docs" / "images.md").read_text()
    table, _, _ = text.partition("##")
    rows = re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", table, re.MULTILINE)[1:]
    assert rows == [(row, *cells) for row, cells in ROWS.items()]
    assert {case.row for case in CASES.values()} | {HEIC_READ, HEIC_SKIPPED} == set(ROWS)
