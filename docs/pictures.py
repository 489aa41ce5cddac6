"""Draw the pictures that docs/ shows: `make docs FLOWERS=DIR`.

    python -m docs.pictures FLOWERS OUT

FLOWERS is the folder of docs/results.md. Three trainings at half size (half an hour to two hours on two
cores) are kept in OUT and not repeated; one that was interrupted resumes.
"""

from __future__ import annotations

import re
import sys
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

import alexnet_cli as alexnet
from alexnet_cli.data.manifest import ImageFile
from alexnet_cli.data.store import load_image
from alexnet_cli.inference import heatmaps
from alexnet_cli.reports import heatmap_pictures, paper_figures, plots
from alexnet_cli.runs.models import LoadedModel, load_model
from alexnet_cli.runs.run_folder import RunFolder
from benchmarks import learning_curves

DOCS = Path(__file__).parent
TRAININGS = {
    "modern": {"epochs": 60},
    "paper": {"recipe": "paper", "epochs": 24},
    "tanh": {"recipe": "paper", "variants": ["half-size", "tanh"], "epochs": 24},
}
LEARNING_TEST_IMAGES, LEARNING_ALL = 660, 462  # of the learning curves; training images of a class
# Test images without a recognizable person, also among the training images nearest to them.
PREDICTED = [
    "daisy/3939135368_0af5c4982a_n.jpg",
    "daisy/1879567877_8ed2a5faa7_n.jpg",
    "dandelion/3461986955_29a1abc621.jpg",
    "dandelion/17077940105_d2cd7b9ec4_n.jpg",
    "roses/17302463621_d82be11f01_n.jpg",
    "roses/5061135742_2870a7b691_n.jpg",
    "sunflowers/21995435890_e5672244a4_m.jpg",
    "tulips/16139439153_fbdee29a10_n.jpg",
]
EVIDENCE_OF = [
    "daisy/3456403987_5bd5fa6ece_n.jpg",
    "dandelion/19617643201_9922eec796.jpg",
    "roses/4503599544_3822e7d1be.jpg",
    "roses/18563353954_b761d97155_m.jpg",
    "sunflowers/20658775992_1619cd0a9b_n.jpg",
    "tulips/135994133_4f306fe4bf_n.jpg",
]
NEIGHBORS_OF = [
    "daisy/2077865117_9ed85191ae_n.jpg",
    "dandelion/2444241718_3ca53ce921.jpg",
    "roses/3742168238_d961937e68_n.jpg",
    "sunflowers/40410814_fba3837226_n.jpg",
    "tulips/16139439153_fbdee29a10_n.jpg",
]


def train(data: Path, out: Path) -> dict[str, Path]:
    """Train what is not trained yet; return the run folders."""
    runs = {}
    for name, options in TRAININGS.items():
        runs[name] = out / name / "latest"
        if not runs[name].exists():
            options = {"variants": ["half-size"], **options}
            alexnet.train(data, out=out / name, gpus=0, **options)
        elif not (runs[name] / "metrics.json").exists():
            alexnet.resume(runs[name], gpus=0)
    return runs


def draw_learning_curves(page: str) -> None:
    """Draw the table of results.md that tells how many images are enough."""
    section = page.partition("\n## How many images")[2].partition("\n## ")[0]
    names = "|".join(learning_curves.COLORS)
    found = {}
    for curve, cells in re.findall(rf"^\| `?({names})`? \|(.*)\|$", section, re.M):
        for count, cell in zip(learning_curves.COUNTS, cells.split("|"), strict=True):
            found[curve, count] = [(float(cell) / 100, LEARNING_TEST_IMAGES)]
    learning_curves.draw(found, LEARNING_ALL, DOCS)


def draw_evidence(model: LoadedModel, files: list[ImageFile], path: Path) -> None:
    """Draw center crops with their likeliest class, and where the evidence for it lies."""
    from matplotlib.figure import Figure

    found = alexnet.load(model.path).predict([file.path for file in files])
    figure = Figure(figsize=(1.75 * len(files), 4), dpi=120, layout="constrained")
    for (photograph, below), file, prediction in zip(
        figure.subplots(2, len(files)).T, files, found
    ):
        heatmap = heatmaps.compute(model, file)
        photograph.imshow(heatmap.pixels)
        photograph.set_title(f"{prediction.label} {prediction.probability:.0%}", fontsize=11)
        below.imshow(heatmap_pictures.overlay(heatmap))
        for axes in (photograph, below):
            axes.set_axis_off()
    figure.savefig(path)


def name(file: ImageFile) -> str:
    """Return the path of an image in FLOWERS."""
    return f"{file.label}/{file.path.name}"


def save_as_jpeg(picture: Path) -> None:
    """Replace a PNG of photographs by a JPEG, a tenth of its size."""
    with Image.open(picture) as image:
        image.convert("RGB").save(picture.with_suffix(".jpg"), quality=85)
    picture.unlink()


def main() -> None:
    """Train, and draw every picture but those of a browser or a terminal."""
    flowers, out = Path(sys.argv[1]), Path(sys.argv[2])
    data = out / "data"
    if not data.exists():
        alexnet.split(flowers, out=data, test=0.1, link="symbolic")
    runs = train(data, out)
    alexnet.Run(runs["modern"]).plot_curves(DOCS / "curves-modern.png")
    draw_learning_curves((DOCS / "results.md").read_text())
    paper_figures.draw_training_errors(
        [RunFolder.find(runs[run]) for run in ("paper", "tanh")], DOCS / "training-error.png"
    )

    model = load_model(runs["modern"])
    paper_figures.draw_kernels(model, DOCS / "kernels.png")
    files = {name(file): file for file in model.run.images().of("test")}
    predicted = [files[one] for one in PREDICTED]
    paper_figures.draw_predictions(model, predicted, DOCS / "predictions.png")
    save_as_jpeg(DOCS / "predictions.png")

    evidence = [files[one] for one in EVIDENCE_OF]
    draw_evidence(model, evidence, DOCS / "evidence.png")
    save_as_jpeg(DOCS / "evidence.png")

    def pixels(file: ImageFile) -> tuple[np.ndarray, str]:
        return load_image(file, model.recipe), file.label

    queries = [files[one] for one in NEIGHBORS_OF]
    found = alexnet.load(runs["modern"]).predict([file.path for file in queries], neighbors=6)
    near = [[neighbor.file for neighbor in one.neighbors] for one in found]
    rows = [(*pixels(file), [*map(pixels, others)]) for file, others in zip(queries, near)]
    plots.draw_neighbors(rows, DOCS / "neighbors.png")
    save_as_jpeg(DOCS / "neighbors.png")

    shown = {name(file) for file in (*predicted, *evidence, *queries, *chain(*near))}
    credits = (flowers / "LICENSE.txt").read_text().splitlines()
    lines = sorted(line for line in credits if line.split(" ")[0] in shown)
    title = (
        "Photographs in evidence.jpg, predictions.jpg and neighbors.jpg, by their photographers:"
    )
    (DOCS / "photographs.txt").write_text("\n".join([title, "", *lines, ""]))


if __name__ == "__main__":
    main()
