"""Near copies: which images are found, which are not, and how groups form."""

from __future__ import annotations

import random
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from folders import make
from PIL import Image

from alexnet_cli.data import near_copies, scanning
from alexnet_cli.data.manifest import ImageFile
from alexnet_cli.data.near_copies import find_first, fingerprint
from alexnet_cli.data.split_plan import plan_split
from benchmarks.near_copies import WAYS

FLOWERS = Path(__file__).parents[2] / "examples" / "flowers"


def picture(cells: npt.NDArray[np.float64]) -> Image.Image:
    """Return a gray image whose 16×16 cells are proportional to `cells`."""
    low, high = cells.min(), cells.max()
    pixels = np.kron((cells - low) / (high - low) * 255, np.ones((16, 16)))
    return Image.fromarray(pixels.round().astype(np.uint8)).convert("RGB")


def smooth(seed: int) -> npt.NDArray[np.float64]:
    """Return random cells (16, 16) of mean 0 and norm 1, with the frequencies of pictures."""
    u, v = np.mgrid[:16, :16]
    waves = np.random.default_rng(seed).normal(size=(16, 16)) / (1 + u + v) ** 1.5
    waves[0, 0] = 0
    cosines = np.cos(np.arange(16)[:, None] * (np.arange(16) + 0.5) * np.pi / 16)
    cells = cosines.T @ waves @ cosines
    return cells / np.linalg.norm(cells)


def test_pictures_saved_again_are_found_and_others_are_not() -> None:
    """Oracle: 72 copies of 12 flowers in six ways; the 100 flowers themselves differ."""
    paths = sorted(FLOWERS.glob("*/*.jpg"))[::2]
    flowers = [Image.open(path).convert("RGB") for path in paths]
    prints = [fingerprint(flower) for flower in flowers]
    assert list(find_first(prints)) == [*range(len(prints))]
    chosen = random.Random(3).sample(range(len(flowers)), 12)
    copies = [fingerprint(save(flowers[i])) for save in WAYS.values() for i in chosen]
    first = find_first([*prints, *copies])[len(prints) :]
    assert np.mean(first == chosen * len(WAYS)) > 0.97


def parts(text: str) -> list[npt.NDArray[np.float64]]:
    """Return the parts of an image that are compared, by integrals of its cells."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    integral = np.zeros((17, 17))
    cells = np.array([digits.index(digit) for digit in text]).reshape(16, 16)
    integral[1:, 1:] = cells.cumsum(0).cumsum(1)
    found, grid = [], np.arange(17)
    for cut in (1 / 16, 0.049, 0.036):
        edges = np.linspace(16 * cut, 16 - 16 * cut, 15)
        columns = np.array([np.interp(edges, grid, column) for column in integral.T]).T
        both = np.array([np.interp(edges, grid, row) for row in columns])
        found.append(np.diff(np.diff(both, axis=0), axis=1).ravel())
    return found


def correlation(one: list[npt.NDArray[np.float64]], other: list[npt.NDArray[np.float64]]) -> float:
    """Return the largest correlation of the inner part of one with a part of the other."""
    pairs = [*((one[0], part) for part in other), *((part, other[0]) for part in one)]
    return max(float(np.corrcoef(pair)[0, 1]) for pair in pairs)


def test_each_joins_the_first_group_whose_first_image_it_is_a_copy_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Oracle: the rule in plain loops over all pairs, of blends of pictures that form chains."""
    monkeypatch.setattr(near_copies, "_BAND_BITS", 0)  # one bucket: every pair is compared
    monkeypatch.setattr(near_copies, "_MOST_DIFFERENT", 64)
    chance, prints = random.Random(4), [""]
    for seed in range(5):
        one, other = smooth(seed), smooth(100 + seed)
        for angle in np.radians(chance.sample(range(0, 90, 5), 9)):
            prints.append(fingerprint(picture(np.cos(angle) * one + np.sin(angle) * other)))
    chance.shuffle(prints)
    of = [parts(text) if text else None for text in prints]
    expected: list[int] = []
    for i in range(len(prints)):
        copies = [
            j
            for j, at in enumerate(expected)
            if at == j and of[i] and of[j] and correlation(of[i], of[j]) >= 0.97
        ]
        expected.append(copies[0] if copies else i)
    assert 10 < len(set(expected)) < 40
    assert list(find_first(prints)) == expected
    monkeypatch.setattr(near_copies, "_BLOCK", 8)
    assert list(find_first(prints)) == expected


def test_groups_do_not_grow_into_chains() -> None:
    """Oracle: cosines of angles: 10 degrees are alike (0.985), 20 degrees are not (0.940)."""
    one, other = smooth(1), smooth(2)
    other -= (one * other).sum() * one
    other /= np.linalg.norm(other)
    blends = [np.cos(angle) * one + np.sin(angle) * other for angle in np.radians([0, 10, 20])]
    a, b, c = (fingerprint(picture(cells)) for cells in blends)
    assert list(find_first([a, b, c])) == [0, 0, 2]
    assert list(find_first([b, a, c])) == [0, 0, 0]


def test_images_without_contrast_are_no_copies() -> None:
    """Oracle: one color has nothing that could tell pictures apart."""
    plain = [fingerprint(Image.new("RGB", (90, 70), color)) for color in ("white", "white", "red")]
    assert plain == ["", "", ""]
    assert list(find_first(plain)) == [0, 1, 2]
    assert list(find_first([])) == []


def test_very_many_copies_are_one_group() -> None:
    """Oracle: the first of them."""
    chance, cells = np.random.default_rng(5), smooth(3)
    noisy = [cells + chance.normal(0, 0.02 * cells.std(), cells.shape) for _ in range(300)]
    prints = [fingerprint(picture(smooth(4))), *(fingerprint(picture(one)) for one in noisy)]
    assert list(find_first(prints)) == [0] + [1] * 300


@pytest.mark.parametrize("n", [1, 2, 4096, 4097, 4098])
def test_any_number_of_images_is_compared(n: int) -> None:
    """Oracle: one picture, repeated; it is hashed in blocks of 4096, and a block of one has failed."""
    assert list(find_first([fingerprint(picture(smooth(6)))] * n)) == [0] * n


def test_near_copies_stay_together_whatever_their_names(tmp_path: Path) -> None:
    """Oracle: the pairs that were saved; the least SHA-256 is first under any name."""
    files = {}
    for seed in range(12):
        for kind in ("png", "jpeg"):
            stream = BytesIO()
            picture(smooth(seed)).save(stream, kind)
            files[f"{'cat' if seed % 2 else 'dog'}/{seed}.{kind}"] = stream.getvalue()
    found = scanning.scan(make(tmp_path / "one", files))
    pairs = [{f.path.stem for f in group} for group in found.near_copies()]
    assert sorted(pairs, key=min) == sorted(({str(seed)} for seed in range(12)), key=min)
    for group in found.near_copies():
        least = min(file.sha256 for file in group)
        assert {file.copy_of for file in group} == {"", least}
        assert next(file for file in group if not file.copy_of).sha256 == least
    backwards = near_copies.mark_copies(
        [replace(file, copy_of="") for file in reversed(found.files)]
    )
    assert backwards[::-1] == found.files
    split_of: dict[str, set[str]] = {}
    for file in plan_split(found, val=0.3, test=0.2).files:
        split_of.setdefault(file.path.stem, set()).add(file.split)
    assert all(len(splits) == 1 for splits in split_of.values())


def test_files_without_fingerprints_are_no_copies() -> None:
    """Oracle: the files as they were, as in manifests of older versions."""
    files = (ImageFile(Path("/a/1"), "a", "", "0" * 64), ImageFile(Path("/a/2"), "a"))
    assert near_copies.mark_copies(files) == files
