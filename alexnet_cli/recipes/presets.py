"""The named recipes. Each overrides only what differs from the paper; `rationale` gives the reasons.

`paper_comparison` turns the reasons into a table of every hyperparameter beside the paper's.

Sources: "Released" is the authors' program, released by the Computer History Museum in 2025.
"Caffe" is the bvlc_alexnet replication. "Notebook" is the `alexnet.ipynb` of
archit-lahiri/Alexnet_Implementation. "Measured" is in benchmarks/LOG.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from alexnet_cli.errors import UsageError
from alexnet_cli.recipes.hyperparameters import Conv, Recipe


def each(layers: Iterable[Any], **values: Any) -> tuple[Any, ...]:
    """Return `layers` with `values` replaced in each."""
    return tuple(replace(layer, **values) for layer in layers)


def hidden_biases(recipe: Recipe, bias: float) -> dict[str, Any]:
    """Return the layers with `bias` in convolutions whose bias is not 0, and in fc6 and fc7."""
    convs = tuple(replace(c, bias=bias if c.bias else 0.0) for c in recipe.convs)
    return {"convs": convs, "dense": each(recipe.dense, bias=bias)}


# With biases of 1 every unit of fc7 starts at about 1 for every image, so the inputs of fc8 share a
# component of squared length 7,600. Along that component the curvature of the loss is its squared
# length times 2 p (1 − p), where p is the share of a class. Momentum is stable if the learning rate
# is below 3.8 divided by the curvature: 0.0016 with 5 classes, 0.25 with ImageNet's 1000. At 0.01
# and 5 classes the loss rises to 38 within four steps, and at step 10 every unit of fc7 is dead.
# With 0.1 in the dense layers alone the squared length is 840, the learning rate is at the limit of
# stability, and three quarters of the channels of conv5 die. With 0.1 everywhere it is 90.
LITERAL = Recipe("literal", "the 2012 paper exactly; with few classes it does not learn")
PAPER = Recipe(
    name="paper",
    summary="the 2012 paper, but hidden biases start at 0.1 instead of 1",
    **hidden_biases(LITERAL, 0.1),
    rationale={"bias": "Caffe: with 1 the loss stays flat; measured here too, with few classes"},
)

_conv1, _conv2, *_conv3to5 = LITERAL.convs
_LOG = "released, log in layer-params-145.cfg"
RELEASED = Recipe(
    name="released-2012",
    summary="the program that won in 2012, which differs from the paper",
    mean="center",
    shared_crop=32,
    noise_divisor=1.1,
    noise_until=66 / 91,
    convs=(
        replace(_conv1, post_ops=("lrn", "pool", "relu")),
        replace(_conv2, post_ops=("relu", "lrn", "lrn", "pool")),
        *each(_conv3to5[:2], stddev=0.03),
        replace(_conv3to5[2], stddev=0.03, post_ops=("pool", "relu")),
    ),
    lrn_alpha=1e-4 / 5,
    epochs=91,
    bias_rate=2.0,
    drop_at=(25 / 91, 51 / 91, 79 / 91),
    slow_from=66 / 91,
    freeze_from=75 / 91,
    rationale={
        "mean": "released, convdata_jpeg.py: one crop of the mean image for all crops",
        "shared_crop": "released, convdata_jpeg.py: one crop position for each 32 images",
        "noise_divisor": "released, convdata_jpeg.py: 1 + 0.1, to keep the scale of the pixels",
        "noise_until": f"{_LOG}: no color noise from about epoch 66 of 91",
        "conv1.post_ops": "released, layers-145.cfg: ReLU after pooling, not before LRN",
        "conv2.post_ops": "released, layers-145.cfg: two LRN layers",
        "conv5.post_ops": "released, layers-145.cfg: ReLU after pooling, which gives the same result",
        "stddev": "released, layers-145.cfg: initW=0.03 in conv3 to conv5",
        "lrn_alpha": "released, layer.py: the scale 1e-4 is divided by n, 5",
        "epochs": f"{_LOG}: stopped at epoch 91",
        "bias_rate": "released, layer-params-145.cfg: epsB=0.02 beside epsW=0.01",
        "drop_at": f"{_LOG}: ÷10 at epochs 25, 51 and 79 of 91",
        "slow_from": f"{_LOG}: lower rate from about epoch 66 of 91; the factor of a tenth is ours",
        "freeze_from": f"{_LOG}: frozen at about epoch 75 of 91",
    },
)

CAFFE = Recipe(
    name="caffe",
    summary="Caffe's bvlc_alexnet, the best-known replication",
    crop_size=227,
    color_noise=0.0,
    convs=hidden_biases(LITERAL, 0.1)["convs"],
    dense=each(LITERAL.dense, bias=0.1, stddev=0.005),
    lrn_k=1.0,
    lrn_alpha=1e-4 / 5,
    batch_size=256,
    bias_rate=2.0,
    drop_at=(1 / 4.5, 2 / 4.5, 3 / 4.5, 4 / 4.5),
    rationale={
        "crop_size": "Caffe, train_val.prototxt: 227 gives 55 without padding",
        "color_noise": "Caffe, readme.md: no relighting augmentation",
        "bias": "Caffe, readme.md: biases of 1 gave a flat loss",
        "stddev": "Caffe, train_val.prototxt: 0.005 in fc6 and fc7",
        "lrn_k": "Caffe, LRN layer: the default k is 1",
        "lrn_alpha": "Caffe, LRN layer: 1e-4 is divided by n, 5",
        "batch_size": "Caffe, train_val.prototxt",
        "bias_rate": "Caffe, train_val.prototxt: lr_mult of 2",
        "drop_at": "Caffe, solver.prototxt: every 100,000 of 450,000 iterations",
    },
)

# A plain Keras network, unchanged.
NOTEBOOK = Recipe(
    name="notebook",
    summary="a Keras notebook: batch normalization, no towers, plain SGD",
    resize_size=227,
    stretch=True,
    crop_size=227,
    mean="none",
    scale=1 / 255,
    flip=False,
    color_noise=0.0,
    convs=(
        Conv(96, 11, stride=4, stddev=None, post_ops=("relu", "batch_norm", "pool")),
        Conv(256, 5, stddev=None, post_ops=("relu", "batch_norm", "pool")),
        Conv(384, 3, stddev=None),
        Conv(384, 3, stddev=None),
        Conv(256, 3, stddev=None, post_ops=("relu", "pool")),
    ),
    dense=each(LITERAL.dense, bias=0.0, stddev=None),
    output_stddev=None,
    batch_size=32,
    epochs=50,
    learning_rate=0.001,
    momentum=0.0,
    weight_decay=0.0,
    rate_drops=0,
    rationale={
        "resize_size": "Notebook: no crops, so the size of the input",
        "stretch": "Notebook: resized to 227×227, whatever the aspect ratio",
        "crop_size": "Notebook: the whole image, not a crop",
        "mean": "Notebook: no mean is subtracted",
        "scale": "Notebook: rescale=1/255",
        "flip": "Notebook: no augmentation",
        "color_noise": "Notebook: no augmentation",
        "post_ops": "Notebook: batch normalization instead of LRN",
        "towers": "Notebook: each kernel sees all channels",
        "bias": "Notebook: Keras' defaults",
        "stddev": "Notebook: Keras' defaults (Glorot uniform)",
        "output_stddev": "Notebook: Keras' defaults (Glorot uniform)",
        "batch_size": "Notebook",
        "epochs": "Notebook",
        "learning_rate": "Notebook: SGD(0.001)",
        "momentum": "Notebook: plain SGD",
        "weight_decay": "Notebook: plain SGD",
        "rate_drops": "Notebook: a constant learning rate",
    },
)

# Exactly the paper's network. What was tried, and how much each change helps: benchmarks/LOG.md.
MODERN = replace(
    PAPER,
    name="modern",
    summary="the paper's network with newer training methods, for small data",
    stretch=True,
    mean="channel",
    crop_area=0.35,
    jitter=0.3,
    cutmix=0.3,
    kmeans_init=True,
    batch_size=32,
    learning_rate=0.005,
    label_smoothing=0.1,
    temperature_scaling=True,
    warmup=0.05,
    cosine=True,
    rate_drops=0,
    rationale={
        **PAPER.rationale,
        "stretch": "Measured: the whole image is used, not only its center",
        "mean": "Simonyan and Zisserman 2014: a mean for each channel, as crops vary in position and size",
        "crop_area": "Szegedy et al. 2014: objects vary in size and aspect ratio",
        "jitter": "Howard 2013: light and exposure vary between images",
        "cutmix": "Yun et al. 2019: reduces overfitting",
        "kmeans_init": "Krähenbühl et al. 2016: edge filters are learned slowly from few images",
        "batch_size": "Measured: four times as many steps per epoch, for small data sets",
        "learning_rate": "Measured: for a batch size of 32",
        "label_smoothing": "Szegedy et al. 2015, section 7",
        "temperature_scaling": "Guo et al. 2017: of images with probability 0.8, about 80 % are correct",
        "warmup": "Goyal et al. 2017: units die if training starts at the full rate",
        "cosine": "Loshchilov and Hutter 2016: no epochs to choose for drops of the rate",
        "rate_drops": "Loshchilov and Hutter 2016: the cosine replaces drops",
    },
)

# Chosen by successive halving on 991 flowers at half size. At 60 epochs the three changes together
# fit too little (80.1 % against 81.1 of `modern`). At 200 they have 84.5 and 83.7 % in two trainings,
# with losses of 0.50 and 0.49; `modern` has 83.6 % and 0.51 there, and 82.5 % and 0.53 at 90: the
# accuracy comes from the length, and the noise lowers the loss.
BEST = replace(
    MODERN,
    name="best",
    summary="modern with stronger augmentation and weight decay, for 200 epochs",
    jitter=0.0,
    trivial_augment=True,
    dense=each(MODERN.dense, stddev=0.005),
    weight_decay=0.005,
    epochs=200,
    rationale={
        **MODERN.rationale,
        "jitter": "TrivialAugment changes colors too",
        "trivial_augment": "Müller and Hutter 2021; measured with the decay: a lower loss after 200 epochs",
        "stddev": "Caffe, train_val.prototxt: 0.005 in fc6 and fc7; measured: less noise is left in them",
        "weight_decay": "Measured: a point, alone at 60 epochs and with the others at 200, one seed each",
        "epochs": "Measured: one to two points more than 90 epochs have, crops of 112",
    },
)

DEFAULT = MODERN.name  # the most accurate on small data sets
RECIPES = {
    recipe.name: recipe for recipe in (PAPER, MODERN, BEST, LITERAL, RELEASED, CAFFE, NOTEBOOK)
}


def choose(kind: str, name: str, choices: dict[str, Any]) -> Any:
    """Return the choice of that name; raises `UsageError` that lists the names there are."""
    if name in choices:
        return choices[name]
    nearest = get_close_matches(name.lower(), choices, n=1, cutoff=0.7)
    advice = f"did you mean {nearest[0]}? Choose from" if nearest else "choose from"
    raise UsageError(f"no {kind} named {name[:60]!r}: {advice} {', '.join(choices)}")


def find_recipe(name: str) -> Recipe:
    """Return the recipe of that name; raises `UsageError` that lists the names there are."""
    recipe: Recipe = choose("recipe", name, RECIPES)
    return recipe
