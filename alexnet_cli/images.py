"""From a file to upright RGB pixels: the one path that every command shares.

Pillow decodes everything, so that an image looks the same to `split`, `train`, `evaluate` and
`predict`. Its decoder and resizer release the GIL: threads make it as fast as a compiled pipeline.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from alexnet_cli.errors import ImageError
from alexnet_cli.files import open_file

UInt8Array = npt.NDArray[np.uint8]

# What Pillow may open. Left out are the formats that start other programs or hold no photographs.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM")

# A file with one of these endings claims to be an image: if it is none, its owner should be told.
_COMMON = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".webp"}
_RARE = {".tif", ".tiff", ".avif", ".jp2", ".ppm", ".pgm", ".pnm"}
_UNREADABLE = {".heic", ".heif", ".svg", ".ico", ".psd"}
SUFFIXES = frozenset(_COMMON | _RARE | _UNREADABLE)

# Half of what Pillow itself refuses, and the point from which it warns of a decompression bomb.
MAX_PIXELS = 89_478_485
MAX_SIDE = 65_535  # a JPEG's; a line of millions of pixels needs more memory than its area tells
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # of damaged EXIF

_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def open_rgb(file: Path | IO[bytes]) -> Image.Image:
    """Decode one image completely: upright, 8-bit RGB, transparency composited on white.

    The content decides, not the suffix. Of an animation the first frame is taken; 16-bit gray
    keeps its upper 8 bits. Raises `ImageError` for whatever is not a whole image, `OSError` for a
    file that can't be opened.
    """
    if isinstance(file, Path):
        with open_file(file, sys.maxsize, links=True) as stream:  # a pipe would be read for ever
            return open_rgb(stream)
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
                raise ImageError(f"claims {image.width}x{image.height} pixels, too many to read")
            image.load()
            return _to_rgb(_upright(image))
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ImageError(_unidentified(file)) from None
    except Exception as error:  # decoders raise anything when a file lies
        raise ImageError(f"does not decode: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged notes on a photograph that is whole: they turn nothing
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT_MODES:  # Pillow's own conversion clips them to white
        values = np.asarray(image, dtype=np.int64)
        if values.max() > 65535 or values.min() < 0:
            raise ImageError("holds 32-bit pixels without a stated range")
        gray = (values >> 8).astype(np.uint8)
        gray[values == image.info.get("transparency")] = 255
        return Image.fromarray(gray).convert("RGB")
    if image.mode == "F":
        raise ImageError("holds floating-point pixels without a stated range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _unidentified(file: IO[bytes]) -> str:
    file.seek(0)
    head = file.read(32)
    if not head:
        return "is empty"
    if head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"hev", b"mif", b"msf"):
        return "is HEIC, which can't be read: save it as JPEG"
    return "is not an image"


def prepare(image: Image.Image, size: int, *, squash: bool = False) -> UInt8Array:
    """Resize RGB `image` to `size`×`size`: uint8 of shape (size, size, 3), values 0–255.

    The shorter side becomes `size` and the centre is kept (section 2 of the paper); with
    `squash` the whole image is pressed into the square, whatever its shape.
    """
    if squash:
        square = image.resize((size, size), Image.Resampling.BILINEAR)
    else:
        square = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(square)


def load(file: Path | IO[bytes], size: int, *, squash: bool = False) -> UInt8Array:
    """`open_rgb`, then `prepare`."""
    return prepare(open_rgb(file), size, squash=squash)
