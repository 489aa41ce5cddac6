"""Changes to a recipe: what the paper compared itself with, and constants set by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any

from alexnet_cli.errors import UsageError
from alexnet_cli.recipes.hyperparameters import Conv, Dense, Recipe, differing_hyperparameters
from alexnet_cli.recipes.presets import choose, each, hidden_biases


def _without(recipe: Recipe, step: str) -> dict[str, Any]:
    kept = (tuple(name for name in conv.post_ops if name != step) for conv in recipe.convs)
    return {"convs": tuple(replace(c, post_ops=then) for c, then in zip(recipe.convs, kept))}


def _tanh(recipe: Recipe) -> dict[str, Any]:
    thens = (tuple("tanh" if s == "relu" else s for s in conv.post_ops) for conv in recipe.convs)
    convs = tuple(replace(c, post_ops=then) for c, then in zip(recipe.convs, thens))
    return {"convs": convs, "dense": each(recipe.dense, activation="tanh")}


def _one_tower(recipe: Recipe) -> dict[str, Any]:
    *halved, last = recipe.convs
    convs = tuple(replace(conv, filters=conv.filters // 2, towers=1) for conv in halved)
    return {"convs": (*convs, replace(last, towers=1))}


def _sixth(last: Conv) -> Conv:
    then = tuple(step for step in last.post_ops if step in ("relu", "tanh"))
    return replace(last, kernel=3, post_ops=then)


def _remove_conv(number: int) -> Callable[[Recipe], dict[str, Any]]:
    return lambda recipe: {"convs": recipe.convs[: number - 1] + recipe.convs[number:]}


VARIANTS: dict[str, tuple[str, Callable[[Recipe], dict[str, Any]]]] = {
    "no-lrn": ("no response normalization (§3.3)", lambda r: _without(r, "lrn")),
    "no-overlap": ("pooling with z = s = 2 (§3.4)", lambda r: {"pool_size": 2}),
    "tanh": ("tanh in place of ReLU (§3.1, Figure 1)", _tanh),
    "no-dropout": ("no dropout (§4.2)", lambda r: {"dense": each(r.dense, dropout=0.0)}),
    "one-tower": ("one tower of half the kernels, but in the last (§3.2)", _one_tower),
    "no-color-noise": ("no color noise (§4.1)", lambda r: {"color_noise": 0.0}),
    "no-conv3": ("the third convolution removed (§7)", _remove_conv(3)),
    "no-conv4": ("the fourth convolution removed (§7)", _remove_conv(4)),
    "sixth-conv": (
        "a convolution more after the last pooling (§6)",
        lambda r: {"convs": (*r.convs, _sixth(r.convs[-1]))},
    ),
    "biases-0.1": ("hidden biases start at 0.1 (Caffe)", lambda r: hidden_biases(r, 0.1)),
    "biases-1": ("hidden biases start at 1 (§5)", lambda r: hidden_biases(r, 1.0)),
}


def vary(recipe: Recipe, variant: str) -> Recipe:
    """Return `recipe` with one of `VARIANTS`; raises `UsageError` that lists them."""
    summary, change = choose("variant", variant, VARIANTS)
    varied = replace(recipe, **change(recipe))
    named = dict.fromkeys(
        differing_hyperparameters(recipe, varied), f"variant {variant}: {summary}"
    )
    return replace(varied, name=f"{recipe.name}+{variant}", rationale={**recipe.rationale, **named})


def build_recipe(recipe: Recipe, variants: Iterable[str], settings: Iterable[str]) -> Recipe:
    """Vary a recipe, and override its constants by `NAME=VALUE`."""
    # Once each. A sixth convolution is like the last as all others have left it, and conv3 goes at
    # the end, as the layers behind it are numbered anew.
    last = {"sixth-conv": 1, "no-conv3": 2}
    for variant in sorted(dict.fromkeys(variants), key=lambda name: last.get(name, 0)):
        recipe = vary(recipe, variant)
    pairs = [setting.partition("=") for setting in settings]
    for constant, equals, _ in pairs:
        if not equals:
            raise UsageError(f"--set {constant}: write it as NAME=VALUE")
    return override(recipe, {constant.strip(): value.strip() for constant, _, value in pairs})


def override(recipe: Recipe, settings: dict[str, str]) -> Recipe:
    """Set constants by name: `{"learning_rate": "0.02", "conv2.bias": "1", "drop_at": "0.5,0.8"}`.

    Raises `UsageError` for a name or a value that a recipe can't have.
    """
    for name, text in settings.items():
        layer_name, _, constant = name.rpartition(".")
        layers = recipe.layers()
        if layer_name and layer_name not in layers:
            raise UsageError(f"{name}: no such layer: choose from {', '.join(layers)}")
        owner: Any = layers[layer_name] if layer_name else recipe
        known = {f.name: f for f in fields(owner) if f.metadata}
        if constant not in known:
            raise UsageError(f"{name}: no such constant: choose from {', '.join(known)}")
        try:
            changed = replace(owner, **{constant: known[constant].metadata["parse"](text)})
        except ValueError as error:
            raise UsageError(f"{name} {text}: must be {error}") from None
        if layer_name:
            layers[layer_name] = changed
            convs = tuple(layer for layer in layers.values() if isinstance(layer, Conv))
            dense = tuple(layer for layer in layers.values() if isinstance(layer, Dense))
            changed = replace(recipe, convs=convs, dense=dense)
        recipe = replace(changed, rationale={**recipe.rationale, name: "set on the command line"})
    try:
        recipe.require_sound()
    except ValueError as error:
        raise UsageError(str(error)) from None
    return recipe
