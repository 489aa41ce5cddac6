"""Heat maps: whether the parts that they mark are those that the network needs, and what they cost.

    python -m benchmarks.heatmaps RUN

1. On up to 200 held-out images of RUN: the fall of the predicted class's probability when the hottest
   fifth of the crop becomes gray (the mean color), compared with a random fifth: the same shape,
   moved by a random offset around the edges.
2. On images whose class is a colored dot at a random place, by a small network trained here: the
   share of images whose hottest point lies on the dot.
3. The seconds that `predict --heatmap` takes for one image, with and without.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import alexnet_cli as alexnet
from alexnet_cli.data.crops import Cropper
from alexnet_cli.data.manifest import evenly_spaced
from alexnet_cli.data.store import load_image
from alexnet_cli.inference import heatmaps
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.recipes.presets import PAPER
from alexnet_cli.runs.models import load_model
from benchmarks.common import alexnet_command, median_seconds, print_row

N_IMAGES = 200
COLORS = {
    "blue": (40, 70, 220),
    "green": (40, 180, 60),
    "red": (220, 50, 40),
    "yellow": (225, 205, 40),
    "none": None,  # so that no color can be told by the absence of the others
}
SIZE, RADII = 72, (5, 7)  # pixels of the images and of their dots
WIDTHS = (32, 48, 64, 64, 48)


def main() -> None:
    """Print the three measurements."""
    run = Path(sys.argv[1])
    gray_the_hottest_fifth(run)
    with tempfile.TemporaryDirectory() as folder:
        find_dots(Path(folder))
        Image.open(load_model(run).run.images().of("val")[0].path).save(f"{folder}/image.png")
        predict = alexnet_command("predict", f"{folder}/image.png", "--model", run)
        without = median_seconds(predict)
        seconds = median_seconds([*predict, "--heatmap"])
        Path("image-heatmap.png").unlink()
        print_row("predict", f"{without:.2f} s")
        print_row("predict --heatmap", f"{seconds:.2f} s", goal=f"under {without + 1:.2f}")


def gray_the_hottest_fifth(run: Path) -> None:
    """Compare the fall of the probability with that of a random fifth."""
    model, random = load_model(run), np.random.default_rng(0)
    images = model.run.images()
    files = evenly_spaced(images.of("test") or images.of("val"), N_IMAGES)
    cropper, network = Cropper(model.recipe, model.statistics), model.keras_network
    gray = model.statistics.mean_image.mean(axis=(0, 1)) - cropper.center_mean()
    falls = []
    for file in files:
        crop = cropper(load_image(file, model.recipe))
        (p,) = network.probabilities([crop])[0]
        evidence = heatmaps.compute(model, file, model.classes[p.argmax()]).evidence
        hottest = evidence >= np.quantile(evidence, 0.8)
        moved = np.roll(hottest, random.integers(0, len(evidence), 2), axis=(0, 1))
        grayed = [
            np.where(mask[..., None], gray * model.recipe.scale, crop) for mask in (hottest, moved)
        ]
        after = network.probabilities([np.concatenate(grayed).astype(np.float32)])[0]
        falls.append(p.max() - after[:, p.argmax()])
    hot, other = np.array(falls).T
    print_row("held-out images", str(len(files)))
    print_row("fall of p, hottest fifth gray", f"{hot.mean():.3f}")
    print_row("fall of p, random fifth gray", f"{other.mean():.3f}")
    print_row(
        "images whose p falls more by the hottest", f"{(hot > other).mean():.1%}", goal="90 %"
    )


def find_dots(folder: Path) -> None:
    """Train on dots and look for the hottest point of each test image."""
    places = draw_dots(folder / "images", per_class=400)
    alexnet.split(folder / "images", out=folder / "data", val=0.1, test=0.25)
    run = alexnet.train(folder / "data", recipe=recipe(), gpus=0, out=folder / "runs")
    model, manifest = run.model(), load_model(run.path).run.images()
    margin, hits, right = (SIZE - 64) // 2, [], []
    for file in manifest.of("test"):
        if file.label == "none":
            continue
        evidence = model.heatmap(file.path)
        y, x, radius = places[file.label, file.path.name]
        row, column = np.unravel_index(evidence.argmax(), evidence.shape)
        hits.append(np.hypot(row + margin - y, column + margin - x) <= radius)
        right.append(model.predict(file.path)[0].label == file.label)
    print_row("images with a dot", str(len(hits)))
    print_row("top-1", f"{np.mean(right):.1%}")
    print_row("hottest point on the dot", f"{np.mean(hits):.1%}", goal="95 %")


def draw_dots(folder: Path, per_class: int) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Write images with a dot on gray clouds; returns row, column and radius of each."""
    random, places = np.random.default_rng(0), {}
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for label, color in COLORS.items():
        (folder / label).mkdir(parents=True)
        for number in range(per_class):
            clouds = Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8))
            pixels = np.asarray(clouds.resize((SIZE, SIZE), Image.Resampling.BICUBIC), float)
            pixels = np.repeat(pixels[..., None], 3, axis=2)
            radius = random.uniform(*RADII)
            y, x = random.uniform(8 + radius, SIZE - 8 - radius, 2)
            if color:
                pixels[np.hypot(rows - y, columns - x) <= radius] = color
            pixels += random.normal(0, 8, pixels.shape)
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / label / f"{number}.png")
            places[label, f"{number}.png"] = y, x, radius
    return places


def recipe() -> Recipe:
    """Return the paper's network, narrow and for images of 72 pixels, which learns dots in minutes."""
    return replace(
        PAPER,
        name="dots",
        resize_size=SIZE,
        crop_size=64,
        mean="channel",
        color_noise=0.0,  # the color is the class
        convs=tuple(
            replace(conv, filters=width, stddev=None, towers=1)
            for conv, width in zip(PAPER.convs, WIDTHS)
        ),
        dense=tuple(replace(layer, units=256, stddev=None, dropout=0.0) for layer in PAPER.dense),
        output_stddev=None,
        batch_size=16,
        epochs=30,
        learning_rate=0.0015,
        warmup=0.1,
        cosine=True,
        rate_drops=0,
    )


if __name__ == "__main__":
    main()
