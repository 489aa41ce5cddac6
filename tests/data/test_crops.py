"""The center crop and the ten crops against slices written out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from helpers import TINY
from noise import noise_image, noise_statistics

from alexnet_cli.data.crops import Cropper


def test_ten_crops_are_center_corners_and_their_mirrors():
    """Oracle: slices written out by hand, section 4.1."""
    image, stats = noise_image(), noise_statistics()
    whole = image - stats.mean_image
    upright = [
        whole[4:68, 4:68],
        whole[:64, :64],
        whole[:64, 8:],
        whole[8:, :64],
        whole[8:, 8:],
    ]
    expected = upright + [crop[:, ::-1] for crop in upright]
    np.testing.assert_array_equal(Cropper(TINY, stats, ten=True)(image), expected)
    np.testing.assert_array_equal(Cropper(TINY, stats)(image), expected[:1])


def test_center_of_the_mean_is_subtracted_from_all_ten_crops():
    """Oracle: a corner of the image minus the center of the mean image, cut by hand."""
    recipe = replace(TINY, mean="center")
    image, stats = noise_image(), noise_statistics()
    ten = Cropper(recipe, stats, ten=True)(image)
    np.testing.assert_array_equal(ten[4], image[8:, 8:] - stats.mean_image[4:68, 4:68])
