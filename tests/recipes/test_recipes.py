"""The recipes against their sources, hyperparameter by hyperparameter; JSON; variants and `--set`."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace

import pytest

from alexnet_cli.errors import UsageError
from alexnet_cli.recipes import paper_comparison
from alexnet_cli.recipes.hyperparameters import Recipe, format_value, hyperparameter_values
from alexnet_cli.recipes.presets import (
    BEST,
    CAFFE,
    LITERAL,
    MODERN,
    NOTEBOOK,
    PAPER,
    RECIPES,
    RELEASED,
    find_recipe,
)
from alexnet_cli.recipes.structure import check_structure, layer_sizes
from alexnet_cli.recipes.variants import VARIANTS, build_recipe, override, vary
from alexnet_cli.system import strict_json

GLOROT = None


def conv(filters, kernel, stride, towers, bias, stddev, post_ops):
    """A convolution as plain data."""
    return {
        "filters": filters,
        "kernel": kernel,
        "stride": stride,
        "towers": towers,
        "bias": bias,
        "stddev": stddev,
        "post_ops": tuple(post_ops.split()),
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


PAPER_VALUES = {
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
    "trivial_augment": False,
    "kmeans_init": False,
    "rotation": 0.0,
    "cutmix": 0.0,
    "label_smoothing": 0.0,
    "temperature_scaling": False,
    "balance": False,
    "warmup": 0.0,
    "cosine": False,
    "patience": 12,  # ours: the authors judged by eye
}

NOTEBOOK_VALUES = {
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
    "temperature_scaling": False,
}


# What the released code does otherwise (paper-facts of layers-145.cfg, layer-params-145.cfg,
# convdata_jpeg.py and layer.py).
RELEASED_VALUES = {
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

CAFFE_VALUES = {  # train_val.prototxt, solver.prototxt
    "dense": (dense(0.1, 0.005), dense(0.1, 0.005)),
    "crop_size": 227,
    "color_noise": 0.0,
    "lrn_k": 1.0,
    "lrn_alpha": 2e-5,
    "batch_size": 256,
    "bias_rate": 2.0,
    "drop_at": (100 / 450, 200 / 450, 300 / 450, 400 / 450),
}


MODERN_VALUES = {  # the network is the paper's to the weight
    "stretch": True,
    "mean": "channel",
    "crop_area": 0.35,
    "jitter": 0.3,
    "kmeans_init": True,
    "cutmix": 0.3,
    "batch_size": 32,
    "learning_rate": 0.005,
    "label_smoothing": 0.1,
    "temperature_scaling": True,
    "warmup": 0.05,
    "cosine": True,
    "rate_drops": 0,
}

BEST_VALUES = MODERN_VALUES | {  # what gained at 60 epochs by itself, and 200 epochs
    "jitter": 0.0,
    "trivial_augment": True,
    "dense": (dense(0.1, 0.005), dense(0.1, 0.005)),
    "weight_decay": 0.005,
    "epochs": 200,
}


def data(recipe: Recipe) -> dict:
    """All of `recipe` but what describes it."""
    plain = asdict(recipe)
    return {name: plain[name] for name in plain.keys() - {"name", "summary", "rationale"}}


def test_the_defaults_are_the_papers():
    """Oracle: the paper; biases of 1 in conv2, conv4, conv5, fc6 and fc7, 0 elsewhere (§5)."""
    assert data(Recipe("any", "any")) == papers_network(ones=1.0) | PAPER_VALUES


def test_the_paper_recipe_deviates_in_its_biases_alone():
    """Oracle: the paper, with 0.1 for each bias of 1: the deviation that its summary states."""
    assert data(PAPER) == papers_network(ones=0.1) | PAPER_VALUES
    assert "biases start at 0.1" in PAPER.summary


def test_the_notebook_recipe_is_the_notebook():
    """Oracle: the notebook; the other hyperparameters have no effect without LRN and rate drops."""
    found = data(NOTEBOOK)
    unused = {"lrn_k", "lrn_n", "lrn_alpha", "lrn_beta", "rate_drop", "patience", "bias_rate"}
    unused |= {
        "crop_area",
        "jitter",
        "trivial_augment",
        "kmeans_init",
        "rotation",
        "cutmix",
        "label_smoothing",
        "balance",
        "warmup",
        "cosine",
    }
    unused |= {"shared_crop", "noise_divisor", "noise_until", "drop_at", "slow_from", "freeze_from"}
    assert {name: found[name] for name in found.keys() - unused} == NOTEBOOK_VALUES


@pytest.mark.parametrize(
    ("recipe", "network", "differing"),
    [
        (RELEASED, papers_network(ones=1.0), RELEASED_VALUES),
        (CAFFE, papers_network(ones=0.1), CAFFE_VALUES),
        (MODERN, papers_network(ones=0.1), MODERN_VALUES),
        (BEST, papers_network(ones=0.1), BEST_VALUES),
    ],
)
def test_a_recipe_differs_from_the_paper_where_its_source_does(recipe, network, differing):
    """Oracle: the values of the source in place of the paper's; nothing else may differ."""
    expected = network | PAPER_VALUES | differing
    found = data(recipe)
    assert found.pop("drop_at") == pytest.approx(expected.pop("drop_at"))
    assert found.pop("lrn_alpha") == pytest.approx(expected.pop("lrn_alpha"))
    assert found == expected


# The comparison with the paper


@pytest.mark.parametrize("recipe", [*RECIPES.values(), *(vary(PAPER, name) for name in VARIANTS)])
def test_the_comparison_gives_a_reason_for_each_difference(recipe):
    """Oracle: the values themselves, compared one by one."""
    papers, ours = hyperparameter_values(LITERAL), hyperparameter_values(recipe)
    points = {point.name: point for point in paper_comparison.compare(recipe)}
    assert points.keys() == papers.keys() | ours.keys()
    for name, point in points.items():
        assert point.differs == (name not in papers or papers[name] != ours.get(name))
        assert bool(point.rationale) == point.differs, name
        assert point.source.startswith("§") or point.source in ("ours", "not in the paper")


def test_no_section_is_cited_for_what_the_paper_does_not_have():
    """Oracle: the paper's sections 2 to 5, read for each hyperparameter."""
    absent = {
        *("crop_area", "jitter", "trivial_augment", "rotation", "cutmix", "shared_crop"),
        *("noise_divisor", "noise_until", "kmeans_init", "balance", "label_smoothing"),
        *("temperature_scaling", "warmup", "cosine", "slow_from", "freeze_from"),
    }
    points = paper_comparison.compare(find_recipe("modern"))
    assert {point.name for point in points if point.source == "not in the paper"} == absent
    table = paper_comparison.as_markdown(find_recipe("modern"))
    assert "| share of images mixed by CutMix | 0 | not in the paper | **0.3** |" in table


def test_the_comparison_of_the_paper_recipe():
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
        ("tanh", {*(f"conv{n}.post_ops" for n in range(1, 6)), "fc6.activation", "fc7.activation"}),
        ("no-dropout", {"fc6.dropout", "fc7.dropout"}),
        ("no-color-noise", {"color_noise"}),
        ("half-size", {"resize_size", "crop_size"}),
        ("finetune", {"trivial_augment", "batch_size", "learning_rate"}),
        ("biases-1", {f"{layer}.bias" for layer in ("conv2", "conv4", "conv5", "fc6", "fc7")}),
    ],
)
def test_a_variant_changes_the_hyperparameters_of_its_name(variant, changed):
    """Oracle: the names of what the paper left out or replaced."""
    before, after = hyperparameter_values(PAPER), hyperparameter_values(vary(PAPER, variant))
    assert {name for name in before if before[name] != after[name]} == changed


@pytest.mark.parametrize(
    ("recipe", "sizes"),
    [
        (PAPER, (128, 112)),
        (MODERN, (128, 112)),
        (LITERAL, (128, 112)),
        (RELEASED, (128, 112)),
        (CAFFE, (128, 113)),
        (NOTEBOOK, (113, 113)),
    ],
)
def test_half_size_halves_the_images_of_every_recipe(recipe, sizes):
    """Oracle: half of 256, 224 and 227, rounded down; where crops were whole images, they still are.

    By hand, a crop of 112 or 113 becomes 27 after conv1, then 13 and 6, and 2 after conv5: fc6 sees
    2×2×256, and all other weights are as many as before.
    """
    half = build_recipe(recipe, ["half-size"], [])
    assert (half.resize_size, half.crop_size) == sizes
    full = dict(zip(recipe.layers(), layer_sizes(recipe, 5)))
    for layer, size in zip(half.layers(), layer_sizes(half, 5)):
        assert size.kernel == ((1024, 4096) if layer == "fc6" else full[layer].kernel)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_finetuning_learns_from_few_images_at_the_same_rate_per_image(recipe):
    """Oracle: 32 images or fewer a step, and the recipe's rate for each of them."""
    tuned = vary(recipe, "finetune")
    assert tuned.batch_size == 32
    assert tuned.learning_rate / 32 == pytest.approx(recipe.learning_rate / recipe.batch_size)
    assert (tuned.trivial_augment, tuned.jitter) == (True, 0.0)
    assert vary(replace(recipe, batch_size=4), "finetune").batch_size == 4


def test_bias_variants_restore_the_papers_biases_and_caffes():
    """Oracle: the paper's own network; and Caffe's biases on the released one."""
    assert vary(PAPER, "biases-1").convs == LITERAL.convs
    lowered = vary(RELEASED, "biases-0.1")
    assert [conv.bias for conv in lowered.convs] == [0, 0.1, 0, 0.1, 0.1]
    assert [conv.stddev for conv in lowered.convs] == [0.01, 0.01, 0.03, 0.03, 0.03]


# To JSON and back


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_survives_json(recipe):
    """Oracle: equality, also of what the text holds."""
    text = json.dumps(asdict(recipe))
    again = strict_json.parse(Recipe, text.encode())
    assert again == recipe
    assert hash(again) == hash(recipe)
    assert json.dumps(asdict(again)) == text


@pytest.mark.parametrize("path", ["", "convs.1.", "dense.0."])
def test_no_default_stands_in_for_a_missing_hyperparameter(path):
    """Oracle: every field of the class, taken away one at a time; the error begins with its path."""
    names = [
        f.name for f in fields({"": PAPER, "convs.1.": PAPER.convs[1]}.get(path, PAPER.dense[0]))
    ]
    assert len(names) >= 5
    for name in names:
        plain = json.loads(json.dumps(asdict(PAPER)))
        owner = {"": plain, "convs.1.": plain["convs"][1]}.get(path, plain["dense"][0])
        del owner[name]
        with pytest.raises(ValueError, match=f"^{path}{name}: is missing$"):
            strict_json.parse(Recipe, plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(momentun=0.9), "momentun: is unknown"),
        (lambda data: data["convs"][2].update(dilation=2), "convs.2.dilation: is unknown"),
        (lambda data: data["dense"][0].update(maxout=4), "dense.0.maxout: is unknown"),
        (lambda data: data.update(dense=4096), "dense: must be a list. Received: 4096"),
        (lambda data: data.update(convs=[3]), "convs.0: must be an object. Received: 3"),
        (
            lambda data: data["convs"][1].update(filters=0),
            "convs.1.filters: must be 1 or more. Received: 0",
        ),
        (
            lambda data: data.update(epochs=10**26),
            "epochs: must be less than 1,000,000. Received: 1000",
        ),
        (lambda data: data.update(epochs=3.0), "epochs: must be a whole number. Received: 3.0"),
        (lambda data: data.update(flip=1), "flip: must be true or false. Received: 1"),
        (lambda data: data.update(momentum=True), "momentum: must be a number. Received: True"),
        (lambda data: data.update(summary=None), "summary: must be text. Received: None"),
        (
            lambda data: data.update(mean="x"),
            "mean: must be 'image', 'center', 'channel' or 'none'",
        ),
        (lambda data: data.update(drop_at=[0.5, 1]), "drop_at.1: must be less than 1. Received: 1"),
        (lambda data: data.update(rationale={"a": 1}), "rationale.a: must be text. Received: 1"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_by_the_path_of_the_field(change, message):
    """Oracle: the field that was added or changed, and the value that it got."""
    plain = json.loads(json.dumps(asdict(PAPER)))
    change(plain)
    with pytest.raises(ValueError, match=f"^{message}") as refused:
        strict_json.parse(Recipe, plain)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_value_of_a_recipe_can_be_set(recipe):
    """Oracle: the recipe itself, each of its values written as `--set` takes it."""
    values = hyperparameter_values(recipe)
    again = override(recipe, {name: format_value(value) for name, value in values.items()})
    assert hyperparameter_values(again) == values
    assert [type(v) for v in hyperparameter_values(again).values()] == list(
        map(type, values.values())
    )


# Choosing


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_found_by_name(name):
    """Oracle: the very object, under the name that `--recipe` takes."""
    assert find_recipe(name) is RECIPES[name]
    assert RECIPES[name].name == name


def test_an_unknown_name_is_answered_with_those_there_are():
    """Oracle: the names."""
    with pytest.raises(
        UsageError, match="no recipe named 'vgg': choose from paper, modern, best, literal"
    ):
        find_recipe("vgg")
    for name, nearest in (("modrn", "modern"), ("Paper", "paper"), ("cafe", "caffe")):
        with pytest.raises(UsageError, match=f"{name}': did you mean {nearest}\\? Choose from p"):
            find_recipe(name)
    with pytest.raises(UsageError, match="'no-dropot': did you mean no-dropout\\? Choose"):
        vary(PAPER, "no-dropot")
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
        ("mean", "none", "none"),
        ("conv1.post_ops", "", ()),
        ("cutmix", "1", 1.0),
    ],
)
def test_override_changes_what_is_given_and_nothing_else(name, text, value):
    """Oracle: the hyperparameters that differ, and the reason in the comparison."""
    changed = override(CAFFE, {name: text})
    before, after = hyperparameter_values(CAFFE), hyperparameter_values(changed)
    assert {key: after[key] for key in after if after[key] != before[key]} == {name: value}
    (point,) = (point for point in paper_comparison.compare(changed) if point.name == name)
    assert point.rationale == ("set by the user" if point.differs else "")


def test_a_recipe_is_composed_in_order():
    """Oracle: the last of two settings counts; the name lists the variants."""
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
        ("epochs=0", "must be 1 or more"),
        ("epochs=1000000", "must be less than 1,000,000"),
        ("epochs=2.5", "must be a whole number"),
        ("learning_rate=nan", "must be a finite number"),
        ("learning_rate=inf", "must be a finite number"),
        ("learning_rate=0", "must be more than 0"),
        ("learning_rate=fast", "must be a number"),
        ("learning_rate=", "must be a number"),
        ("momentum=-0.1", "must be 0 or more"),
        ("cutmix=3", "must be 1 or less"),
        ("conv2.bias=-1", "must be 0 or more"),
        ("fc6.dropout=1", "must be less than 1"),
        ("resize_size=4097", "must be 4,096 or less"),
        ("conv2.towers=100", "must be less than 100"),
        ("drop_at=0.5,1", "must be less than 1"),
        ("flip=yes", "must be true or false"),
        ("flip=1", "must be true or false"),
        ("mean=none,none", "must be 'image', 'center', 'channel' or 'none'"),
        ("conv1.post_ops=relu,fly", "must be 'relu', 'tanh', 'lrn', 'batch_norm' or 'pool'"),
    ],
)
def test_a_value_out_of_bounds_is_refused(setting, message):
    """Oracle: the setting as it was typed, then the bound."""
    with pytest.raises(UsageError) as refused:
        build_recipe(PAPER, [], [setting])
    assert str(refused.value) == f"settings={setting!r}: {message}"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("learnin_rate", "learning_rate"),
        ("epoch", "epochs"),
        ("lr", "learning_rate"),
        ("wd", "weight_decay"),
        ("cnv2.bias", "conv2.bias"),
        ("conv2.bais", "conv2.bias"),
        ("fc6.drop", "fc6.dropout"),
        ("filters", "conv1.filters"),
        ("name", None),
        ("résumé", None),
    ],
)
def test_an_unknown_hyperparameter_is_answered_with_the_nearest(name, nearest):
    """Oracle: the name that was meant, and none where no name is near."""
    hint = f" Did you mean {nearest}?" if nearest else ""
    with pytest.raises(UsageError) as refused:
        build_recipe(PAPER, [], [f"{name}=1"])
    expected = f"settings='{name}=1': unknown hyperparameter.{hint} alexnet recipes NAME lists all."
    assert str(refused.value) == expected


@pytest.mark.parametrize(
    ("setting", "missing"), [("epochs", "value"), ("=3", "name"), ("=", "name"), ("", "name")]
)
def test_a_setting_without_name_or_value_is_refused(setting, missing):
    """Oracle: the part that is missing."""
    expected = f"settings={setting!r}: the {missing} is missing. Write NAME=VALUE, as in epochs=30"
    with pytest.raises(UsageError) as refused:
        build_recipe(PAPER, [], [setting])
    assert str(refused.value) == expected


STRUCTURES = {
    "crop_size=300": "crop_size must be at most resize_size, 256",
    "lrn_n=4": "lrn_n must be odd",
    "conv2.stride=2": "conv2.stride must be 1 where conv2.towers is more than 1",
    "conv2.filters=13": "conv2.filters must be divisible by conv2.towers, 2",
    "conv1.filters=97": r"conv2.towers must divide its input channels, 97 \(conv1.filters\)",
    "conv4.towers=5": "conv4.filters must be divisible by conv4.towers, 5",
    "crop_size=20": "the feature map shrinks to nothing in conv2",
    "pool_size=70": "the feature map shrinks to nothing in conv1",
    "fc6.units=900000": "the network has .* weights; at most 500,000,000",
    "conv1.filters=90000": "the network has .* outputs per image; at most 20,000,000",
    f"conv1.post_ops={'relu,' * 100}": "the network has .* layers; at most 100",
}


@pytest.mark.parametrize("setting", STRUCTURES)
def test_hyperparameters_that_do_not_fit_each_other_are_refused(setting):
    """Oracle: the setting as it was typed, and the rule that it breaks."""
    with pytest.raises(
        UsageError, match=rf"settings='.*{setting}': {STRUCTURES[setting]}"
    ) as refused:
        build_recipe(PAPER, [], ["momentum=0.5", setting])
    assert "\n" not in str(refused.value)


def test_the_structure_is_checked_once_all_settings_are_made():
    """Oracle: a larger crop that fits only with a larger image, in either order."""
    for settings in (["crop_size=300", "resize_size=320"], ["resize_size=320", "crop_size=300"]):
        assert build_recipe(PAPER, [], settings).crop_size == 300
    with pytest.raises(UsageError, match=r"^settings='conv3.filters=0.5': must be a whole number$"):
        build_recipe(PAPER, [], ["crop_size=300", "conv3.filters=0.5"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"convs": ()}, "^convs must hold at least one layer$"),
        ({"dense": ()}, "^dense must hold at least one layer$"),
        ({"convs": (replace(LITERAL.convs[0], stride=1, towers=2),)}, r"3 \(the colors\)$"),
        ({"name": "../x"}, "name must be letters"),
        ({"name": "x" * 201}, "200 at most"),
        ({"name": ""}, "name must be letters"),
    ],
)
def test_recipes_from_others_are_checked_where_set_can_not_reach(change, message):
    """Oracle: the rule that the recipe breaks."""
    with pytest.raises(ValueError, match=message):
        check_structure(replace(PAPER, **change))


@pytest.mark.parametrize("name", [*RECIPES, *VARIANTS])
def test_every_named_recipe_and_variant_fits(name):
    """Oracle: the recipes, which can all be trained; with classes enough it is too large."""
    recipe = RECIPES[name] if name in RECIPES else vary(PAPER, name)
    check_structure(recipe, 1000)
    with pytest.raises(ValueError, match="weights; at most 500,000,000"):
        check_structure(recipe, 1_000_000)
