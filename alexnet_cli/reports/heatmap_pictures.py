"""Heat maps as pictures: the image in gray, and where evidence for the class lies in yellow and red."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from alexnet_cli.inference.heatmaps import Heatmap
from alexnet_cli.system.atomic_files import atomic_write

TITLE = "alexnet heat map"  # in the text of the PNG


def overlay(heatmap: Heatmap) -> Image.Image:
    """Return the crop in gray, the more yellow, then red, the more evidence for the class a part has.

    The scale ends at the largest evidence in this image; evidence against the class is not shown.
    """
    evidence = np.nan_to_num(heatmap.evidence)  # huge weights yield NaN
    largest = max(evidence.max(), np.finfo(np.float32).tiny)
    heat = (evidence.clip(0) / largest)[..., None]
    gray = np.asarray(Image.fromarray(heatmap.pixels).convert("L"), np.float32)[..., None]
    red_to_yellow = np.concatenate([np.full_like(heat, 255), 255 * heat, 0 * heat], axis=-1)
    opacity = 0.8 * heat**0.75
    return Image.fromarray(
        (gray * (1 - opacity) + red_to_yellow * opacity).round().astype(np.uint8)
    )


def write(heatmap: Heatmap, path: Path) -> None:
    """Write the picture of a heat map as PNG, marked so that `is_heatmap` knows it."""
    text = PngInfo()
    text.add_text("Title", TITLE)
    with atomic_write(path) as file:
        overlay(heatmap).save(file, "png", pnginfo=text)


def is_heatmap(path: Path) -> bool:
    """Return whether `path` is a picture that `write` has written, which may be replaced."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.info.get("Title") == TITLE
    except Exception:  # decoders raise exceptions of any kind for damaged files
        return False
