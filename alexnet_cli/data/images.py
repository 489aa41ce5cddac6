"""Decode and resize image files; every command uses these functions.

Pillow decodes everything (HEIC by pi-heif, if it is installed), so that `split`, `train`, `evaluate`
and `predict` get the same pixels. Its decoder and resizer release the GIL, so that threads are as
fast as a compiled pipeline.
"""

from __future__ import annotations

import stat
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from alexnet_cli.errors import ImageError, UsageError

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]

# Formats that Pillow may open: none that start other programs, and none that rarely hold photos.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM")

# A file with one of these extensions should be an image; if it is none, it is reported.
_COMMON = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".webp"}
_RARE = {".tif", ".tiff", ".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm"}
_HEIF = {".heic", ".heif", ".hif"}
_UNREADABLE = {".svg", ".ico", ".psd"}
EXTENSIONS = frozenset(_COMMON | _RARE | _HEIF | _UNREADABLE)

# Above it Pillow warns of a decompression bomb; it refuses twice as many.
MAX_PIXELS = 89_478_485
MAX_SIDE = 65_535  # as in JPEG; an image one pixel high needs more memory than its area suggests
MAX_SCANS = 100  # of a JPEG, which usually has ten; each costs a pass over all pixels but few bytes
MAX_BYTES = 2**30  # a file is read completely, and `MAX_PIXELS` never need as many

NO_HEIF_DECODER = "is HEIC. Add its decoder, in the clone of alexnet: pip install '.[heic]'"

_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def looks_like_image(path: Path) -> bool:
    """Return whether a file should be an image, by its extension or else by its first bytes.

    Dot files never are: desktops leave them behind. Where it can't be told, the answer is yes, so
    that the file is reported and not silently ignored.
    """
    if path.name.startswith("."):
        return False
    if has_image_extension(path):
        return True
    try:
        _require_regular(path)
        with path.open("rb") as file:
            if _is_heif(file.read(_BRANDS_END)):
                return True
        with Image.open(path, formats=FORMATS):
            return True
    except (ImageError, UnidentifiedImageError):
        return False
    except Exception:  # a damaged header, or a file that can't be opened
        return True


def has_image_extension(path: Path) -> bool:
    """Return whether the file name ends in one of `EXTENSIONS` and is not hidden."""
    return not path.name.startswith(".") and path.suffix.lower() in EXTENSIONS


def read(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises `ImageError`, without reading, for a pipe or device and for more than `MAX_BYTES`;
    `OSError` if the file can't be read.
    """
    if _require_regular(path) > MAX_BYTES:
        raise ImageError(f"is larger than {MAX_BYTES:,} bytes")
    return path.read_bytes()


def _require_regular(path: Path) -> int:
    """Return the size in bytes; raises `ImageError` for a pipe, which would never end, or a device."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("is not a regular file")
    return status.st_size


def open_rgb(file: Path | BytesIO, at_least: int | None = None) -> Image.Image:
    """Decode one image completely: 8-bit RGB, turned upright, transparency composited on white.

    The content determines the format, not the extension. Of an animation the first frame is used;
    of 16-bit gray the upper 8 bits. A JPEG of which `at_least` so many pixels a side are needed is
    decoded at a half, a quarter or an eighth of its size, which is faster. Raises `ImageError` for
    content that is not a complete image or is beyond the limits above, `OSError` if the file can't
    be read.
    """
    if isinstance(file, Path):
        file = BytesIO(read(file))
    try:
        if _is_heif(file.getvalue()):
            return _to_rgb(_open_heif(file))
        with Image.open(file, formats=FORMATS) as image:
            _require_few_pixels(image.size)
            if image.format in ("JPEG", "MPO") and (n := _count_scans(file)) > MAX_SCANS:
                raise ImageError(f"has {n:,} scans, more than the {MAX_SCANS} supported")
            if at_least:
                image.draft(None, (at_least, at_least))
            image.load()
            _turn_upright(image)
            return _to_rgb(image)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ImageError("is not an image" if file.getvalue() else "is empty") from None
    except Exception as error:  # decoders raise exceptions of any kind for damaged files
        raise ImageError(f"does not decode: {' '.join(str(error).split())}") from error


def from_memory(picture: object) -> Image.Image:
    """Return an image that is in memory as 8-bit RGB, turned upright, as `open_rgb` does.

    `picture`: a PIL image, or uint8 pixels of shape (height, width, 3), or (height, width) for gray.
    Raises `UsageError` for anything else.
    """
    if isinstance(picture, np.ndarray):
        is_gray, is_rgb = picture.ndim == 2, picture.ndim == 3 and picture.shape[2:] == (3,)
        if picture.dtype != np.uint8 or not (is_gray or is_rgb) or not picture.size:
            raise UsageError(
                "an array must be uint8 of shape (height, width, 3) or (height, width). "
                f"Received: {picture.dtype} {picture.shape}"
            )
        return Image.fromarray(np.ascontiguousarray(picture)).convert("RGB")
    if not isinstance(picture, Image.Image):
        raise UsageError(
            f"an image must be a path, a PIL image or an array. Received: {type(picture).__name__}"
        )
    image = picture.copy()
    _turn_upright(image)
    return _to_rgb(image)


def _require_few_pixels(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS or max(size) > MAX_SIDE:
        raise ImageError(f"has {width}x{height} pixels, more than supported")


_BRANDS_END = 256  # bytes; files have up to ten brands of four


def _is_heif(content: bytes) -> bool:
    """Return whether the brands of a file, in its first bytes, are those of HEIF but not of AVIF."""
    if content[4:8] != b"ftyp" or content[8:11] not in (b"hei", b"hev", b"mif", b"msf"):
        return False
    end = min(int.from_bytes(content[:4]), _BRANDS_END)
    return not {content[i : i + 4] for i in range(8, end, 4)} & {b"avif", b"avis"}


def _open_heif(file: BytesIO) -> Image.Image:
    """Decode the primary image of a HEIF file; 10 and 12 bits a color become 8.

    libheif turns it upright by the file's own transformations. The orientation in EXIF repeats them
    (ISO/IEC 23008-12), so it must not be applied as well.
    """
    try:
        from pi_heif import open_heif
    except ImportError:
        raise ImageError(NO_HEIF_DECODER) from None
    heif = open_heif(file)  # decodes nothing yet, and later no more pixels than it states here
    _require_few_pixels(heif.size)
    image: Image.Image = heif.to_pillow()
    return image


def _count_scans(jpeg: BytesIO) -> int:
    """Return the number of start-of-scan markers, each followed by the first byte of its length."""
    return jpeg.getvalue().count(b"\xff\xda\0")


def _turn_upright(image: Image.Image) -> None:
    with suppress(Exception):  # damaged EXIF of an intact image
        ImageOps.exif_transpose(image, in_place=True)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB, without avoidable copies: each has up to 360 MB at `MAX_PIXELS`."""
    if image.mode in _SIXTEEN_BIT_MODES:  # which Pillow's own conversion clips to white
        values = np.asarray(image)
        if values.max() > 65535 or values.min() < 0:
            raise ImageError("contains 32-bit pixels of unknown range")
        gray = (values >> 8).astype(np.uint8)
        gray[values == image.info.get("transparency")] = 255
        return Image.fromarray(gray).convert("RGB")
    if image.mode == "F":
        raise ImageError("contains floating-point pixels of unknown range")
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def resize(image: Image.Image, size: int, *, stretch: bool = False) -> UInt8Array:
    """Return an RGB `image` resized to a square: uint8 of shape (size, size, 3), values 0 to 255.

    The shorter side is scaled to `size` and the center is cropped (section 2 of the paper). With
    `stretch` the whole image is scaled to the square, which changes its aspect ratio.
    """
    if stretch:
        square = image.resize((size, size), Image.Resampling.BILINEAR)
    else:
        square = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(square)


def load(file: Path | BytesIO, size: int, *, stretch: bool = False) -> UInt8Array:
    """Decode and resize one image: uint8 of shape (size, size, 3), values 0 to 255.

    See `resize`. Raises as `open_rgb` does.
    """
    return resize(open_rgb(file), size, stretch=stretch)
