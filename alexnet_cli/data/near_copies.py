"""Near copies: one picture saved again in another quality, size or format, or with a narrow border.

The fingerprint of an image is the image itself as 16×16 cells of gray. Two images are near copies if
the inner part of one correlates with a part of the other. The pairs to compare are those of which 12
of 60 signs of the cosine transform are equal in one of five bands, and few of all 64 differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from alexnet_cli.data.images import Float32Array
from alexnet_cli.data.manifest import ImageFile

IntArray = npt.NDArray[np.int64]

_SIDE = 16
_DIGITS = np.frombuffer(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8
)
_LEAST_RANGE = 16  # levels of 255 between the darkest and the brightest cell; less is only noise
SAMPLES = 32  # pixels a side that are enough, and faster to decode than all

# The share that is cut off at each side before two images are compared. The first is more than any
# border, the others show the same part of an image without a border of 1.5 % and of 3 %.
_CUTS = (1 / 16, 0.049, 0.036)
_LEAST_CORRELATION = 0.97  # copies have more, other photographs of the same scene less
_BANDS, _BAND_BITS = 5, 12
_MOST_DIFFERENT = 10  # of 64 signs
_BLOCK = 1 << 20  # pairs whose hashes are compared at once
_MOST_PAIRS = 1 << 15  # pairs of alike hashes that wait; each image of them takes 2 kB


def fingerprint(image: Image.Image) -> str:
    """Return 256 digits of 0 to 63 in base64, the gray values of 16×16 cells; "" without contrast."""
    # Smooth, as cells must be resampled to compare parts: with BOX, textures are found less often.
    cells = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    low, high = cast(tuple[int, int], cells.getextrema())
    if high - low < _LEAST_RANGE:
        return ""
    return cells.tobytes().translate(_digits(low, high)).decode("ascii")


@cache
def _digits(low: int, high: int) -> bytes:
    """Return the digit of each gray value from 0 to 255, so that `low` is 0 and `high` is 63."""
    levels = (np.arange(256) - low).clip(0, high - low) * (63 / (high - low)) + 0.5
    return _DIGITS[levels.astype(np.uint8)].tobytes()


def mark_copies(files: Sequence[ImageFile]) -> tuple[ImageFile, ...]:
    """Return `files`, each near copy with the SHA-256 of the first image of its group.

    First is the least SHA-256, so that names and order do not matter.
    """
    prints = dict(sorted((file.sha256, file.fingerprint) for file in files if file.fingerprint))
    contents = list(prints)
    first = find_first([*prints.values()])
    copy_of = {
        contents[i]: contents[first[i]] for i in np.flatnonzero(first < np.arange(len(first)))
    }
    return tuple(
        replace(file, copy_of=copy_of[file.sha256]) if file.sha256 in copy_of else file
        for file in files
    )


def find_first(prints: Sequence[str]) -> IntArray:
    """Return for each fingerprint the index of the first one of its group, its own if there is none.

    In their order, each joins the first group whose first image it is a copy of, else it begins a
    group. Thus each is compared with first images only, and groups do not grow into chains. "" is
    no copy of anything. Takes about 100 bytes for each, beside the texts.
    """
    first = np.arange(len(prints))
    codes = _hash(prints)
    waiting = np.flatnonzero([*map(bool, prints)])
    leading = waiting[:0]
    while waiting.size:
        least = _least_copy(prints, codes, waiting, np.union1d(leading, waiting))[waiting]
        leading = np.union1d(leading, waiting[least == waiting])
        settled = np.isin(least, leading)
        first[waiting[settled]] = least[settled]
        waiting = waiting[~settled]  # they are like an image that has joined another one
    return first


def are_among(files: Sequence[ImageFile], others: Iterable[ImageFile]) -> npt.NDArray[np.bool_]:
    """Return which of `files` are among `others`, as they are or as near copies.

    Equal are those of equal SHA-256, or of equal path where one of the two was not read.
    """
    known = {(file.sha256, file.path): file.fingerprint for file in others}
    contents = {sha256 for sha256, _ in known if sha256}
    paths = {path: sha256 for sha256, path in known}
    found = np.array(
        [
            file.sha256 in contents
            or (file.path in paths and not (file.sha256 and paths[file.path]))
            for file in files
        ],
        bool,
    )
    if known and files:
        prints = [known[key] for key in sorted(known)]
        first = find_first([*prints, *(file.fingerprint for file in files)])
        found |= first[len(prints) :] < len(prints)
    return found


def _least_copy(
    prints: Sequence[str], codes: npt.NDArray[np.uint64], rows: IntArray, columns: IntArray
) -> IntArray:
    """Return for each index in `rows` the least of `columns` that it is a copy of, else itself."""
    least = np.arange(len(prints))
    is_row = np.isin(least, rows)
    pairs: list[IntArray] = []
    n_pairs = 0
    for a, b in _candidates(codes, rows, columns):
        lower, upper = np.minimum(a, b), np.maximum(a, b)
        pairs.append(np.stack([lower, upper])[:, is_row[upper] & (lower < least[upper])])
        n_pairs += pairs[-1].shape[1]
        if n_pairs > _MOST_PAIRS:
            _settle(prints, least, *np.hstack(pairs))
            pairs, n_pairs = [], 0
    if n_pairs:
        _settle(prints, least, *np.hstack(pairs))
    return least


def _candidates(
    codes: npt.NDArray[np.uint64], rows: IntArray, columns: IntArray
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield pairs whose hashes are alike, of `rows` and `columns`, as two arrays of indices."""
    sides = [(rows, columns)] if len(rows) == len(columns) else [(rows, columns), (columns, rows)]
    # Few images need few buckets, each of which takes time.
    bits = min(_BAND_BITS, (codes.shape[1] // 256).bit_length())
    for band in range(_BANDS):
        shift = np.uint64(64 - band * _BAND_BITS - bits)
        keys = (codes >> shift).astype(np.uint16) & (2**bits - 1)
        for cut in range(len(_CUTS)):
            for inner, other in sides:
                for a, b in _buckets(inner, keys[0, inner], other, keys[cut, other]):
                    differ = np.bitwise_count(codes[0, a][:, None] ^ codes[cut, b])
                    i, j = np.divmod(np.flatnonzero(differ <= _MOST_DIFFERENT), len(b))
                    yield a[i], b[j]


def _buckets(
    a: IntArray, a_keys: npt.NDArray[np.uint16], b: IntArray, b_keys: npt.NDArray[np.uint16]
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield the parts of `a` and `b` that have the same key, at most `_BLOCK` pairs at once."""
    a_order, b_order = a_keys.argsort(kind="stable"), b_keys.argsort(kind="stable")
    edges = np.arange(int(a_keys.max(initial=0)) + 2)
    a_edges, b_edges = a_keys[a_order].searchsorted(edges), b_keys[b_order].searchsorted(edges)
    for key in np.flatnonzero((np.diff(a_edges) > 0) & (np.diff(b_edges) > 0)):
        others = b[b_order[b_edges[key] : b_edges[key + 1]]]
        step = max(1, _BLOCK // len(others))
        for start in range(a_edges[key], a_edges[key + 1], step):
            yield a[a_order[start : min(start + step, a_edges[key + 1])]], others


def _settle(prints: Sequence[str], least: IntArray, lower: IntArray, upper: IntArray) -> None:
    """Lower `least` of each of `upper` to the least of its `lower` that it is a copy of."""
    order = lower.argsort(kind="stable")
    lower, upper = lower[order], upper[order]
    images = np.union1d(lower, upper)
    parts = _cut([prints[i] for i in images])
    while lower.size:
        _, at = np.unique(upper, return_index=True)  # of a thousand copies only the first counts
        one, other = (images.searchsorted(pair[at]) for pair in (lower, upper))
        same = _correlation(parts, one, other) >= _LEAST_CORRELATION
        least[upper[at[same]]] = lower[at[same]]
        lower, upper = np.delete(lower, at), np.delete(upper, at)
        still = lower < least[upper]
        lower, upper = lower[still], upper[still]


def _correlation(parts: Float32Array, one: IntArray, other: IntArray) -> Float32Array:
    """Return for each pair the largest correlation of the inner part of one with a part of the other.

    `parts`: those that `_cut` returns.
    """
    found = []
    for start in range(0, len(one), 4096):
        a, b = (parts[:, pair[start : start + 4096]] for pair in (one, other))
        each = [np.einsum("pnd,nd->pn", *pair).max(axis=0) for pair in ((b, a[0]), (a, b[0]))]
        found.append(np.maximum(*each))
    return np.concatenate(found)


def _cut_matrix(cut: float) -> Float32Array:
    """Return the matrix (14, 16) from cells to the means of 14 equal cells without `cut` at each end."""
    edges, cells = np.linspace(cut, 1 - cut, _SIDE - 1)[:, None] * _SIDE, np.arange(_SIDE)
    overlap = np.minimum(edges[1:], cells + 1) - np.maximum(edges[:-1], cells)
    return (overlap.clip(0) / np.diff(edges, axis=0)).astype(np.float32)


_CUT_MATRICES = [_cut_matrix(cut) for cut in _CUTS]
_VALUES = np.zeros(128, np.float32)
_VALUES[_DIGITS] = np.arange(64)


def _cut(prints: Sequence[str]) -> Float32Array:
    """Return the parts that are compared, (3, images, 196), each of mean 0 and norm 1."""
    parts = _transform(prints, _CUT_MATRICES).reshape(len(_CUTS), len(prints), -1)
    parts -= parts.mean(axis=2, keepdims=True)
    parts /= np.maximum(np.linalg.norm(parts, axis=2, keepdims=True), np.float32(1e-6))
    return parts


# The cosines of the discrete cosine transform (DCT-II), and the 64 products with the lowest frequencies.
_COSINES = np.cos(np.arange(12)[:, None] * (np.arange(14) + 0.5) * (np.pi / 14))
_HASH_MATRICES = [(_COSINES @ matrix).astype(np.float32) for matrix in _CUT_MATRICES]
_LOWEST = sorted(
    ((u, v) for u in range(12) for v in range(12) if u + v),
    key=lambda at: (sum(at), max(at), at),
)[:64]


def _hash(prints: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return the 64 signs of the cosine transform of each part as bits: (3, images)."""
    codes = np.zeros((len(_CUTS), len(prints)), np.uint64)
    rows, columns = zip(*_LOWEST)
    known = [i for i, text in enumerate(prints) if text]
    for start in range(0, len(known), 4096):
        at = known[start : start + 4096]
        signs = _transform([prints[i] for i in at], _HASH_MATRICES)[:, :, rows, columns] > 0
        packed = np.ascontiguousarray(np.packbits(signs, axis=2))  # of one image it is not
        codes[:, at] = packed.view(">u8")[..., 0]
    return codes


def _transform(prints: Sequence[str], matrices: Sequence[Float32Array]) -> Float32Array:
    """Return the product of each matrix M (m, 16) with the cells C of each image, M C Mᵀ: (3, images, m, m)."""
    cells = _VALUES[np.frombuffer("".join(prints).encode("ascii"), np.uint8)]
    cells = cells.reshape(-1, _SIDE, _SIDE)
    # As large products: a small one for each image takes ten times as long.
    return np.stack([np.tensordot(np.tensordot(cells, m, (1, 1)), m, (1, 1)) for m in matrices])
