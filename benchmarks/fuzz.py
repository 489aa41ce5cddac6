"""Load damaged files of every image format with the function by which all commands load images.

    python -m benchmarks.fuzz [--mutations 100000] [--first 0] [--seed 0] [--out fuzz]

Callers expect an image of the right shape, an `ImageError` or an `OSError`; anything else is a
finding. `benchmarks.fuzz_harness` says how the inputs are run and counted.
"""

from __future__ import annotations

import importlib.util
import random
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from alexnet_cli.data import images
from alexnet_cli.errors import ImageError
from benchmarks import fuzz_harness
from benchmarks.fuzz_harness import damage

SIZE = 32
HEIC = Path(__file__).parents[1] / "tests" / "data" / "heic"  # which nothing here can encode


def seeds() -> dict[str, bytes]:
    """Return a small file of every kind that is accepted, by the name of the kind."""
    y, x = np.mgrid[:80, :112]
    noise = np.random.default_rng(0).integers(0, 60, (80, 112, 4))
    pixels = np.stack([x * 2, y * 3, x + y, x * 2], axis=-1) + noise
    rgba = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    rgb, gray = rgba.convert("RGB"), rgba.convert("L")
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    frames = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    kinds: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "JPEG": (rgb, "JPEG", {"exif": exif, "icc_profile": bytes(400)}),
        "JPEG gray": (gray, "JPEG", {}),
        "JPEG progressive": (rgb, "JPEG", {"progressive": True}),
        "JPEG restarts": (rgb, "JPEG", {"restart_marker_blocks": 2}),
        "JPEG CMYK": (rgb.convert("CMYK"), "JPEG", {}),
        "MPO": (rgb, "MPO", frames),
        "PNG": (rgb, "PNG", {"exif": exif}),
        "PNG RGBA": (rgba, "PNG", {}),
        "PNG 16-bit": (deep, "PNG", {}),
        "PNG palette": (rgb.quantize(64), "PNG", {"transparency": bytes(range(64))}),
        "PNG 1-bit": (gray.convert("1"), "PNG", {}),
        "APNG": (rgb, "PNG", frames),
        "GIF": (rgb.quantize(32), "GIF", {}),
        "GIF animated": (rgb.quantize(32), "GIF", frames),
        "BMP": (rgb, "BMP", {}),
        "BMP palette": (rgb.quantize(16), "BMP", {}),
        "TIFF": (rgb, "TIFF", {"exif": exif}),
        "TIFF RGBA": (rgba, "TIFF", {}),
        "TIFF 16-bit": (deep, "TIFF", {}),
        "TIFF float": (gray.convert("F"), "TIFF", {}),
        "PPM": (rgb, "PPM", {}),
        "PGM 16-bit": (deep, "PPM", {}),
        "PBM": (gray.convert("1"), "PPM", {}),
    }
    for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "tiff_ccitt", "group4"):
        mode = gray.convert("1") if name in ("tiff_ccitt", "group4") else rgb
        kinds[f"TIFF {name}"] = (mode, "TIFF", {"compression": name})
    if features.check("webp"):
        kinds["WebP"] = (rgb, "WEBP", {"exif": exif})
        kinds["WebP lossless"] = (rgba, "WEBP", {"lossless": True})
        kinds["WebP animated"] = (rgb, "WEBP", frames)
    if features.check("avif"):
        kinds["AVIF"] = (rgba, "AVIF", {"exif": exif, "speed": 10})
    if features.check("jpg_2000"):
        kinds["JPEG 2000"] = (rgb, "JPEG2000", {})
        kinds["JPEG 2000 tiles"] = (rgb, "JPEG2000", {"tile_size": (64, 64), "no_jp2": True})
    files: dict[str, bytes] = {}
    for name, (image, file_format, options) in kinds.items():
        stream = BytesIO()
        image.save(stream, file_format, **options)
        if name != "TIFF float":  # the only one that is always refused
            images.load(BytesIO(stream.getvalue()), SIZE)
        files[name] = stream.getvalue()
    if importlib.util.find_spec("pi_heif"):
        files |= {f"HEIC {path.stem}": path.read_bytes() for path in HEIC.glob("*.hei[cf]")}
    return files


class Images:
    """Small files of every kind, damaged, and loaded as all commands load them."""

    memory = 4 * 2**30

    def __init__(self, _folder: Path) -> None:
        """Make the files."""
        self.files = seeds()
        self.kinds = list(self.files)

    def mutate(self, draw: random.Random) -> tuple[str, bytes]:
        """Return the kind of an undamaged file, and the damaged bytes."""
        kind = draw.choice(self.kinds)
        content = damage(bytearray(self.files[kind]), draw, list(self.files.values()))
        if content.startswith(b"\x89PNG") and draw.random() < 0.8:
            content = _with_checksums(content)  # else decoders would stop at the first chunk
        return kind, bytes(content)

    def keep(self, content: bytes, path: Path) -> None:
        """Write an input to `path`."""
        path.write_bytes(content)

    def outcome_of(self, content: bytes) -> str:
        """Load one input and return the outcome in words."""
        try:
            square = images.load(BytesIO(content), SIZE)
        except (ImageError, OSError) as error:
            refused = str(error).partition(":")[0]
            return "refused: does not decode" if refused == "does not decode" else "refused: other"
        if square.shape == (SIZE, SIZE, 3) and square.dtype == np.uint8:
            return "image"
        return f"unexpected: {square.dtype} {square.shape}"


def _with_checksums(png: bytearray) -> bytearray:
    place = 8
    while place + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, place)
        end = place + 8 + length
        if end + 4 > len(png):
            break
        struct.pack_into(">I", png, end, zlib.crc32(png[place + 4 : end]))
        place = end + 4
    return png


if __name__ == "__main__":
    fuzz_harness.main(Images, default_mutations=100_000)
