"""Load damaged files of every image format with the function by which all commands load images.

    python -m benchmarks.fuzz [--mutations 100000] [--seed 0] [--out fuzz]

Seed and number determine each input. Workers load the inputs in processes of their own, so that a
crash of a decoder ends only a worker. Callers expect an image of the right shape, an `ImageError` or
an `OSError`. Anything else, a crash, and an input that takes longer than `LIMIT` are findings; their
inputs are kept in OUT.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import random
import resource
import struct
import tempfile
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image, features

from alexnet_cli.data import images
from alexnet_cli.errors import ImageError

LIMIT = 10  # seconds for one input
MEMORY = 4 * 2**30  # address space of a worker
SIZE = 32
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
FINDINGS = ("crash", "hang", "unexpected")
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


def mutate(number: int, seed: int, files: dict[str, bytes]) -> tuple[str, bytes]:
    """Return input `number`: the kind of the undamaged file, and the damaged bytes."""
    draw = random.Random(f"{seed}:{number}")
    kind = draw.choice(list(files))
    content = bytearray(files[kind])
    for _ in range(draw.choice((1, 1, 2, 4))):
        damage = draw.choice((_flip, _set, _set, _splice, _cut, _insert, _remove, _repeat))
        content = damage(content, draw, files) or bytearray(1)
    if content.startswith(b"\x89PNG") and draw.random() < 0.8:
        content = _with_checksums(content)  # else decoders would stop at the first chunk
    return kind, bytes(content)


def _place(content: bytearray, draw: random.Random) -> int:
    """Return a random position, half of the time among the headers."""
    return draw.randrange(min(len(content), draw.choice((256, len(content)))))


def _flip(content: bytearray, draw: random.Random, _files: dict[str, bytes]) -> bytearray:
    for _ in range(draw.choice((1, 2, 16))):
        content[_place(content, draw)] ^= 1 << draw.randrange(8)
    return content


def _set(content: bytearray, draw: random.Random, _files: dict[str, bytes]) -> bytearray:
    width = draw.choice((1, 2, 4))
    value = draw.choice(EXTREMES) & (256**width - 1)
    place = _place(content, draw)
    content[place : place + width] = value.to_bytes(width, draw.choice(("big", "little")))
    return content


def _splice(content: bytearray, draw: random.Random, files: dict[str, bytes]) -> bytearray:
    other = draw.choice(list(files.values()))
    start, end = sorted(draw.randrange(len(other)) for _ in range(2))
    place = _place(content, draw)
    return content[:place] + other[start:end] + content[place + draw.choice((0, end - start)) :]


def _cut(content: bytearray, draw: random.Random, _files: dict[str, bytes]) -> bytearray:
    return content[: draw.randrange(len(content))]


def _insert(content: bytearray, draw: random.Random, _files: dict[str, bytes]) -> bytearray:
    place = _place(content, draw)
    return content[:place] + draw.randbytes(draw.choice((1, 4, 300))) + content[place:]


def _remove(content: bytearray, draw: random.Random, _files: dict[str, bytes]) -> bytearray:
    place = _place(content, draw)
    return content[:place] + content[place + draw.choice((1, 4, 300)) :]


def _repeat(content: bytearray, draw: random.Random, _files: dict[str, bytes]) -> bytearray:
    start, end = sorted(draw.randrange(len(content)) for _ in range(2))
    return content[:end] + content[start:end] * draw.choice((1, 1, 40)) + content[end:]


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


def outcome_of(content: bytes) -> str:
    """Load one input and return the outcome in words; those of `FINDINGS` start with the finding."""
    try:
        square = images.load(BytesIO(content), SIZE)
    except (ImageError, OSError) as error:
        refused = str(error).partition(":")[0]
        return "refused: does not decode" if refused == "does not decode" else "refused: other"
    except BaseException as error:
        return f"unexpected: {error!r}"
    if square.shape == (SIZE, SIZE, 3) and square.dtype == np.uint8:
        return "image"
    return f"unexpected: {square.dtype} {square.shape}"


def _work(numbers: range, seed: int, results: Connection, chatter: Path) -> None:
    """Load the inputs of `numbers`; send kind, outcome, seconds and peak memory in kB of each."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(chatter, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    files = seeds()
    results.send(None)
    for number in numbers:
        kind, content = mutate(number, seed, files)
        began = time.perf_counter()
        outcome = outcome_of(content)
        seconds = time.perf_counter() - began
        results.send((kind, outcome, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


@dataclass
class Tally:
    """Counts of the outcomes so far, the slowest input and the one that took most memory."""

    seed: int
    out: Path
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest: tuple[float, int] = (0.0, -1)
    largest: tuple[int, int] = (0, -1)
    files: dict[str, bytes] = field(default_factory=seeds)
    lock: Lock = field(default_factory=Lock)

    def add(self, number: int, kind: str, outcome: str, seconds: float, memory: int) -> None:
        """Count one outcome; print a finding and keep its input."""
        with self.lock:
            self.counts[kind, outcome] += 1
            self.slowest = max(self.slowest, (seconds, number))
            self.largest = max(self.largest, (memory, number))
        if outcome.startswith(FINDINGS):
            self.out.mkdir(parents=True, exist_ok=True)
            path = self.out / f"{self.seed}-{number}"
            path.write_bytes(mutate(number, self.seed, self.files)[1])
            print(f"{outcome}: {kind}, kept in {path}", flush=True)


def drive(numbers: range, tally: Tally, chatter: Path) -> None:
    """Load the inputs of `numbers` in a worker, and start another one after each that dies."""
    context = multiprocessing.get_context("fork")
    while numbers:
        results, other = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(numbers, tally.seed, other, chatter))
        worker.start()
        other.close()
        try:
            results.recv()  # it is ready
            while numbers:
                number, outcome = numbers[0], "hang"
                if results.poll(LIMIT):
                    try:
                        tally.add(number, *results.recv())
                        numbers = numbers[1:]
                        continue
                    except EOFError:
                        worker.join()
                        outcome = f"crash: exit code {worker.exitcode}"
                kind = mutate(number, tally.seed, tally.files)[0]
                tally.add(number, kind, outcome, LIMIT * (outcome == "hang"), 0)
                numbers = numbers[1:]
                break
        finally:
            worker.kill()
            worker.join()


def report(tally: Tally, seconds: float, chatter: Path) -> None:
    """Print a row for each kind of file, and the extremes."""
    outcomes = sorted({outcome for _, outcome in tally.counts})
    print(f"{'':<20}" + "".join(f"{outcome:>26}" for outcome in outcomes))
    for kind in (*tally.files, "all"):
        cells = [
            sum(n for (k, o), n in tally.counts.items() if o == outcome and kind in (k, "all"))
            for outcome in outcomes
        ]
        print(f"{kind:<20}" + "".join(f"{n:>26,}" for n in cells))
    print(f"slowest: {tally.slowest[0]:.3f} s, input {tally.slowest[1]}")
    print(
        f"peak memory of a worker: {tally.largest[0] / 1024:.0f} MiB, by input {tally.largest[1]}"
    )
    lines = chatter.read_text(errors="replace").splitlines() if chatter.exists() else []
    print(f"lines that libraries wrote to standard error: {len(lines):,}")
    for text, n in Counter(lines).most_common(10):
        print(f"  {n:,} times {text!r}")
    print(f"{seconds:.0f} s in total")


def main() -> None:
    """Load all inputs, and report the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz"))
    arguments = parser.parse_args()
    tally, n_workers = Tally(arguments.seed, arguments.out), os.cpu_count() or 1
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(n_workers) as pool:
        chatter = Path(folder, "chatter")
        parts = [range(first, arguments.mutations, n_workers) for first in range(n_workers)]
        list(pool.map(lambda part: drive(part, tally, chatter), parts))
        report(tally, time.perf_counter() - began, chatter)
    raise SystemExit(any(outcome.startswith(FINDINGS) for _, outcome in tally.counts))


if __name__ == "__main__":
    main()
