"""Near copies: how many are found, which pairs are proposed, and what a million images cost.

    python -m benchmarks.near_copies FOLDER [FOLDER ...] [--sheet SHEET.png]

Each FOLDER holds class folders of images. Of all images 500 are saved again in six ways, and the
benchmark prints the share of copies that are found by way; then the pairs that it finds in the folders
as they are, drawn side by side as SHEET.png to look at; then images of the first folder scanned per
second, with and without; then seconds and peak memory to group 1,281,167 made-up fingerprints. Of these
the cosine transform has the values of the images', drawn anew for each frequency; 2 % are in groups
of 2 to 50 copies, and 10,000 are copies of one picture, as of a camera that does not move.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from alexnet_cli.data import images, near_copies, scanning
from alexnet_cli.system.workers import map_in_order
from benchmarks.common import print_row

N_SAVED, N_LARGE, N_CAMERA = 500, 1_281_167, 10_000
TILE = 150  # pixels, of an image in the sheet


def saved(image: Image.Image, kind: str, **options: int) -> Image.Image:
    """Return an image as it is read again after it was saved."""
    stream = BytesIO()
    image.save(stream, kind, **options)
    return images.open_rgb(stream, near_copies.SAMPLES)


def scaled(image: Image.Image, factor: float) -> Image.Image:
    size = (round(image.width * factor), round(image.height * factor))
    return image.resize(size, Image.Resampling.LANCZOS)


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Return an image without `share` of its width and height at each side."""
    x, y = round(image.width * share), round(image.height * share)
    return image.crop((x, y, image.width - x, image.height - y))


def framed(image: Image.Image, share: float, color: str) -> Image.Image:
    return ImageOps.expand(image, (round(image.width * share), round(image.height * share)), color)


WAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 30": lambda image: saved(image, "JPEG", quality=30),
    "half the size": lambda image: saved(scaled(image, 0.5), "JPEG", quality=85),
    "WebP": lambda image: saved(image, "WEBP", quality=70),
    "white border of 3 %": lambda image: saved(framed(image, 0.03, "white"), "PNG"),
    "3 % cropped at each side": lambda image: saved(cropped(image, 0.03), "JPEG", quality=90),
    "2 % cropped, 0.7 of the size, quality 50": lambda image: saved(
        scaled(cropped(image, 0.02), 0.7), "JPEG", quality=50
    ),
}


def print_found(paths: list[Path], prints: list[str]) -> None:
    """Print the share of copies that are in the group of their image, by way."""
    chosen = random.Random(0).sample([i for i, text in enumerate(prints) if text], N_SAVED)

    def copies(i: int) -> list[str]:
        image = images.open_rgb(paths[i])
        return [near_copies.fingerprint(save(image)) for save in WAYS.values()]

    again = list(map_in_order(chosen, copies))
    shares = []
    for way, name in enumerate(WAYS):
        first = near_copies.find_first([*prints, *(texts[way] for texts in again)])
        found = first[: len(prints)][chosen] == first[len(prints) :]
        shares.append(found.mean())
        print_row(name, f"{shares[-1]:.1%}")
    print_row(f"all {N_SAVED * len(WAYS):,} copies", f"{np.mean(shares):.2%}", None, "99 %")


def draw_sheet(pairs: list[tuple[Path, Path]], path: Path) -> None:
    """Draw pairs side by side, four in a row."""
    sheet = Image.new("RGB", (4 * (2 * TILE + 20), -(-len(pairs) // 4) * (TILE + 20)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, pair in enumerate(pairs):
        x, y = number % 4 * (2 * TILE + 20), number // 4 * (TILE + 20)
        draw.text((x, y), str(number + 1), fill="black")
        for side, file in enumerate(pair):
            tile = ImageOps.contain(images.open_rgb(file), (TILE, TILE))
            sheet.paste(tile, (x + side * TILE, y + 15))
    sheet.save(path)


def print_speed(folder: Path) -> None:
    """Print images scanned per second of CPU time: with near copies, and decoded whole without."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    real, pixels = near_copies.fingerprint, near_copies.SAMPLES
    for with_prints in [False, True] * 4:
        near_copies.fingerprint = real if with_prints else lambda image: ""
        near_copies.SAMPLES = pixels if with_prints else images.MAX_SIDE
        began = time.process_time()
        n = len(scanning.scan(folder).files)
        seconds[with_prints].append(time.process_time() - began)
    near_copies.fingerprint = real
    without, with_prints = (n / min(seconds[key]) for key in (False, True))
    print_row("images a second of CPU time without", f"{without:,.0f}")
    print_row(
        "images a second with near copies", f"{with_prints:,.0f}", with_prints / without, "0.9"
    )


def make_up(prints: list[str]) -> list[str]:
    """Return fingerprints of `N_LARGE` images that do not exist."""
    chance = np.random.default_rng(0)
    cosines = np.cos(np.arange(16)[:, None] * (np.arange(16) + 0.5) * (np.pi / 16))
    cosines *= np.sqrt(np.where(np.arange(16) == 0, 1, 2) / 16)[:, None]
    values = near_copies._VALUES[np.frombuffer("".join(prints).encode(), np.uint8)]
    spectra = cosines @ values.reshape(-1, 16, 16) @ cosines.T
    u, v = np.mgrid[:16, :16]

    def encode(cells: np.ndarray) -> list[str]:
        low, high = (f(cells, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
        levels = ((cells - low) / (high - low) * 63 + 0.5).astype(np.uint8)
        return [near_copies._DIGITS[one].tobytes().decode() for one in levels]

    made: list[str] = []
    while len(made) < N_LARGE:
        cells = (
            cosines.T @ spectra[chance.integers(0, len(spectra), (1000, 16, 16)), u, v] @ cosines
        )
        n_copies = N_CAMERA if not made else chance.integers(1, 50)
        for cell, n in ((cells[0], n_copies), *((cell, 2) for cell in cells[1:4])):
            made += encode(cell + chance.normal(0, 0.02 * cell.std(), (n, 16, 16)))
        made += encode(cells[4:])
    chance.shuffle(made := made[:N_LARGE])
    return made


def print_large(prints: list[str]) -> None:
    """Print seconds and peak memory of the grouping alone."""
    made = make_up(prints)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    began, cpu = time.perf_counter(), time.process_time()
    first = near_copies.find_first(made)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    n_copies = int((first != np.arange(len(first))).sum())
    print_row(f"{len(made):,} fingerprints, {n_copies:,} copies", f"{seconds:.0f} s", None, "300 s")
    print_row("of it on one core", f"{cpu:.0f} s")
    print_row("peak memory, of it before", f"{peak:.2f}, {memory:.2f} GB", None, "1.5 GB")


def main() -> None:
    """Print and draw everything; the large grouping has a process of its own, for its memory."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--sheet", type=Path, default=Path("near_copies.png"))
    parser.add_argument("--large", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    files = [file for folder in arguments.folders for file in scanning.scan(folder).files]
    paths, prints = [file.path for file in files], [file.fingerprint for file in files]
    if arguments.large:
        print_large([text for text in prints if text])
        return
    print_found(paths, prints)
    by_content = {file.sha256: file.path for file in files}
    contents = sorted((file.sha256, file.fingerprint) for file in files)
    first = near_copies.find_first([text for _, text in contents])
    pairs = [
        (by_content[contents[i][0]], by_content[contents[at][0]]) for i, at in enumerate(first)
    ]
    pairs = [pair for pair in pairs if pair[0] != pair[1]]
    draw_sheet(pairs[:50], arguments.sheet)
    print_row(f"pairs in {len(files):,} images as they are", str(len(pairs)))
    for pair in pairs:
        print(*pair)
    print_speed(arguments.folders[0])
    subprocess.run(
        [sys.executable, "-m", "benchmarks.near_copies", *sys.argv[1:], "--large"], check=True
    )


if __name__ == "__main__":
    main()
