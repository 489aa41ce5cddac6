"""From a file to upright RGB pixels: the one path that every command shares.

Pillow decodes everything, so that an image looks the same to `split`, `train`, `evaluate` and
`predict`. Its decoder and resizer release the GIL: threads make it as fast as a compiled pipeline.
"""

from __future__ import annotations

import stat
import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from alexnet_cli.errors import ImageError

UInt8Array = npt.NDArray[np.uint8]

# What Pillow may open. Left out are the formats that start other programs or hold no photographs.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM")

# A file with one of these endings claims to be an image: if it is none, its owner should be told.
_COMMON = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".webp"}
_RARE = {".tif", ".tiff", ".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm"}
_UNREADABLE = {".heic", ".heif", ".svg", ".ico", ".psd"}
SUFFIXES = frozenset(_COMMON | _RARE | _UNREADABLE)

# Half of what Pillow itself refuses, and the point from which it warns of a decompression bomb.
MAX_PIXELS = 89_478_485
MAX_SIDE = 65_535  # a JPEG's; a line of millions of pixels needs more memory than its area tells
MAX_SCANS = 100  # of a JPEG, which has ten; each costs a pass over all pixels and takes no room
MAX_BYTES = 2**30  # a file is read whole, and `MAX_PIXELS` never need as much
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # of damaged EXIF

_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def claims(path: Path) -> bool:
    """Whether a file is meant to be an image: its name says so, or its first bytes do.

    What is none of the two is nobody's loss. Dot files are what desktops leave behind.
    """
    if path.name.startswith(".") or is_named_like_one(path):
        return not path.name.startswith(".")
    try:
        _require_regular(path)
        with Image.open(path, formats=FORMATS):
            return True
    except (ImageError, UnidentifiedImageError):
        return False
    except Exception:  # it lies about more than its name, or can't be opened: its owner should know
        return True


def is_named_like_one(path: Path) -> bool:
    """Whether the name alone says image."""
    return not path.name.startswith(".") and path.suffix.lower() in SUFFIXES


def read(path: Path) -> bytes:
    """Return the bytes of a file; raises `ImageError` if it can't be an image, unread, or `OSError`."""
    if _require_regular(path) > MAX_BYTES:
        raise ImageError(f"is larger than {MAX_BYTES:,} bytes")
    return path.read_bytes()


def _require_regular(path: Path) -> int:
    """Return the size; raises `ImageError` for a pipe, which would be read forever, and the like."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("is not a regular file")
    return status.st_size


def open_rgb(file: Path | BytesIO) -> Image.Image:
    """Decode one image completely: upright, 8-bit RGB, transparency composited on white.

    The content decides, not the suffix. Of an animation the first frame is taken; 16-bit gray
    keeps its upper 8 bits. Raises `ImageError` for whatever is not a whole image, `OSError` for a
    file that can't be read.
    """
    if isinstance(file, Path):
        file = BytesIO(read(file))
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
                raise ImageError(f"claims {image.width}x{image.height} pixels, too many to read")
            if image.format in ("JPEG", "MPO") and (n := _count_scans(file)) > MAX_SCANS:
                raise ImageError(f"has {n:,} scans, too many to read")
            image.load()
            _turn_upright(image)
            return _to_rgb(image)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ImageError(_unidentified(file)) from None
    except Exception as error:  # decoders raise anything when a file lies
        raise ImageError(f"does not decode: {error}") from error


def _count_scans(jpeg: BytesIO) -> int:
    """Count the markers that start a scan, each with the first byte of its length."""
    return jpeg.getvalue().count(b"\xff\xda\0")


def _turn_upright(image: Image.Image) -> None:
    with suppress(Exception):  # damaged notes on a photograph that is whole: they turn nothing
        ImageOps.exif_transpose(image, in_place=True)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert without a copy that is not needed: four bytes a pixel each, at `MAX_PIXELS` 360 MB."""
    if image.mode in _SIXTEEN_BIT_MODES:  # Pillow's own conversion clips them to white
        values = np.asarray(image)
        if values.max() > 65535 or values.min() < 0:
            raise ImageError("holds 32-bit pixels without a stated range")
        gray = (values >> 8).astype(np.uint8)
        gray[values == image.info.get("transparency")] = 255
        return Image.fromarray(gray).convert("RGB")
    if image.mode == "F":
        raise ImageError("holds floating-point pixels without a stated range")
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _unidentified(file: BytesIO) -> str:
    file.seek(0)
    head = file.read(32)
    if not head:
        return "is empty"
    if head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"hev", b"mif", b"msf"):
        return "is HEIC, which can't be read: save it as JPEG"
    return "is not an image"


def prepare(image: Image.Image, size: int, *, stretch: bool = False) -> UInt8Array:
    """Resize RGB `image` to `size`×`size`: uint8 of shape (size, size, 3), values 0–255.

    The shorter side becomes `size` and the center is kept (section 2 of the paper); with
    `stretch` the whole image is pressed into the square, whatever its shape.
    """
    if stretch:
        square = image.resize((size, size), Image.Resampling.BILINEAR)
    else:
        square = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(square)


def load(file: Path | BytesIO, size: int, *, stretch: bool = False) -> UInt8Array:
    """`open_rgb`, then `prepare`."""
    return prepare(open_rgb(file), size, stretch=stretch)
