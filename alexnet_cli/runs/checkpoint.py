"""All that a training must find again to continue as if it had never stopped."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from alexnet_cli.errors import AlexNetError
from alexnet_cli.network.keras_network import assign, get_weights, set_weights
from alexnet_cli.runs.records import EpochRow, Finding
from alexnet_cli.runs.run_folder import RunConfig, RunFolder
from alexnet_cli.runs.weights_file import Arrays, load_notes
from alexnet_cli.system import strict_json
from alexnet_cli.training.optimizer import PaperMomentum
from alexnet_cli.training.schedule import Schedule


@dataclass(frozen=True)
class Part:
    """How far an epoch is, and its sums so far: over the images that were learned from."""

    done: int = 0
    n: int = 0  # of those done, the ones that count
    losses: float = 0.0
    hits: int = 0
    worst: float = 0.0  # loss of a batch, over the size of a full one
    seconds: float = 0.0

    def after(self, count: int, n: int, loss: float, hits: int, seconds: float, full: int) -> Part:
        """Add a batch of `count` images, `n` of which count, with their losses and the time it took.

        `full` is the size of all batches but the last of an epoch.
        """
        return Part(
            done=self.done + count,
            n=self.n + n,
            losses=self.losses + loss,
            hits=self.hits + hits,
            worst=max(self.worst, loss / full),
            seconds=self.seconds + seconds,
        )


@dataclass(frozen=True)
class CheckpointMeta:
    """What last.npz tells beside its arrays."""

    epoch: int
    planned: int  # epochs in all, which may be others than when the run began
    part: Part
    schedule: Schedule
    history: tuple[EpochRow, ...]
    findings: tuple[Finding, ...]


def read_state(run: RunFolder, config: RunConfig) -> tuple[Arrays, CheckpointMeta]:
    """Map last.npz: what `get_state` returned, and the notes beside it; raises `AlexNetError`."""
    path = run.path / "last.npz"
    arrays = run.weights(path.name, config)
    try:
        notes: CheckpointMeta = strict_json.as_type(CheckpointMeta, load_notes(arrays))
    except (ValueError, KeyError) as error:
        raise AlexNetError(f"{path}: can't be resumed: {error}") from None
    return arrays, notes


def get_state(model: keras.Model, optimizer: PaperMomentum) -> Arrays:
    """Return weights, velocities and where the draws of dropout stand, by name."""
    velocities = {name: velocity.numpy() for name, velocity in _velocities(model, optimizer)}
    seeds = {name: seed.numpy() for name, seed in _dropout_seeds(model)}
    return {**get_weights(model), **velocities, **seeds}


def set_state(model: keras.Model, optimizer: PaperMomentum, arrays: Arrays) -> None:
    """Assign what `get_state` returned; raises `ValueError` for what does not fit."""
    set_weights(model, arrays)
    for name, variable in (*_velocities(model, optimizer), *_dropout_seeds(model)):
        assign(variable, arrays, name)


def _velocities(model: keras.Model, optimizer: PaperMomentum) -> list[tuple[str, keras.Variable]]:
    pairs = zip(model.trainable_variables, optimizer.velocities)
    return [(f"velocity/{weight.path}", velocity) for weight, velocity in pairs]


def _dropout_seeds(model: keras.Model) -> list[tuple[str, keras.Variable]]:
    weights = {id(variable) for variable in model.weights}  # Keras leaves the draws out of these
    seeds = [variable for variable in model.variables if id(variable) not in weights]
    return [(f"dropout/{number}", seed) for number, seed in enumerate(seeds)]
