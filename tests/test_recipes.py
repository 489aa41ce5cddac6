"""The recipes against the paper and the notebook, constant by constant, and their way to JSON."""

from __future__ import annotations

import json

import pytest

from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.recipes import NOTEBOOK, PAPER, RECIPES, Recipe, find_recipe, override

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
        "then": tuple(then.split()),
    }


def dense(bias, stddev):
    """fc6 or fc7; both sources have 4096 units, and dropout of a half (§4.2)."""
    return {"units": 4096, "bias": bias, "stddev": stddev, "dropout": 0.5}


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
    # §2: the shorter side to 256, centre 256×256, minus the mean of each pixel; values stay 0–255
    "stored_size": 256,
    "squash": False,
    "subtract": "image",
    "scale": 1.0,
    # §4.1: random 224×224 crops, reflections, α ~ N(0, 0.1)
    "crop_size": 224,
    "flip": True,
    "colour_noise": 0.1,
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
    "rate_drop": 10.0,
    "rate_drops": 3,
    "patience": 12,  # ours: the authors judged by eye
}

NOTEBOOKS_CONSTANTS = {
    "stored_size": 227,
    "squash": True,  # the whole image, with no crop, mean, flip or colour noise; ÷ 255
    "crop_size": 227,
    "subtract": "none",
    "scale": 1 / 255,
    "flip": False,
    "colour_noise": 0.0,
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


def constants(recipe: Recipe) -> dict:
    """All of `recipe` but its name and summary."""
    data = recipe.to_json()
    return {name: data[name] for name in data.keys() - {"name", "summary"}}


def test_the_defaults_are_the_papers():
    """Oracle: the paper; biases of 1 in conv2, conv4, conv5, fc6 and fc7, 0 elsewhere (§5)."""
    assert constants(Recipe("any", "any")) == papers_network(ones=1.0) | PAPERS_CONSTANTS


def test_the_paper_recipe_deviates_in_its_biases_alone():
    """Oracle: the paper, with 0.1 for each bias of 1: the deviation that its summary states."""
    assert constants(PAPER) == papers_network(ones=0.1) | PAPERS_CONSTANTS
    assert "biases start at 0.1" in PAPER.summary


def test_the_notebook_recipe_is_the_notebook():
    """Oracle: the notebook; the rest of the constants has no use without LRN and rate drops."""
    found = constants(NOTEBOOK)
    unused = {"lrn_k", "lrn_n", "lrn_alpha", "lrn_beta", "rate_drop", "patience"}
    assert {name: found[name] for name in found.keys() - unused} == NOTEBOOKS_CONSTANTS


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
        (lambda data: data.update(dense=4096), "not iterable"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_by_the_name_of_the_constant(change, message):
    """Oracle: the name of the constant that was added or taken away."""
    data = json.loads(json.dumps(PAPER.to_json()))
    change(data)
    with pytest.raises(AlexNetError, match=f"the recipe can't be read: .*{message}"):
        Recipe.from_json(data)


# Choosing


@pytest.mark.parametrize(("name", "recipe"), [("paper", PAPER), ("notebook", NOTEBOOK)])
def test_recipes_are_found_by_name(name, recipe):
    """Oracle: the very object, under the name that `--recipe` takes."""
    assert find_recipe(name) is recipe
    assert recipe.name == name


def test_an_unknown_recipe_is_answered_with_those_there_are():
    """Oracle: the two names."""
    with pytest.raises(UsageError, match="no recipe named 'vgg': choose from paper, notebook"):
        find_recipe("vgg")


def test_override_changes_what_is_given_and_nothing_else():
    """Oracle: the constants that differ; None means not given."""
    changed = override(PAPER, epochs=3, learning_rate=0.5, batch_size=None)
    before, after = PAPER.to_json(), changed.to_json()
    differing = {name: after[name] for name in after if after[name] != before[name]}
    assert differing == {"epochs": 3, "learning_rate": 0.5}
    assert override(PAPER) == PAPER


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "^--epochs 0: must be above 0 and finite$"),
        ({"batch_size": -8}, "^--batch-size -8: must be above 0 and finite$"),
        ({"learning_rate": float("nan")}, "^--learning-rate nan: must be above 0 and finite$"),
        (
            {"epochs": 5, "learning_rate": -0.01},
            "^--learning-rate -0.01: must be above 0 and finite$",
        ),
        ({"epoch": 5}, "^a recipe has no constant 'epoch'$"),
        ({"zeal": 1, "dilation": 2}, "^a recipe has no constant 'dilation'$"),
    ],
)
def test_override_refuses_nonsense_and_names_it(given, message):
    """Oracle: the option as the user types it, and the value that came."""
    with pytest.raises(UsageError, match=message):
        override(PAPER, **given)
