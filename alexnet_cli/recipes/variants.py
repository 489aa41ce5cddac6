"""Changes to a recipe: variants, most of them of the paper, and hyperparameters set by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any, get_type_hints

from alexnet_cli.errors import UsageError
from alexnet_cli.recipes.hyperparameters import (
    Conv,
    Dense,
    PostOp,
    Recipe,
    differing_hyperparameters,
    hyperparameter_values,
)
from alexnet_cli.recipes.presets import choose, each, hidden_biases
from alexnet_cli.recipes.structure import check_structure
from alexnet_cli.system import strict_json


def _without(recipe: Recipe, post_op: PostOp) -> dict[str, Any]:
    kept = [tuple(op for op in conv.post_ops if op != post_op) for conv in recipe.convs]
    return {"convs": _with_post_ops(recipe, kept)}


def _with_post_ops(recipe: Recipe, post_ops: Iterable[tuple[PostOp, ...]]) -> tuple[Conv, ...]:
    return tuple(replace(conv, post_ops=ops) for conv, ops in zip(recipe.convs, post_ops))


def _tanh(recipe: Recipe) -> dict[str, Any]:
    changed: list[tuple[PostOp, ...]] = [
        tuple("tanh" if op == "relu" else op for op in conv.post_ops) for conv in recipe.convs
    ]
    dense = each(recipe.dense, activation="tanh")
    return {"convs": _with_post_ops(recipe, changed), "dense": dense}


def _one_tower(recipe: Recipe) -> dict[str, Any]:
    *halved, last = recipe.convs
    convs = tuple(replace(conv, filters=conv.filters // 2, towers=1) for conv in halved)
    return {"convs": (*convs, replace(last, towers=1))}


def _sixth(last: Conv) -> Conv:
    activations = tuple(op for op in last.post_ops if op in ("relu", "tanh"))
    return replace(last, kernel=3, post_ops=activations)


def _half_size(recipe: Recipe) -> dict[str, Any]:
    return {"resize_size": recipe.resize_size // 2, "crop_size": recipe.crop_size // 2}


def _finetune(recipe: Recipe) -> dict[str, Any]:
    batch_size = min(recipe.batch_size, 32)
    return {
        "trivial_augment": True,
        "jitter": 0.0,
        "batch_size": batch_size,
        "learning_rate": recipe.learning_rate * (batch_size / recipe.batch_size),
    }


def _remove_conv(number: int) -> Callable[[Recipe], dict[str, Any]]:
    return lambda recipe: {"convs": recipe.convs[: number - 1] + recipe.convs[number:]}


FINETUNE = "finetune"  # api/runs takes it for trainings from other weights, if no recipe is named
VARIANTS: dict[str, tuple[str, Callable[[Recipe], dict[str, Any]]]] = {
    "no-lrn": ("without local response normalization (§3.3)", lambda r: _without(r, "lrn")),
    "no-overlap": ("pooling that does not overlap, z = s = 2 (§3.4)", lambda r: {"pool_size": 2}),
    "tanh": ("tanh instead of ReLU (§3.1, Figure 1)", _tanh),
    "no-dropout": ("without dropout (§4.2)", lambda r: {"dense": each(r.dense, dropout=0.0)}),
    "one-tower": ("one tower; kernels halved except in the last convolution (§3.2)", _one_tower),
    "no-color-noise": ("without color noise (§4.1)", lambda r: {"color_noise": 0.0}),
    "no-conv3": ("without the third convolution (§7)", _remove_conv(3)),
    "no-conv4": ("without the fourth convolution (§7)", _remove_conv(4)),
    "sixth-conv": (
        "a sixth convolution after the last pooling (§6)",
        lambda r: {"convs": (*r.convs, _sixth(r.convs[-1]))},
    ),
    "biases-0.1": ("initial hidden biases of 0.1 (Caffe)", lambda r: hidden_biases(r, 0.1)),
    "half-size": ("images and crops of half the size: a quarter of the arithmetic", _half_size),
    FINETUNE: (
        "to start from other weights: TrivialAugment, no jitter, batches of 32 or fewer",
        _finetune,
    ),
    "biases-1": ("initial hidden biases of 1 (§5)", lambda r: hidden_biases(r, 1.0)),
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
    """Return `recipe` with variants, each at most once, and with settings `NAME=VALUE`.

    Raises `UsageError`.
    """
    # The sixth convolution copies the last one, which other variants may change. Removing conv3
    # renumbers the convolutions behind it, so that comes at the end.
    last = {"sixth-conv": 1, "no-conv3": 2}
    for variant in sorted(dict.fromkeys(variants), key=lambda name: last.get(name, 0)):
        recipe = vary(recipe, variant)
    return override(recipe, dict(map(_split_setting, settings)))


def _split_setting(setting: str) -> tuple[str, str]:
    name, equals, value = (part.strip() for part in setting.partition("="))
    if not name or not equals:
        missing = "value" if name else "name"
        reason = f"the {missing} is missing. Write NAME=VALUE, as in epochs=30"
        raise UsageError(reason, argument="settings", value=setting)
    return name, value


def override(recipe: Recipe, settings: Mapping[str, str]) -> Recipe:
    """Return `recipe` with hyperparameters set by name, their values written as after `--set`.

    `{"learning_rate": "0.02", "conv2.bias": "1", "drop_at": "0.5,0.8", "output_stddev": "none"}`.
    Raises `UsageError` for an unknown name, a value out of bounds, and hyperparameters that do not
    fit each other, which is checked after all of them are set.
    """
    for name, text in settings.items():
        recipe = _set(recipe, name, text)
    try:
        check_structure(recipe)
    except ValueError as error:
        involved = [name for name in settings if name in str(error)] or list(settings)
        if not involved:
            raise UsageError(f"recipe {recipe.name}: {error}") from None
        shown = ", ".join(f"{name}={settings[name]}" for name in involved)
        raise UsageError(str(error), argument="settings", value=shown) from None
    return recipe


def _set(recipe: Recipe, name: str, text: str) -> Recipe:
    if name not in hyperparameter_values(recipe):
        raise UsageError(_unknown(recipe, name), argument="settings", value=f"{name}={text}")
    layer_name, _, field_name = name.rpartition(".")
    layers = recipe.layers()
    owner: Conv | Dense | Recipe = layers[layer_name] if layer_name else recipe
    try:
        value = _parse_value(type(owner), field_name, text)
    except strict_json.FieldError as error:
        raise UsageError(error.reason, argument="settings", value=f"{name}={text}") from None
    changed: Any = replace(owner, **{field_name: value})
    if layer_name:
        layers[layer_name] = changed
        convs = tuple(layer for layer in layers.values() if isinstance(layer, Conv))
        dense = tuple(layer for layer in layers.values() if isinstance(layer, Dense))
        changed = replace(recipe, convs=convs, dense=dense)
    rationale = {**recipe.rationale, name: "set by the user"}
    result: Recipe = replace(changed, rationale=rationale)
    return result


# Common short forms, which are not spelled like what they stand for.
_SHORT = {"lr": "learning_rate", "rate": "learning_rate", "bs": "batch_size", "wd": "weight_decay"}


def _unknown(recipe: Recipe, name: str) -> str:
    names = list(hyperparameter_values(recipe))
    of_a_layer = [known for known in names if known.endswith(f".{name}")]
    nearest = [_SHORT[name]] if name in _SHORT else of_a_layer or get_close_matches(name, names)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    return f"unknown hyperparameter.{hint} alexnet recipes NAME lists all."


def _parse_value(owner: type[Any], field_name: str, text: str) -> Any:
    """Return the value that `text` stands for; raises `FieldError` unless the field can hold it."""
    default = next(f.default for f in fields(owner) if f.name == field_name)
    value: Any = text
    if isinstance(default, tuple):
        value = [_plain(part) for part in text.split(",") if part]
    elif not isinstance(default, str):  # a word such as `none` is the text itself
        value = _plain(text)
    hint = get_type_hints(owner, include_extras=True)[field_name]
    return strict_json.parse(hint, value)


def _plain(text: str) -> Any:
    """Return what JSON has for `text`: a number, true, false or null; otherwise the text."""
    words = {"true": True, "false": False, "none": None}
    if text in words:
        return words[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
