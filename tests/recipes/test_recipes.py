"""The recipes against the paper and the notebook, constant by constant, and their way to JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.recipes import paper_comparison
from alexnet_cli.recipes.hyperparameters import Recipe, hyperparameter_values
from alexnet_cli.recipes.presets import (
    CAFFE,
    LITERAL,
    MODERN,
    NOTEBOOK,
    PAPER,
    RECIPES,
    RELEASED,
    find_recipe,
)
from alexnet_cli.recipes.variants import VARIANTS, build_recipe, override, vary

GLOROT = None


def conv(filters, kernel, stride, towers, bias, stddev, then):
    """A convolution as `to_json` writes it."""
    return {
        "filters": filters,
        "kernel": kernel,
        "stride": stride,
        "towers": towers,
        "bias": bias,
        "stddev": stddev,
        "post_ops": tuple(then.split()),
    }


def dense(bias, stddev):
    """fc6 or fc7; both sources have 4096 units, and dropout of a half (§4.2)."""
    return {"units": 4096, "activation": "relu", "bias": bias, "stddev": stddev, "dropout": 0.5}


def papers_network(ones):
    """Figure 2 and §3.5, N(0, 0.01) weights (§5), and `ones` where the paper's biases are 1."""
    return {
        "convs": (
            conv(96, 11, 4, 1, 0.0, 0.01, "relu lrn pool"),  # LRN "after applying the ReLU" (§3.3)
            conv(256, 5, 1, 2, ones, 0.01, "relu lrn pool"),
            conv(384, 3, 1, 1, 0.0, 0.01, "relu"),
            conv(384, 3, 1, 2, ones, 0.01, "relu"),
            conv(256, 3, 1, 2, ones, 0.01, "relu pool"),
        ),
        "dense": (dense(ones, 0.01), dense(ones, 0.01)),
        "output_stddev": 0.01,
    }


PAPERS_CONSTANTS = {
    # §2: the shorter side to 256, center 256×256, minus the mean of each pixel; values stay 0–255
    "resize_size": 256,
    "stretch": False,
    "mean": "image",
    "scale": 1.0,
    # §4.1: random 224×224 crops, reflections, α ~ N(0, 0.1)
    "crop_size": 224,
    "flip": True,
    "shared_crop": 1,
    "color_noise": 0.1,
    "noise_divisor": 1.0,
    "noise_until": 1.0,
    # §3.3
    "lrn_k": 2.0,
    "lrn_n": 5,
    "lrn_alpha": 1e-4,
    "lrn_beta": 0.75,
    # §3.4: z = 3, s = 2
    "pool_size": 3,
    "pool_stride": 2,
    # §5: the rate divided by 10 three times, "roughly 90 cycles"
    "batch_size": 128,
    "epochs": 90,
    "learning_rate": 0.01,
    "momentum": 0.9,
    "weight_decay": 0.0005,
    "bias_rate": 1.0,
    "rate_drop": 10.0,
    "rate_drops": 3,
    "drop_at": (),
    "slow_from": 1.0,
    "freeze_from": 1.0,
    # what the paper does not have
    "crop_area": None,
    "jitter": 0.0,
    "kmeans_init": False,
    "rotation": 0.0,
    "cutmix": 0.0,
    "label_smoothing": 0.0,
    "balance": False,
    "warmup": 0.0,
    "cosine": False,
    "patience": 12,  # ours: the authors judged by eye
}

NOTEBOOKS_CONSTANTS = {
    "resize_size": 227,
    "stretch": True,  # the whole image, with no crop, mean, flip or color noise; ÷ 255
    "crop_size": 227,
    "mean": "none",
    "scale": 1 / 255,
    "flip": False,
    "color_noise": 0.0,
    "convs": (
        conv(96, 11, 4, 1, 0.0, GLOROT, "relu batch_norm pool"),
        conv(256, 5, 1, 1, 0.0, GLOROT, "relu batch_norm pool"),
        conv(384, 3, 1, 1, 0.0, GLOROT, "relu"),
        conv(384, 3, 1, 1, 0.0, GLOROT, "relu"),
        conv(256, 3, 1, 1, 0.0, GLOROT, "relu pool"),
    ),
    "dense": (dense(0.0, GLOROT), dense(0.0, GLOROT)),
    "output_stddev": GLOROT,
    "pool_size": 3,
    "pool_stride": 2,
    "batch_size": 32,
    "epochs": 50,
    "learning_rate": 0.001,  # plain SGD at a fixed rate
    "momentum": 0.0,
    "weight_decay": 0.0,
    "rate_drops": 0,
}


# What the released code does otherwise (paper-facts of layers-145.cfg, layer-params-145.cfg,
# convdata_jpeg.py and layer.py).
RELEASEDS_CONSTANTS = {
    "convs": (
        conv(96, 11, 4, 1, 0.0, 0.01, "lrn pool relu"),
        conv(256, 5, 1, 2, 1.0, 0.01, "relu lrn lrn pool"),
        conv(384, 3, 1, 1, 0.0, 0.03, "relu"),
        conv(384, 3, 1, 2, 1.0, 0.03, "relu"),
        conv(256, 3, 1, 2, 1.0, 0.03, "pool relu"),
    ),
    "mean": "center",
    "shared_crop": 32,
    "noise_divisor": 1.1,
    "noise_until": 66 / 91,
    "lrn_alpha": 2e-5,
    "epochs": 91,
    "bias_rate": 2.0,
    "drop_at": (25 / 91, 51 / 91, 79 / 91),
    "slow_from": 66 / 91,
    "freeze_from": 75 / 91,
}

CAFFES_CONSTANTS = {  # train_val.prototxt, solver.prototxt
    "dense": (dense(0.1, 0.005), dense(0.1, 0.005)),
    "crop_size": 227,
    "color_noise": 0.0,
    "lrn_k": 1.0,
    "lrn_alpha": 2e-5,
    "batch_size": 256,
    "bias_rate": 2.0,
    "drop_at": (100 / 450, 200 / 450, 300 / 450, 400 / 450),
}


MODERNS_CONSTANTS = {  # the network is the paper's to the weight
    "stretch": True,
    "mean": "channel",
    "crop_area": 0.35,
    "jitter": 0.3,
    "kmeans_init": True,
    "cutmix": 0.3,
    "batch_size": 32,
    "learning_rate": 0.005,
    "label_smoothing": 0.1,
    "warmup": 0.05,
    "cosine": True,
    "rate_drops": 0,
}


def data(recipe: Recipe) -> dict:
    """All of `recipe` but what describes it."""
    plain = recipe.to_json()
    return {name: plain[name] for name in plain.keys() - {"name", "summary", "rationale"}}


def test_the_defaults_are_the_papers():
    """Oracle: the paper; biases of 1 in conv2, conv4, conv5, fc6 and fc7, 0 elsewhere (§5)."""
    assert data(Recipe("any", "any")) == papers_network(ones=1.0) | PAPERS_CONSTANTS


def test_the_paper_recipe_deviates_in_its_biases_alone():
    """Oracle: the paper, with 0.1 for each bias of 1: the deviation that its summary states."""
    assert data(PAPER) == papers_network(ones=0.1) | PAPERS_CONSTANTS
    assert "biases start at 0.1" in PAPER.summary


def test_the_notebook_recipe_is_the_notebook():
    """Oracle: the notebook; the rest of the constants has no use without LRN and rate drops."""
    found = data(NOTEBOOK)
    unused = {"lrn_k", "lrn_n", "lrn_alpha", "lrn_beta", "rate_drop", "patience", "bias_rate"}
    unused |= {
        "crop_area",
        "jitter",
        "kmeans_init",
        "rotation",
        "cutmix",
        "label_smoothing",
        "balance",
        "warmup",
        "cosine",
    }
    unused |= {"shared_crop", "noise_divisor", "noise_until", "drop_at", "slow_from", "freeze_from"}
    assert {name: found[name] for name in found.keys() - unused} == NOTEBOOKS_CONSTANTS


@pytest.mark.parametrize(
    ("recipe", "network", "differing"),
    [
        (RELEASED, papers_network(ones=1.0), RELEASEDS_CONSTANTS),
        (CAFFE, papers_network(ones=0.1), CAFFES_CONSTANTS),
        (MODERN, papers_network(ones=0.1), MODERNS_CONSTANTS),
    ],
)
def test_a_recipe_differs_from_the_paper_where_its_source_does(recipe, network, differing):
    """Oracle: the source's constants on top of the paper's; nothing else may differ."""
    expected = network | PAPERS_CONSTANTS | differing
    found = data(recipe)
    assert found.pop("drop_at") == pytest.approx(expected.pop("drop_at"))
    assert found.pop("lrn_alpha") == pytest.approx(expected.pop("lrn_alpha"))
    assert found == expected


# The report


@pytest.mark.parametrize("recipe", [*RECIPES.values(), *(vary(PAPER, name) for name in VARIANTS)])
def test_the_report_names_each_difference_and_its_reason(recipe):
    """Oracle: the constants themselves, compared one by one."""
    papers, ours = hyperparameter_values(LITERAL), hyperparameter_values(recipe)
    points = {point.name: point for point in paper_comparison.compare(recipe)}
    assert points.keys() == papers.keys() | ours.keys()
    for name, point in points.items():
        assert point.differs == (name not in papers or papers[name] != ours.get(name))
        assert bool(point.rationale) == point.differs, name
        assert point.source.startswith("§") or point.source == "ours"


def test_the_report_in_words():
    """Oracle: the paper and Caffe's readme."""
    points = {point.name: point for point in paper_comparison.compare(PAPER)}
    assert points["conv2.bias"].paper == "1"
    assert points["conv2.bias"].recipe == "0.1"
    assert points["conv2.bias"].rationale.startswith("Caffe")
    assert sum(point.differs for point in points.values()) == 5  # conv2, conv4, conv5, fc6, fc7


# Variants


@pytest.mark.parametrize(
    ("variant", "changed"),
    [
        ("no-lrn", {"conv1.post_ops", "conv2.post_ops"}),
        ("no-overlap", {"pool_size"}),
        ("tanh", {*(f"conv{n}.then" for n in range(1, 6)), "fc6.activation", "fc7.activation"}),
        ("no-dropout", {"fc6.dropout", "fc7.dropout"}),
        ("no-color-noise", {"color_noise"}),
        ("biases-1", {f"{layer}.bias" for layer in ("conv2", "conv4", "conv5", "fc6", "fc7")}),
    ],
)
def test_a_variant_changes_what_it_says(variant, changed):
    """Oracle: the names of what the paper left out or replaced."""
    before, after = hyperparameter_values(PAPER), hyperparameter_values(vary(PAPER, variant))
    assert {name for name in before if before[name] != after[name]} == changed


def test_biases_return_to_the_letter():
    """Oracle: the paper's own network; and Caffe's biases on the released one."""
    assert vary(PAPER, "biases-1").convs == LITERAL.convs
    lowered = vary(RELEASED, "biases-0.1")
    assert [conv.bias for conv in lowered.convs] == [0, 0.1, 0, 0.1, 0.1]
    assert [conv.stddev for conv in lowered.convs] == [0.01, 0.01, 0.03, 0.03, 0.03]


# To JSON and back


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_survives_json(recipe):
    """Oracle: equality, also of what the text holds."""
    text = json.dumps(recipe.to_json())
    again = Recipe.from_json(json.loads(text))
    assert again == recipe
    assert json.dumps(again.to_json()) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(momentun=0.9), "momentun"),
        (lambda data: data["convs"][2].update(dilation=2), "dilation"),
        (lambda data: data["dense"][0].update(maxout=4), "maxout"),
        (lambda data: data.pop("name"), "name"),
        (lambda data: data.pop("convs"), "convs"),
        (lambda data: data["convs"][0].pop("kernel"), "kernel"),
        (lambda data: data.update(dense=4096), "dense: expected tuple.*Received: 4096"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_by_the_name_of_the_constant(change, message):
    """Oracle: the name of the constant that was added or taken away."""
    data = json.loads(json.dumps(PAPER.to_json()))
    change(data)
    with pytest.raises(AlexNetError, match=f"the recipe can't be read: .*{message}"):
        Recipe.from_json(data)


def test_a_recipe_from_before_a_constant_came_has_the_papers_value():
    """Oracle: the paper's: nothing turned, kernels from noise; `modern` has centroids today."""
    data = json.loads(json.dumps(MODERN.to_json()))
    del data["rotation"], data["kmeans_init"]
    assert Recipe.from_json(data) == replace(MODERN, rotation=0.0, kmeans_init=False)


# Choosing


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_found_by_name(name):
    """Oracle: the very object, under the name that `--recipe` takes."""
    assert find_recipe(name) is RECIPES[name]
    assert RECIPES[name].name == name


def test_an_unknown_name_is_answered_with_those_there_are():
    """Oracle: the names."""
    with pytest.raises(
        UsageError, match="no recipe named 'vgg': choose from paper, modern, literal"
    ):
        find_recipe("vgg")
    with pytest.raises(UsageError, match="no variant named 'no-pool': choose from no-lrn"):
        vary(PAPER, "no-pool")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("learning_rate", "0.5", 0.5),
        ("learning_rate", "1e-3", 1e-3),
        ("epochs", "3", 3),
        ("flip", "false", False),
        ("mean", "channel", "channel"),
        ("drop_at", "0.5,0.75", (0.5, 0.75)),
        ("output_stddev", "none", None),
        ("weight_decay", "0", 0.0),
        ("conv2.bias", "1", 1.0),
        ("conv1.post_ops", "lrn,pool,relu", ("lrn", "pool", "relu")),
        ("fc6.dropout", "0", 0.0),
    ],
)
def test_override_changes_what_is_given_and_nothing_else(name, text, value):
    """Oracle: the constants that differ, and the report that says who set it."""
    changed = override(CAFFE, {name: text})
    before, after = hyperparameter_values(CAFFE), hyperparameter_values(changed)
    assert {key: after[key] for key in after if after[key] != before[key]} == {name: value}
    (point,) = (point for point in paper_comparison.compare(changed) if point.name == name)
    assert point.rationale == ("set on the command line" if point.differs else "")


def test_a_recipe_is_composed_in_order():
    """Oracle: the last word counts; the name tells the variants."""
    made = build_recipe(
        PAPER, ["no-lrn", "tanh"], ["epochs=3", "epochs=4", "conv1.post_ops = relu"]
    )
    assert (made.name, made.epochs) == ("paper+no-lrn+tanh", 4)
    assert [conv.post_ops for conv in made.convs[:2]] == [("relu",), ("tanh", "pool")]


def test_variants_of_the_convolutions_may_be_combined():
    """Oracle: the paper's convolutions, left out or added by hand; their order does not matter."""
    first, second, _, _, fifth = PAPER.convs
    for variants in (["no-conv3", "no-conv4"], ["no-conv4", "no-conv3", "no-conv4"]):
        assert build_recipe(PAPER, variants, ()).convs == (first, second, fifth)
    sixth = build_recipe(PAPER, ["tanh", "sixth-conv"], ()).convs[-1]
    assert (sixth.kernel, sixth.filters, sixth.post_ops) == (3, 256, ("tanh",))
    assert build_recipe(PAPER, ["sixth-conv", "tanh"], ()).convs[-1] == sixth
    one = build_recipe(PAPER, ["sixth-conv", "one-tower"], ()).convs
    assert [(conv.filters, conv.towers) for conv in one[3:]] == [(192, 1), (256, 1), (256, 1)]
    assert build_recipe(PAPER, ["one-tower", "sixth-conv"], ()).convs == one


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs=0", "^epochs 0: must be a whole number above 0 and below 1,000,000$"),
        ("epochs=2.5", "^epochs 2.5: must be a whole number above 0 and below 1,000,000$"),
        ("learning_rate=nan", "^learning_rate nan: must be a number above 0$"),
        ("learning_rate=inf", "^learning_rate inf: must be a number above 0$"),
        ("momentum=-0.1", "^momentum -0.1: must be a number from 0 on$"),
        ("fc6.dropout=1", "^fc6.dropout 1: must be a number from 0 on and below 1$"),
        ("flip=yes", "^flip yes: must be one of true, false$"),
        ("conv1.post_ops=relu,fly", "^conv1.post_ops relu,fly: must be one of relu, tanh, lrn"),
        ("epoch=5", "^epoch: no such constant: choose from resize_size, "),
        ("name=x", "^name: no such constant"),
        ("fc6.kernel=3", "^fc6.kernel: no such constant: choose from units, "),
        ("conv9.bias=0", "^conv9.bias: no such layer: choose from conv1, "),
        ("epochs", "^--set epochs: write it as NAME=VALUE$"),
        ("crop_size=300", "^crop_size 300, resize_size 256: a crop can't be larger"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_and_named(setting, message):
    """Oracle: the name as the user types it, and the value that came."""
    with pytest.raises(UsageError, match=message):
        build_recipe(PAPER, [], [setting])
