"""Answers to names that do not exist: the new name of an old one, or the likely one."""

from __future__ import annotations

from collections.abc import Iterable

from alexnet_cli.errors import UsageError
from alexnet_cli.recipes.old_names import HYPERPARAMETERS, VARIANTS

# Options of earlier versions → today's.
RENAMED = {
    "--form": "--quantize",
    "--none-below": "--threshold",
    "--workers": "--hosts",
    "--worker": "--rank",
    "--licence": "--license",
    "--neighbours": "--neighbors",
}

# What other programs call it → ours; edit distance would suggest --recipe for --device.
ALIASES = {
    "--lr": "--learning-rate",
    "--rate": "--learning-rate",
    "--batch": "--batch-size",
    "--bs": "--batch-size",
    "--epoch": "--epochs",
    "--device": "--gpus",
    "--devices": "--gpus",
    "--gpu": "--gpus",
    "--cpu": "--gpus",
    "--cuda": "--gpus",
    "--dtype": "--precision",
    "--fp16": "--precision",
    "--amp": "--precision",
    "--pretrained": "--weights",
    "--init": "--weights",
    "--config": "--recipe",
    "--checkpoint": "--model",
    "--run": "--model",
    "--weights": "--model",
    "--topk": "--top",
    "--top-k": "--top",
    "--output": "--out",
    "--output-dir": "--out",
    "--out-dir": "--out",
    "--overwrite": "--force",
    "--html": "--report",
    "--tta": "--ten-crop",
}


def hint(option: str, known: set[str], similar: list[str]) -> str:
    """Return what to write in place of `option`, among the options `known` to the command."""
    if RENAMED.get(option) in known:
        return f"It is now {RENAMED[option]}."
    if ALIASES.get(option) in known:
        similar = [ALIASES[option]]
    likely = [name for name in similar if name in known and name != "--help"]
    return f"Did you mean {' or '.join(likely)}?" if likely else ""


def reject_old_names(variants: Iterable[str], settings: Iterable[str]) -> None:
    """Raise `UsageError` with the new name for a variant or hyperparameter by its old name."""
    for variant in variants:
        if variant in VARIANTS:
            raise UsageError(f"is now {VARIANTS[variant]}", argument="variants", value=variant)
    for setting in settings:
        name = setting.partition("=")[0].strip()
        layer, dot, last = name.rpartition(".")
        if last in HYPERPARAMETERS:
            new = f"{layer}{dot}{HYPERPARAMETERS[last]}"
            raise UsageError(f"is now {new}", argument="settings", value=name)
