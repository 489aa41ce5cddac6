"""Decoding and resizing: every kind of file against the pixels that were put into it."""

from __future__ import annotations

import hashlib
import importlib.util
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from alexnet_cli.data import scanning
from alexnet_cli.data.images import load, looks_like_image, open_rgb, resize
from alexnet_cli.errors import ImageError

# Six flat tiles of 16×16 in two rows of three: no two corners alike, so that a picture that was
# turned or mirrored differs, and JPEG's 8×8 blocks hold one color each.
TILES = np.array(
    [
        [(200, 40, 40), (40, 180, 60), (40, 60, 200)],
        [(230, 220, 70), (120, 120, 120), (20, 160, 170)],
    ],
    np.uint8,
)
PICTURE = TILES.repeat(16, axis=0).repeat(16, axis=1)
GRAY = np.array([[20, 90, 160], [230, 60, 128]], np.uint8).repeat(16, axis=0).repeat(16, axis=1)
SHARP_JPEG = {"quality": 95, "subsampling": 0}


def encode(image: Image.Image, file_format: str, **options) -> BytesIO:
    """Return `image` encoded, as a file in memory."""
    file = BytesIO()
    image.save(file, file_format, **options)
    file.seek(0)
    return file


def decode(file) -> np.ndarray:
    """Return the pixels of `open_rgb` as signed integers."""
    return np.asarray(open_rgb(file)).astype(int)


def needs(codec: str):
    return pytest.mark.skipif(not features.check(codec), reason=f"this Pillow lacks {codec}")


# What is read


@pytest.mark.parametrize(
    ("file_format", "options", "tolerance"),
    [
        ("JPEG", SHARP_JPEG, 2),
        ("JPEG", {**SHARP_JPEG, "progressive": True}, 2),
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("PPM", {}, 0),
        pytest.param("WEBP", {"lossless": True}, 0, marks=needs("webp")),
        pytest.param("AVIF", {"quality": 100, "subsampling": "4:4:4"}, 2, marks=needs("avif")),
        pytest.param("JPEG2000", {"irreversible": False}, 0, marks=needs("jpg_2000")),
    ],
)
@pytest.mark.parametrize("pixels", [PICTURE, GRAY], ids=["RGB", "gray"])
def test_each_format_decodes_to_the_encoded_pixels(pixels, file_format, options, tolerance):
    """Oracle: the pixels themselves; gray has three equal channels."""
    expected = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)
    found = decode(encode(Image.fromarray(pixels), file_format, **options))
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)


def test_cmyk_jpeg():
    """Oracle: Pillow's CMYK is 255 − RGB without black, so the colors must come back."""
    file = encode(Image.fromarray(PICTURE).convert("CMYK"), "JPEG", **SHARP_JPEG)
    assert Image.open(file).mode == "CMYK"
    np.testing.assert_allclose(decode(file), PICTURE, atol=3)


def test_content_determines_the_format_not_the_extension(tmp_path):
    """Oracle: the pixels of the PNG that is named .jpeg."""
    path = tmp_path / "image.jpeg"
    path.write_bytes(encode(Image.fromarray(PICTURE), "PNG").getvalue())
    np.testing.assert_array_equal(decode(path), PICTURE)


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("GIF", {}),
        ("PNG", {}),
        ("MPO", {"quality": 95}),
        ("TIFF", {}),
        pytest.param("WEBP", {"lossless": True}, marks=needs("webp")),
    ],
)
def test_first_frame_is_decoded(file_format, options):
    """Oracle: the first of three flat frames, red; the others are green and blue."""
    first, *others = (Image.new("RGB", (16, 16), c) for c in ("red", "lime", "blue"))
    file = encode(first, file_format, save_all=True, append_images=others, **options)
    assert getattr(Image.open(file), "n_frames", 1) == 3
    np.testing.assert_allclose(decode(file), np.broadcast_to([255, 0, 0], (16, 16, 3)), atol=2)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_gray_keeps_its_upper_8_bits(file_format, order):
    """Oracle: v // 256 by hand; Pillow's own conversion would clip all but 0 and 255 to white."""
    values = np.array([[0, 255, 256, 511], [32768, 40000, 65279, 65535]])
    file = encode(Image.fromarray(values.astype(order)), file_format)
    expected = [[0, 0, 1, 1], [128, 156, 254, 255]]
    for channel in range(3):
        np.testing.assert_array_equal(decode(file)[..., channel], expected)


def _palette(transparency: int | bytes) -> tuple[Image.Image, dict]:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 128, 0])
    image.putdata([0, 1])
    return image, {"transparency": transparency}


def _row(mode: str, *pixels) -> Image.Image:
    image = Image.new(mode, (len(pixels), 1))
    image.putdata(pixels)
    return image


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        # α·color + (1 − α)·255 with α = 51/255 = 0.2, then 0 and 1
        (
            _row("RGBA", (100, 50, 200, 51), (9, 9, 9, 0), (1, 2, 3, 255)),
            {},
            [(224, 214, 244), (255, 255, 255), (1, 2, 3)],
        ),
        # 0.8 of black leaves 0.2 of white
        (_row("LA", (0, 204), (7, 0), (7, 255)), {}, [(51,) * 3, (255,) * 3, (7,) * 3]),
        (*_palette(0), [(255, 255, 255), (0, 128, 0)]),
        (*_palette(b"\x33\xff"), [(255, 204, 204), (0, 128, 0)]),  # red at 0.2
        # A color that stands for transparent
        (_row("RGB", (1, 2, 3), (3, 2, 1)), {"transparency": (1, 2, 3)}, [(255,) * 3, (3, 2, 1)]),
        (_row("L", 5, 6), {"transparency": 5}, [(255,) * 3, (6,) * 3]),
    ],
    ids=["RGBA", "LA", "palette", "palette with alpha", "RGB key", "gray key"],
)
def test_transparency_is_composited_on_white(image, options, expected):
    """Oracle: blends by hand."""
    np.testing.assert_array_equal(decode(encode(image, "PNG", **options))[0], expected)


# EXIF's table: which sides of the upright picture are the stored row 0 and column 0
ORIENTATIONS = {
    1: lambda up: up,  # top, left
    2: lambda up: up[:, ::-1],  # top, right
    3: lambda up: up[::-1, ::-1],  # bottom, right
    4: lambda up: up[::-1],  # bottom, left
    5: lambda up: up.swapaxes(0, 1),  # left, top
    6: lambda up: up[:, ::-1].swapaxes(0, 1),  # right, top
    7: lambda up: up[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: lambda up: up[::-1].swapaxes(0, 1),  # left, bottom
}


@pytest.mark.parametrize(("file_format", "tolerance"), [("JPEG", 2), ("PNG", 0), ("TIFF", 0)])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_undone(orientation, file_format, tolerance):
    """Oracle: the upright picture, stored as EXIF's table says."""
    stored = Image.fromarray(np.ascontiguousarray(ORIENTATIONS[orientation](PICTURE)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = SHARP_JPEG if file_format == "JPEG" else {}
    found = decode(encode(stored, file_format, exif=exif, **options))
    np.testing.assert_allclose(found, PICTURE, atol=tolerance, rtol=0)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\x99", b"x"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # as `images` configures Pillow at import
def test_damaged_exif_is_ignored(file_format, exif):
    """Oracle: the picture as stored."""
    options = {"exif": exif} if file_format != "TIFF" else {"tiffinfo": {0x0112: 99}}
    if file_format in ("JPEG", "WEBP"):
        options |= SHARP_JPEG if file_format == "JPEG" else {"lossless": True}
    found = decode(encode(Image.fromarray(PICTURE), file_format, **options))
    np.testing.assert_allclose(found, PICTURE, atol=2, rtol=0)


def test_transparent_16_bit_gray_is_white():
    """Oracle: a PNG with a tRNS chunk of the value 40000, written by hand."""
    rows = b"".join(b"\0" + struct.pack(">2H", *row) for row in ((40000, 256), (65535, 40000)))

    def chunk(kind, data):
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 0, 0, 0, 0))
    body = chunk(b"tRNS", struct.pack(">H", 40000)) + chunk(b"IDAT", zlib.compress(rows))
    png = b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")
    np.testing.assert_array_equal(decode(BytesIO(png))[..., 0], [[255, 1], [255, 255]])


# HEIC

HEIC_FILES = {path.stem: path for path in (Path(__file__).parent / "heic").glob("*.hei[cf]")}
HEIC = HEIC_FILES["orientation 1"].read_bytes()
HAS_HEIF_DECODER = importlib.util.find_spec("pi_heif") is not None
needs_heif = pytest.mark.skipif(not HAS_HEIF_DECODER, reason="the extra heic is not installed")
ALPHA = np.where(PICTURE[..., :1] > 100, 255, 51)
HEIC_PIXELS = {
    "gray": np.stack([GRAY] * 3, axis=-1),
    "ten bits gray": np.stack([GRAY] * 3, axis=-1),
    "alpha": (PICTURE * (ALPHA / 255) + 255 * (1 - ALPHA / 255)).round(),
}


@needs_heif
@pytest.mark.parametrize("name", HEIC_FILES)
def test_heic_has_the_right_pixels(name):
    """Oracle: the encoded picture; tests/data/heic/README.md tells how the files were made.

    The three that are turned have both the transformation of HEIF and the orientation in EXIF, as
    iPhones write them; applying both would turn the picture twice.
    """
    found = decode(HEIC_FILES[name])
    np.testing.assert_allclose(found, HEIC_PIXELS.get(name, PICTURE), atol=2, rtol=0)


def _with_size(width: int, height: int) -> bytes:
    """Return the HEIC with another size in its header: of the coded image and after cropping."""
    coded, cropped = HEIC.index(b"ispe") + 8, HEIC.index(b"clap") + 4
    content = bytearray(HEIC)
    content[coded : coded + 8] = struct.pack(">2I", width, height)
    content[cropped : cropped + 32] = struct.pack(">8I", width, 1, height, 1, 0, 1, 0, 1)
    return bytes(content)


@needs_heif
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_with_size(9_500, 9_500), "^has 9500x9500 pixels, more than supported$"),
        (_with_size(70_000, 1), "^has 70000x1 pixels, more than supported$"),
        (_with_size(20_000, 20_000), "^has 20000x20000 pixels, more than supported$"),
        (_with_size(16, 16), r"^does not decode: [^\n]+$"),
        (HEIC[:1000], r"^does not decode: [^\n]+$"),
        (HEIC[:24], r"^does not decode: [^\n]+$"),
    ],
)
def test_damaged_heic_is_refused_with_the_reason(content, message):
    """Oracle: the reason, in one line; too many pixels are refused before they are decoded."""
    with pytest.raises(ImageError, match=message):
        open_rgb(BytesIO(content))


@needs_heif
def test_worker_processes_read_heic():
    """Oracle: the SHA-256 of the file, which only an image has after the check."""
    path = HEIC_FILES["orientation 6"]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        check = pool.submit(scanning._check_file, path).result()
    assert check.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("brand", [b"heic", b"hevx", b"mif1"])
def test_heic_without_its_decoder_names_the_extra(tmp_path, monkeypatch, brand):
    """Oracle: the command that installs it. The result of the scan must not outlive that command:
    a check without a size is not taken from the cache."""
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    for name in ("image.heic", "image.jpg", "image"):
        path = tmp_path / name
        path.write_bytes(HEIC.replace(b"ftypheic", b"ftyp" + brand))
        with pytest.raises(ImageError, match=r"^is HEIC\. .*pip install '\.\[heic\]'"):
            open_rgb(path)
        assert looks_like_image(path)
        check = scanning._check_file(path)
        assert ".[heic]" in check.reason
        assert check.size == -1


@needs("avif")
def test_avif_is_not_mistaken_for_heic():
    """Oracle: the pixels of an AVIF whose first brand is the one that both formats share."""
    file = encode(Image.fromarray(PICTURE), "AVIF", quality=100, subsampling="4:4:4").getvalue()
    shared = BytesIO(file.replace(b"ftypavif", b"ftypmif1", 1))
    np.testing.assert_allclose(decode(shared), PICTURE, atol=2)


def test_the_decoder_of_heic_is_imported_only_for_heic(tmp_path):
    """Oracle: the modules of another process that reads a JPEG."""
    Image.fromarray(PICTURE).save(tmp_path / "image.jpg")
    code = (
        "import sys; from pathlib import Path; from alexnet_cli.data import images\n"
        f"images.open_rgb(Path({str(tmp_path / 'image.jpg')!r})); print('pi_heif' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# What is refused


def png_header(width: int, height: int) -> bytes:
    """Return a PNG with the given size in its header and no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checked = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + checked + struct.pack(">I", 0) + b"IDAT"


def half_a_jpeg() -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encode(Image.fromarray(noise), "JPEG").getvalue()
    return whole[: len(whole) // 2]


FLOATS = encode(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF").getvalue()
LONGS = encode(Image.fromarray(np.full((2, 2), 70_000, np.int32)), "TIFF").getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "^is empty$"),
        (b"The cat sat on the mat.\n" * 9, "^is not an image$"),
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "^is not an image$"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "^is not an image$"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "^is not an image$"),
        (half_a_jpeg(), "^does not decode: .*truncated"),
        (FLOATS, "^contains floating-point pixels"),
        (LONGS, "^contains 32-bit pixels"),
        (png_header(65_000, 65_000), r"^does not decode: .*\(4225000000 pixels\)"),
        (png_header(14_913_081, 6), "^has 14913081x6 pixels, more than supported$"),
    ],
)
# As `images` configures Pillow at import; pytest makes all warnings errors again.
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_invalid_content_is_refused_with_the_reason(tmp_path, content, message):
    """Oracle: the reason. The last two have no pixels, so that the header must suffice."""
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    for file in (path, BytesIO(content)):
        with pytest.raises(ImageError, match=message):
            open_rgb(file)


def test_jpeg_with_a_thousand_scans_is_refused_undecoded():
    """Oracle: the number of scans in the file."""
    file = encode(Image.fromarray(GRAY), "JPEG", progressive=True).getvalue()
    *rest, last = file.split(b"\xff\xda\0")
    scan = b"\xff\xda\0" + last.removesuffix(b"\xff\xd9")
    for n, refused in ((90, False), (1000, True)):
        many = BytesIO(b"\xff\xda\0".join(rest) + n * scan + b"\xff\xd9")
        if refused:
            with pytest.raises(
                ImageError, match=f"^has {n + len(rest) - 1:,} scans, more than the 100"
            ):
                open_rgb(many)
        else:
            np.testing.assert_allclose(decode(many)[..., 0], GRAY, atol=4)


def test_unreadable_file_raises_os_error_with_its_name(tmp_path):
    """Oracle: Python's own errors, which distinguish a missing file from a damaged image."""
    for path, error in (
        (tmp_path / "absent.jpg", FileNotFoundError),
        (tmp_path / ("long" * 99), OSError),
    ):
        with pytest.raises(error, match=path.name):
            open_rgb(path)


# Resizing


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (20, 21)])
def test_shorter_side_is_scaled_and_center_cropped(shape):
    """Oracle: at scale 1 the result is the middle 20×20 pixels, bit for bit."""
    pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3), dtype=np.uint8)
    top, left = ((side - 20) // 2 for side in shape)
    expected = pixels[top : top + 20, left : left + 20]
    if shape == (20, 21):  # the middle lies half a pixel off: the mean of two neighbors
        expected = (pixels[:, :-1].astype(int) + pixels[:, 1:] + 1) // 2
    np.testing.assert_array_equal(resize(Image.fromarray(pixels), 20), expected)


@pytest.mark.parametrize("wide", [True, False])
def test_stretch_keeps_the_whole_image_and_crop_the_center(wide):
    """Oracle: counting, in an image of 30 blue, 60 yellow and 30 blue columns (or rows).

    The cut keeps the yellow square; the filter blends its outermost columns alone. Stretched from
    120 columns to 20, they are 5 blue, 10 yellow and 5 blue, blended where they meet.
    """
    blue, yellow = (20, 30, 220), (240, 230, 20)
    pixels = np.full((60, 120, 3), blue, np.uint8)
    pixels[:, 30:90] = yellow
    image = Image.fromarray(pixels if wide else np.ascontiguousarray(pixels.swapaxes(0, 1)))
    cut, stretched = (resize(image, 20, stretch=stretch) for stretch in (False, True))
    if not wide:
        cut, stretched = cut.swapaxes(0, 1), stretched.swapaxes(0, 1)
    assert (cut[:, 1:-1] == yellow).all()
    assert (stretched[:, 6:14] == yellow).all()
    assert (stretched[:, [0, 1, 2, 3, 16, 17, 18, 19]] == blue).all()


def test_small_images_are_enlarged():
    """Oracle: between the centers of two pixels, linear interpolation by hand: 8 from 2.

    Output i lies at (i + ½)/4 − ½ input pixels: −⅜, −⅛, ⅛, ⅜, ⅝, ⅞, 9/8, 11/8.
    """
    image = Image.fromarray(np.array([[0, 200], [0, 200]], np.uint8)).convert("RGB")
    row = np.array([0, 0, 25, 75, 125, 175, 200, 200])
    np.testing.assert_array_equal(resize(image, 8), np.broadcast_to(row[:, None], (8, 8, 3)))


def test_halving_weighs_four_pixels_by_a_triangle():
    """Oracle: bilinear with antialiasing written out in NumPy, within 1 level of rounding.

    The triangle is as wide as the scale: ±2 input pixels. Output i has its center between inputs
    2i and 2i + 1, so inputs 2i − 1 … 2i + 2 lie 1.5, 0.5, 0.5 and 1.5 from it and weigh 1, 3, 3
    and 1 eighths. At the edge of the center cut the filter sees what lies beyond the cut.
    """

    def halve(x):  # axis 0; not the first and the last output, whose windows leave the image
        return (x[1:-4:2] + 3 * x[2:-3:2] + 3 * x[3:-2:2] + x[4:-1:2]) / 8

    pixels = np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    halved = halve(halve(pixels.astype(float)).swapaxes(0, 1)).swapaxes(0, 1)
    assert halved.shape == (18, 28, 3)
    found = resize(Image.fromarray(pixels), 20)
    np.testing.assert_allclose(found[1:-1], halved[:, 4:24], atol=1, rtol=0)


@pytest.mark.parametrize(
    ("stretch", "digest"),
    [
        (False, "d501486761a1706f5881cdf2721c11f142f1ddee2985e8e15e33812128c8a60b"),
        (True, "744da865795d3ff6681455afb2d34ea2a6906becdfe8611416ae0bd31fe95dd1"),
    ],
    ids=["cut", "stretched"],
)
def test_golden_pixels(stretch, digest):
    """Oracle: pinned with Pillow 13.0.0. Other pixels would change the input of trained models."""
    y, x = np.mgrid[:90, :131]
    pixels = np.stack([x * y % 256, (x * x + 3 * y) % 256, x * 255 // 130], axis=-1)
    file = encode(Image.fromarray(pixels.astype(np.uint8)), "PNG")
    assert hashlib.sha256(load(file, 64, stretch=stretch).tobytes()).hexdigest() == digest
