"""Open damaged run folders and weights files with the functions by which the commands open them.

    python -m benchmarks.fuzz_runs [--mutations 20000] [--first 0] [--seed 0] [--out fuzz]

Whoever sends a run can compute its checksums anew, and so do most of the changes here: to values in
JSON, to the headers, data and notes of array files, to lines of the manifest, to the steps of Caffe's
pickle. The rest damages bytes. Callers expect a loaded model, with which one image is classified, or
an `AlexNetError` of one line, within `MEMORY`; anything else is a finding. `benchmarks.fuzz_harness`
says how the inputs are run and counted.
"""

from __future__ import annotations

import copy
import hashlib
import json
import pickletools
import random
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet_cli.data.manifest import MANIFEST, ImageFile, Manifest
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.errors import AlexNetError
from alexnet_cli.inference.neighbors import FeatureIndex
from alexnet_cli.inference.prediction import predict
from alexnet_cli.network.weight_shapes import weight_shapes
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.recipes.presets import CAFFE
from alexnet_cli.runs.checkpoint import CheckpointMeta
from alexnet_cli.runs.config import RunConfig, current_versions
from alexnet_cli.runs.metrics import Score
from alexnet_cli.runs.models import LoadedModel, load_caffe, load_model
from alexnet_cli.runs.records import (
    EpochRow,
    FinalMetrics,
    FinalScore,
    Finding,
    history_csv,
    report_markdown,
)
from alexnet_cli.runs.run_folder import BEST, CONFIG, FC7, LAST, METRICS, STATISTICS, RunFolder
from alexnet_cli.runs.weights_file import load_arrays, read_notes, save_arrays
from alexnet_cli.system import strict_json
from benchmarks import fuzz_harness
from benchmarks.fuzz_harness import damage

MEMORY = 2**30  # bytes that a worker may take beyond what it has at its start
LONGEST = 1000  # characters of an error
WEIGHTS, LABELS = "bvlc_alexnet.npy", "bvlc_alexnet.txt"

# Caffe's network, as narrow as it can be, with batch normalization in one layer.
_WIDTHS = (8, 12, 8, 8, 8)
CAFFE_RECIPE = replace(
    CAFFE,
    resize_size=72,
    crop_size=67,
    convs=tuple(replace(conv, filters=width) for conv, width in zip(CAFFE.convs, _WIDTHS)),
    dense=tuple(replace(layer, units=16) for layer in CAFFE.dense),
)
_first, _second, _third, *_others = CAFFE_RECIPE.convs
RECIPE = replace(
    CAFFE_RECIPE,
    mean="image",
    convs=(_first, _second, replace(_third, post_ops=("batch_norm", "relu")), *_others),
)
CLASSES = ("blue", "green", "red")

SILLY: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 4, 7, 97, 255, 2**31, 2**53, 2**63, -(2**63), 10**30),
    *(0.5, -0.5, 1.5, 1e-300, 1e308, -0.0, float("nan"), float("inf")),
    *("", "x", "\0", "\n", "\ud800", "é" * 300, "../..", "/", ".", "nan", "a\nb", "\x1b[31m"),
    *([], {}, [0], [[]], [None] * 50, {"a": 1}, "x" * 70_000),
)
POST_OPS = ("relu", "tanh", "lrn", "batch_norm", "pool")


def write_run(folder: Path, n_val: int = 3) -> Path:
    """Write a small complete run with random weights, and its images, without TensorFlow.

    `n_val` of its 15 images validate.
    """
    random_numbers = np.random.default_rng(0)
    files = []
    for number in range(15):
        label, split = CLASSES[number % 3], "val" if number < n_val else "train"
        path = folder / "images" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random_numbers.integers(0, 256, (9, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((80, 90)).save(path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(ImageFile(path, label, split, sha256))
    root = folder / "images"
    manifest = Manifest(root, root, CLASSES, tuple(files), (), 0, seed=0, val=0.2)
    config = RunConfig(RECIPE, CLASSES, 0, "float32", str(root), current_versions(), None)
    size = RECIPE.resize_size
    statistics = Statistics(np.full((size, size, 3), 100, np.float32), np.eye(3))
    run = RunFolder.create(folder / "runs", config, statistics, manifest)
    shapes = weight_shapes(RECIPE, len(CLASSES))
    arrays = {
        name: random_numbers.random(shape, np.float32) * np.float32(0.1)
        for name, shape in shapes.items()
    }
    rows = [
        EpochRow(n, 1 / n, 0.5, 0.9 / n, 0.5, 1.1 / n, 0.5, None, 0.01, 99.0, 2.0) for n in (1, 2)
    ]
    found = (Finding("no progress", 2, "the loss stays", "try --learning-rate 0.001"),)
    run.save_best(arrays, 2)
    velocities = {f"velocity/{name}": np.zeros(shape, np.float32) for name, shape in shapes.items()}
    run.save_checkpoint({**arrays, **velocities}, CheckpointMeta(2, tuple(rows), findings=found))
    score = FinalScore(2, Score(12, 0.5, 0.5, None), Score(3, 0.6, 0.3, None))
    final = FinalMetrics(score, score, None, 4.0, found, {"a.png": "is empty"})
    (run.path / METRICS).write_text(json.dumps(asdict(final)))
    features = random_numbers.random((12, 16), np.float32).astype(np.float16)
    save_arrays(run.path / FC7, {"features": features}, {"epoch": 2, "n_images": 12})
    return run.path


def caffe_layers() -> dict[str, list[Any]]:
    """Return the dictionary in Caffe's file, with random weights of `CAFFE_RECIPE`."""
    random_numbers = np.random.default_rng(1)
    layers: dict[str, list[Any]] = {}
    for name, shape in weight_shapes(replace(CAFFE_RECIPE, mean="channel"), 3).items():
        layer, part = name.split("/")[0], name.split("/")[-1]
        array = random_numbers.random(shape, np.float32)
        held = layers.setdefault(layer, [])
        place = 0 if part == "kernel" else 1
        if len(held) <= place:
            held.append(array)
        else:  # the second tower
            held[place] = np.concatenate([held[place], array], axis=-1)
    return layers


def npy(layers: Any) -> bytes:
    """Return `layers` as NumPy writes it."""
    file = BytesIO()
    np.save(file, np.array(layers, dtype=object), allow_pickle=True)
    return file.getvalue()


# Changes that know the structure


def change_json(value: Any, draw: random.Random) -> Any:
    """Return a copy of plain data with one value changed, left out, moved or repeated."""
    changed = copy.deepcopy(value)
    places = list(_places(changed))
    if not places:
        return draw.choice(SILLY)
    holder, key = draw.choice(places)
    match draw.randrange(8):
        case 0:
            del holder[key]
        case 1:
            other, at = draw.choice(places)
            with suppress(LookupError):  # a place below the other
                holder[key] = copy.deepcopy(other[at])
        case 2 if isinstance(holder, list):
            holder += [copy.deepcopy(holder[key]) for _ in range(draw.choice((1, 40)))]
        case 2:
            holder[f"{key}x"] = holder[key]
        case 3 if type(holder[key]) in (int, float):
            holder[key] *= draw.choice((-1, 0, 0.5, 2, 3, 1000))
        case _:
            holder[key] = copy.deepcopy(draw.choice(SILLY))
    return changed


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place in plain data: its list or dictionary, and its index or name."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield value, key
        if isinstance(item, list | dict):
            yield from _places(item)


def array_file(entries: Any, data: bytes, notes: Any) -> bytes:
    """Return a safetensors file of these header entries, with all checksums as far as they can be."""
    strings = {"notes": notes if isinstance(notes, str) else json.dumps(notes)}
    sums, layout = {}, {}
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        with suppress(Exception):  # an entry that is silly
            sums[name] = f"{zlib.crc32(data[slice(*entry['data_offsets'])]):08x}"
            layout[name] = [entry["dtype"], entry["shape"]]
    strings["crc32"] = json.dumps(sums)
    covered = json.dumps([layout, strings], sort_keys=True).encode()
    strings["header_crc32"] = f"{zlib.crc32(covered):08x}"
    whole = {"__metadata__": strings, **entries} if isinstance(entries, dict) else entries
    header = json.dumps(whole).encode()
    return len(header).to_bytes(8, "little") + header + data


def array_parts(content: bytes) -> tuple[dict[str, Any], bytes, Any]:
    """Return entries, data and notes of a valid array file."""
    end = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:end])
    metadata = entries.pop("__metadata__")
    return entries, content[end:], json.loads(metadata["notes"])


def file_of(arrays: Mapping[str, np.ndarray], notes: Any) -> bytes:
    """Return an array file of float32 arrays."""
    entries, position = {}, 0
    for name, array in arrays.items():
        offsets = [position, position := position + array.nbytes]
        entries[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
    return array_file(entries, b"".join(array.tobytes() for array in arrays.values()), notes)


# Steps of a pickle that claim memory, name a function, or are out of place.
STEPS = (
    *(b"r" + size.to_bytes(4, "little") for size in (300, 2**20, 2**27, 2**31, 2**32 - 1)),
    *(f"p{size}\n".encode() for size in (300, 2**27, -1, 10**30)),
    *(code + (2**31).to_bytes(8, "little") for code in (b"\x8e", b"\x8d", b"\x95", b"\x96")),
    *(code + (2**31 - 1).to_bytes(4, "little") for code in (b"B", b"X", b"T", b"\x8b", b"j")),
    *(b"]", b"}", b")", b"(", b"0", b"2", b"t", b"l", b"d", b"a", b"e", b"u", b"s", b"R", b"b"),
    *(b"N", b"\x88", b"K\xff", b"J\xff\xff\xff\x7f", b"I999\n", b"F1e999\n", b"\x94", b".", b"1"),
    *(b"cos\nsystem\n", b"\x8c\x02os\x8c\x06sys\ntem\x93", b"\x81", b"\x92", b"Q", b"\x97", b"o"),
    *(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"c_codecs\nencode\n", b"h\x01", b"g0\n", b"q\xff"),
)

ODD_PARTS: tuple[Any, ...] = (
    *(None, 3, "text", b"bytes", [], {}, ()),
    *(np.float32(1), np.zeros(()), np.zeros(()).astype("f4"), np.zeros(0, "f4")),
    *(np.zeros(3, "f8"), np.zeros(3, ">f4"), np.zeros((2, 0, 3), "f4"), np.zeros((1,) * 30, "f4")),
    *(np.array([None]), np.full(8, np.nan, "f4"), np.zeros((3, 8), "f4", order="F")),
)


class Runs:
    """A small run and a small file of Caffe's, changed and opened."""

    memory = MEMORY

    def __init__(self, folder: Path) -> None:
        """Write the run into `folder`."""
        self.run = write_run(folder)
        self.layers = caffe_layers()
        (self.run / WEIGHTS).write_bytes(npy(self.layers))
        (self.run / LABELS).write_text("".join(f"n0000000{n} crane\n" for n in range(3)))
        self.files = {path.name: path.read_bytes() for path in sorted(self.run.iterdir())}
        self.image = ImageFile(next(self.run.parent.parent.rglob("*.png")))
        own = {CONFIG: self._config, MANIFEST: self._manifest, METRICS: self._metrics}
        arrays = {name: self._arrays(name) for name in (BEST, LAST, STATISTICS, FC7)}
        self._changes: dict[str, Callable[[random.Random], dict[str, bytes]]] = {
            **own,
            "network and its weights": self._network,
            **arrays,
            "bytes": self._bytes,
            "missing file": lambda draw: {draw.choice(list(self.files)): b""},
            "Caffe's steps": self._steps,
            "Caffe's dictionary": self._dictionary,
            "Caffe's names": self._labels,
        }
        self.kinds = list(self._changes)

    def mutate(self, draw: random.Random) -> tuple[str, dict[str, bytes]]:
        """Return the kind of a change, and the changed files by name."""
        kind = draw.choice(self.kinds)
        changed = self._changes[kind](draw)
        if draw.random() < 0.9:
            changed = self._sign(changed)
        return kind, changed

    def _sign(self, changed: dict[str, bytes]) -> dict[str, bytes]:
        """Return `changed` with the SHA-256 of configuration and manifest in the statistics."""
        if STATISTICS in changed or not {CONFIG, MANIFEST} & changed.keys():
            return changed
        files = {**self.files, **changed}
        entries, data, _ = array_parts(self.files[STATISTICS])
        sums = {name: hashlib.sha256(files[name]).hexdigest() for name in (CONFIG, MANIFEST)}
        return {**changed, STATISTICS: array_file(entries, data, {"sha256": sums})}

    def _config(self, draw: random.Random) -> dict[str, bytes]:
        return {CONFIG: json.dumps(change_json(json.loads(self.files[CONFIG]), draw)).encode()}

    def _metrics(self, draw: random.Random) -> dict[str, bytes]:
        return {METRICS: json.dumps(change_json(json.loads(self.files[METRICS]), draw)).encode()}

    def _manifest(self, draw: random.Random) -> dict[str, bytes]:
        lines = [json.loads(line) for line in self.files[MANIFEST].splitlines()]
        number = draw.choice((0, draw.randrange(len(lines))))
        match draw.randrange(6):
            case 0:
                del lines[number]
            case 1:
                lines.insert(draw.randrange(len(lines)), lines[number])
            case 2:
                split = draw.choice(("train", "val", "test"))
                lines[1:] = [{**line, "split": split} for line in lines[1:]]
            case 3:
                lines[number] |= {"shard": "x", "offset": 0, "length": 9, "crc32": 0}
                lines[number] = change_json(lines[number], draw)
            case _:
                lines[number] = change_json(lines[number], draw)
        return {MANIFEST: "".join(f"{json.dumps(line)}\n" for line in lines).encode()}

    def _network(self, draw: random.Random) -> dict[str, bytes]:
        """Change the sizes of the network, and give it weights that fit, if there are such."""
        config = json.loads(self.files[CONFIG])
        recipe = config["recipe"]
        for _ in range(draw.choice((1, 2, 3))):
            layer = draw.choice((*recipe["convs"], *recipe["dense"], recipe))
            name = draw.choice([key for key, value in layer.items() if type(value) is int])
            layer[name] = draw.choice((0, 1, 2, 3, 5, 9, 12, 13, 64, 72))
            if "post_ops" in layer and draw.random() < 0.4:
                layer["post_ops"] = draw.choices(POST_OPS, k=draw.randrange(5))
        changed = {CONFIG: json.dumps(config).encode()}
        with suppress(ValueError, ArithmeticError):
            shapes = weight_shapes(strict_json.parse(Recipe, recipe), len(CLASSES))
            if all(min(shape) >= 0 for shape in shapes.values()):
                arrays = {name: np.full(shape, 0.1, np.float32) for name, shape in shapes.items()}
                changed[BEST] = file_of(arrays, {"epoch": 2})
        size = recipe["resize_size"]
        mean = np.zeros((size, size, 3), np.float32)
        sums = {CONFIG: changed[CONFIG], MANIFEST: self.files[MANIFEST]}
        notes = {name: hashlib.sha256(content).hexdigest() for name, content in sums.items()}
        statistics = {"mean_image": mean, "covariance": np.eye(3, dtype=np.float32)}
        return {**changed, STATISTICS: file_of(statistics, {"sha256": notes})}

    def _arrays(self, name: str) -> Callable[[random.Random], dict[str, bytes]]:
        def change(draw: random.Random) -> dict[str, bytes]:
            entries, data, notes = array_parts(self.files[name])
            match draw.randrange(4):
                case 0:
                    notes = change_json(notes, draw)
                case 1:
                    numbers = np.frombuffer(data[: len(data) // 4 * 4], np.float32).copy()
                    silly = np.float32(draw.choice((np.nan, np.inf, -np.inf, 3e38, 1e-45, 1e9)))
                    some = draw.sample(range(len(numbers)), draw.choice((1, 2, len(numbers))))
                    numbers[some] = silly
                    data = numbers.tobytes() + data[len(numbers) * 4 :]
                case _:
                    entries = change_json(entries, draw)
            return {name: array_file(entries, data, notes)}

        return change

    def _bytes(self, draw: random.Random) -> dict[str, bytes]:
        name = draw.choice(list(self.files))
        return {name: bytes(damage(bytearray(self.files[name]), draw, list(self.files.values())))}

    def _steps(self, draw: random.Random) -> dict[str, bytes]:
        content = self.files[WEIGHTS]
        start = 10 + int.from_bytes(content[8:10], "little")
        steps = [place for _, _, place in pickletools.genops(content[start:]) if place is not None]
        for _ in range(draw.choice((1, 1, 2, 4))):
            begin, end = sorted(draw.choices([*steps, len(content) - start], k=2))
            end = draw.choice((begin, begin, end))
            new = b"".join(draw.choices(STEPS, k=draw.choice((1, 1, 3))))
            content = content[: start + begin] + new + content[start + end :]
        return {WEIGHTS: content}

    def _dictionary(self, draw: random.Random) -> dict[str, bytes]:
        layers: dict[Any, Any] = copy.deepcopy(self.layers)
        name = draw.choice(list(layers))
        match draw.randrange(5):
            case 0:
                layers[draw.choice(("", "fc9", "x" * 10_000, "a\nb", 7, None))] = layers.pop(name)
            case 1:
                layers[name] = draw.choice((*ODD_PARTS, layers[name][:1], layers[name] * 2))
            case 2:
                layers[name][draw.randrange(2)] = draw.choice(ODD_PARTS)
            case 3:
                part = draw.randrange(2)
                layers[name][part] = np.resize(layers[name][part], draw.choice(((), (0,), (3, 9))))
            case _:
                part = draw.randrange(2)
                layers[name][part] = layers[name][part].T
        return {WEIGHTS: npy(layers)}

    def _labels(self, draw: random.Random) -> dict[str, bytes]:
        lines = draw.choices(("crane", "maillot", "", "n02012849 crane", "a\0b", "x" * 9999), k=3)
        text = draw.choice(("\n", "\r\n", "\x85")).join(lines).encode()
        return {LABELS: draw.choice((text, text, draw.randbytes(40), b"\n".join([text] * 9)))}

    def keep(self, content: dict[str, bytes], path: Path) -> None:
        """Write the changed files into the folder `path`."""
        path.mkdir(exist_ok=True)
        for name, changed in content.items():
            (path / name).write_bytes(changed)

    def outcome_of(self, content: dict[str, bytes]) -> str:
        """Open the run, or Caffe's file, with some files changed; returns the outcome in words."""
        for name, changed in content.items():
            (self.run / name).unlink()
            if changed:  # else it is missing
                (self.run / name).write_bytes(changed)
        readers: list[Callable[[], object]] = []
        if content.keys() & {WEIGHTS, LABELS}:
            readers.append(self._caffe)
        if content.keys() - {WEIGHTS, LABELS}:
            readers += [self._predict, self._records]
        outcomes = {self._open(reader) for reader in readers}
        for name in content:
            (self.run / name).write_bytes(self.files[name])
        findings = [one for one in outcomes if one.startswith("unexpected")]
        return findings[0] if findings else "refused" if "refused" in outcomes else "loaded"

    def _open(self, reader: Callable[[], object]) -> str:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # what would be lines on standard error
                reader()
        except AlexNetError as error:
            line = str(error)
            if len(line.splitlines()) != 1 or len(line) > LONGEST:
                return f"unexpected: an error of {len(line)} characters: {line[:200]!r}"
            cause: BaseException | None = error
            while cause := cause.__context__ if cause else None:
                if isinstance(cause, MemoryError):
                    return f"unexpected: more than {MEMORY:,} bytes of memory: {line}"
            return "refused"
        return "loaded"

    def _predict(self) -> None:
        """Do what `predict`, `evaluate` and `predict --neighbors` do before they compute."""
        model = load_model(self.run)
        self._classify(model)
        assert model.trained_on is not None
        model.trained_on.counts()
        if not (self.run / FC7).exists():
            return
        n_train = len(model.trained_on.of("train"))
        saved = load_arrays(self.run / FC7, only="features")["features"]
        *_, fc7 = model.recipe.dense
        fits = saved.shape == (n_train, fc7.units) and not np.isnan(saved).any()
        # otherwise the features would be computed, by TensorFlow
        if fits and read_notes(self.run / FC7) == {"epoch": model.epoch, "n_images": n_train}:
            FeatureIndex(model).nearest(np.zeros(fc7.units, np.float32), 3)

    def _records(self) -> None:
        """Do what `recipes RUN`, `figures` and `train --resume` do before they compute."""
        run = RunFolder.find(self.run)
        meta = run.checkpoint()
        history_csv(meta.history)
        report_markdown(run.recipe(), meta.findings)
        run.weights(LAST)
        run.metrics()

    def _caffe(self) -> None:
        self._classify(load_caffe(self.run / WEIGHTS, CAFFE_RECIPE))

    def _classify(self, model: LoadedModel) -> None:
        (found,) = predict([model], [self.image], top=3)
        assert not isinstance(found, tuple)
        assert len(found.classes) == min(3, len(model.classes))


if __name__ == "__main__":
    fuzz_harness.main(Runs, default_mutations=20_000)
