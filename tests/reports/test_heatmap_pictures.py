"""Heat maps as pictures."""

from __future__ import annotations

import os

import numpy as np
from noise import noise_image
from PIL import Image

from alexnet_cli.inference.heatmaps import Heatmap
from alexnet_cli.reports import heatmap_pictures


def test_evidence_is_colored_and_all_else_is_gray():
    """Oracle: Pillow's own gray; red and yellow by their channels."""
    pixels, evidence = noise_image(8, 8), np.full((8, 8), -2, np.float32)
    evidence[0, 0], evidence[0, 1] = 5, 0.5
    shown = np.asarray(heatmap_pictures.overlay(Heatmap(pixels, evidence))).astype(int)
    gray = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_array_equal(shown[1:], np.repeat(gray[1:, :, None], 3, axis=2))
    most, some = shown[0, :2]
    assert min(most[:2]) > 200
    assert most[2] < 60
    assert some[0] > some[1] >= some[2]
    assert some[1] < most[1]


def test_no_evidence_and_no_number_are_a_gray_picture():
    """Oracle: equal channels, and no warning, which would be an error here."""
    for value in (-1, 0, np.nan):
        heatmap = Heatmap(noise_image(8, 8), np.full((8, 8), value, np.float32))
        shown = np.asarray(heatmap_pictures.overlay(heatmap))
        assert (shown == shown[..., :1]).all()


def test_only_its_own_pictures_may_be_replaced(tmp_path):
    """Oracle: a picture of ours, and files of the same name that are none."""
    heatmap, path = Heatmap(noise_image(8, 8), np.ones((8, 8), np.float32)), tmp_path / "a.png"
    heatmap_pictures.write(heatmap, path)
    assert heatmap_pictures.is_heatmap(path)
    Image.open(path).copy().save(tmp_path / "b.png")
    (tmp_path / "c.png").write_text("notes")
    (tmp_path / "d.png").mkdir()
    Image.new("1", (19_000, 10_000)).save(tmp_path / "f.png")
    (tmp_path / "g.png").write_bytes((tmp_path / "b.png").read_bytes()[:20])
    (tmp_path / "h.png").symlink_to(path)
    os.mkfifo(tmp_path / "i.png")
    assert not any(map(heatmap_pictures.is_heatmap, (tmp_path / f"{x}.png" for x in "bcdefghi")))
