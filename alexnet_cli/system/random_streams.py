"""Independent random streams from the one seed of a run or a split."""

from __future__ import annotations

from zlib import crc32

import numpy as np


def random_stream(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """Return the generator for a `purpose`, such as "crop", and its `numbers`, such as epoch and image.

    The same arguments give the same stream on every machine; a stream with other arguments is
    independent of it. `seed` and `numbers` are not negative. They must not be joined to one list, as
    NumPy then takes (0, 1) and (0, 1, 0) for the same seed.
    """
    key = (crc32(purpose.encode()), *numbers)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
