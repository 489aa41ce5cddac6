"""Ensembles, initial weights, and Caffe's weights."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reference
from helpers import QUICK, TINY, evaluate, paint, predict, run, set_temperature, sign
from PIL import Image

from alexnet_cli.data import scanning, split_folders
from alexnet_cli.data.crops import Cropper
from alexnet_cli.data.manifest import ImageFile
from alexnet_cli.data.split_plan import plan_split
from alexnet_cli.data.store import load_image
from alexnet_cli.errors import AlexNetError
from alexnet_cli.inference import evaluation, prediction
from alexnet_cli.network import caffe_weights
from alexnet_cli.network.caffe_weights import MEAN, read_caffe
from alexnet_cli.recipes.presets import CAFFE
from alexnet_cli.recipes.variants import vary
from alexnet_cli.runs.models import load_caffe, load_model
from alexnet_cli.runs.run_folder import CONFIG, LAST, METRICS, RunFolder
from alexnet_cli.runs.weights_file import load_arrays
from alexnet_cli.training import start_and_resume
from alexnet_cli.training.callbacks import Callback
from alexnet_cli.training.devices import choose_devices

RANDOM = np.random.default_rng(11)


@pytest.fixture(scope="module")
def members(trained, image_folder, tmp_path_factory):
    """The shared run, one with another seed, and one that stretches images to a smaller size."""
    folder, short = tmp_path_factory.mktemp("members"), replace(QUICK, epochs=1)
    data, out = folder / "data", folder / "runs"
    split_folders.write(
        plan_split(scanning.scan(image_folder)), data
    )  # the split of the shared run
    small = replace(short, resize_size=64, crop_size=64, stretch=True)
    return [trained, run(data, out, short, seed=1).run, run(data, out, small).run]


# Ensembles


@pytest.mark.parametrize("ten_crop", [False, True])
def test_an_ensemble_is_the_mean_of_its_members(members, image_folder, ten_crop):
    """Oracle: the probabilities of each member, averaged in NumPy."""
    paths = sorted(image_folder.rglob("*.png"))[::5]

    def by_class(models):
        outcomes = predict(paths, models, ten_crop=ten_crop)
        return [dict(zip(o.classes, o.probabilities)) for o in outcomes]

    alone = [by_class([model]) for model in members]
    for together, *each in zip(by_class(members), *alone):
        for name, probability in together.items():
            mean = np.mean([one[name] for one in each])
            assert probability == pytest.approx(mean, abs=1e-6)


def test_an_evaluation_has_scores_of_each_member(members):
    """Oracle: separate evaluations of the members."""
    report = evaluate(members, split="train", ten_crop=True)
    for member, path in zip(report.members, members):
        alone = evaluate([path], split="train", ten_crop=True)
        assert member.path == path
        assert member.one_crop.loss == pytest.approx(alone.one_crop.loss, rel=1e-5)
        assert member.ten_crop.top1 == alone.ten_crop.top1
    assert report.matrix.sum() == report.one_crop.n
    # -log is convex: the loss of the mean is at most the mean of the losses
    assert report.one_crop.loss <= np.mean([m.one_crop.loss for m in report.members])


def test_an_ensemble_of_different_classes_is_refused(members, image_folder, tmp_path):
    for name in ("blue", "mauve"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(2):
            image = (image_folder / "blue" / f"{number}.png").read_bytes()
            (tmp_path / "data" / name / f"{number}.png").write_bytes(image + name.encode())
    other = run(tmp_path / "data", tmp_path / "runs", replace(QUICK, epochs=1))
    with pytest.raises(AlexNetError, match="has other classes than"):
        predict([image_folder], [members[0], other.run])


# Temperature


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_both_networks_divide_the_logits_by_the_temperature(
    trained, run_copy, image_folder, temperature
):
    """Oracle: softmax of the logarithms of the probabilities without it, over the temperature."""
    set_temperature(run_copy, temperature)
    plain, scaled = load_model(trained), load_model(run_copy)
    crop, path = Cropper(plain.recipe, plain.statistics), next(image_folder.rglob("*.png"))
    crops = [crop(load_image(ImageFile(path), plain.recipe))]
    (before,) = plain.numpy_network.probabilities(crops)
    expected = reference.softmax(np.log(before.astype(np.float64)) / temperature)
    for network in (scaled.numpy_network, scaled.keras_network):
        np.testing.assert_allclose(network.probabilities(crops)[0], expected, rtol=1e-4)
    assert (plain.temperature, scaled.temperature) == (1, temperature)


def test_an_evaluation_has_the_loss_without_temperature_scaling(members, tmp_path):
    """Oracle: the same weights without a temperature, also with ten crops and averaged with others."""
    scaled = Path(shutil.copytree(members[1], tmp_path / "scaled"))
    set_temperature(scaled, 2.0)

    def scores(*paths):
        return evaluate(paths, split="train", ten_crop=True)

    before, after = scores(members[1]), scores(scaled)
    both, plain = scores(scaled, members[2]), scores(members[1], members[2])
    for one, other in ((before, after), (plain, both)):
        assert one.ten_crop != one.one_crop
        for ours, theirs in ((one.one_crop, other.one_crop), (one.ten_crop, other.ten_crop)):
            assert ours.uncalibrated_loss == pytest.approx(ours.loss, rel=1e-5)
            assert theirs.uncalibrated_loss == pytest.approx(ours.loss, rel=1e-4)
            assert theirs.loss != pytest.approx(ours.loss, rel=0.01)
    assert [member.temperature for member in both.members] == [2.0, 1.0]
    assert before.one_crop.top1 == after.one_crop.top1  # of one model and one crop, by law


def test_the_temperature_is_that_of_the_best_weights_alone(run_copy):
    """Oracle: 1 after other epochs, before the end and in other recipes."""
    set_temperature(run_copy, 2.0)
    assert load_model(run_copy).temperature == 2.0
    metrics = (run_copy / METRICS).read_text()
    changed = json.loads(metrics)
    changed["best"]["epoch"] += 1
    (run_copy / METRICS).write_text(json.dumps(changed))
    assert load_model(run_copy).temperature == 1.0
    changed = json.loads(metrics) | {"calibration": None}
    (run_copy / METRICS).write_text(json.dumps(changed))
    assert load_model(run_copy).temperature == 1.0
    (run_copy / METRICS).unlink()
    assert load_model(run_copy).temperature == 1.0
    (run_copy / METRICS).write_text(metrics)
    config = (run_copy / CONFIG).read_text()
    (run_copy / CONFIG).write_text(
        config.replace('"temperature_scaling": true', '"temperature_scaling": false')
    )
    sign(run_copy)
    assert load_model(run_copy).temperature == 1.0


@pytest.mark.parametrize("temperature", [0.2, 4.1, 0, -1, "2"])
def test_a_temperature_out_of_bounds_is_refused(run_copy, temperature):
    set_temperature(run_copy, temperature)
    with pytest.raises(AlexNetError, match=r"metrics.json: can't be read: calibration.temperature"):
        load_model(run_copy)


# Initial weights


def test_training_starts_from_the_weights_of_a_run(members, image_folder, tmp_path):
    """Oracle: at rate 0, all layers but the last have the weights of the other run."""
    still = replace(QUICK, epochs=1, learning_rate=1e-30)
    told = []

    class Hear(Callback):
        def on_train_begin(self, plan):
            told.append(plan.transferred)

    initial = load_model(members[0])
    after = run(image_folder, tmp_path, still, initial=initial, seed=5, callback=Hear())
    fresh = run(image_folder, tmp_path, still, seed=5)
    found, drawn = (load_arrays(r.run / "last.safetensors") for r in (after, fresh))
    origin = load_arrays(members[0] / "best.safetensors")
    kernels = [name for name in origin if name.endswith(("kernel", "bias"))]
    assert len(kernels) == 22
    for name in kernels:
        expected = drawn if name.startswith("fc8/") else origin
        np.testing.assert_allclose(found[name], expected[name], atol=1e-25, err_msg=name)
    assert told == [("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")]
    assert initial.recipe == QUICK


@pytest.mark.parametrize("seed", [0, 5])
def test_images_that_trained_the_initial_weights_and_now_judge_are_reported(
    members, image_folder, tmp_path, seed
):
    """Oracle: the SHA-256 of both manifests, compared as sets; none with the split of the weights."""
    quick = replace(QUICK, epochs=1)
    after = run(image_folder, tmp_path, quick, initial=load_model(members[0]), seed=seed)
    trained = {file.sha256 for file in RunFolder.find(members[0]).manifest.of("train")}
    judges = RunFolder.find(after.run).manifest.of("val")
    n = sum(file.sha256 in trained for file in judges)
    findings = RunFolder.find(after.run).checkpoint().findings
    found = [finding.evidence for finding in findings if finding.kind == "known images"]
    text = f"{n} of {len(judges)} val images were training images of the initial weights"
    assert found == ([text] if n else [])
    assert bool(n) == (seed != 0)


def test_transferred_layers_see_images_as_before(members, tmp_path):
    """Oracle: at rate 0, fc7 of an image is that of the other run, though the new images have another mean."""
    still = replace(QUICK, epochs=1, learning_rate=1e-30)
    dark = paint(tmp_path / "dark", 4)
    for file in dark.rglob("*.png"):
        Image.open(file).point(lambda value: value // 3).save(file)
    initial = load_model(members[0])
    after = load_model(run(dark, tmp_path, still, initial=initial).run)
    average = np.mean([Image.open(file.path) for file in after.trained_on.of("train")])
    assert average < initial.statistics.mean_image.mean() - 30
    image = RANDOM.integers(0, 256, (72, 72, 3), dtype=np.uint8)
    found, expected = (
        model.numpy_network.features([Cropper(model.recipe, model.statistics)(image)])[0]
        for model in (after, initial)
    )
    assert expected.any()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert after.statistics.covariance[0, 0] < initial.statistics.covariance[0, 0] / 4


def test_weights_of_another_network_are_refused(members, image_folder, tmp_path):
    recipe = vary(QUICK, "sixth-conv")
    with pytest.raises(AlexNetError, match=r"conv6/tower1/kernel are missing; use the recipe"):
        run(image_folder, tmp_path, recipe, initial=load_model(members[0]))
    assert list(tmp_path.iterdir()) == []


def test_pre_training_transfers_the_sixth_convolution(image_folder, tmp_path):
    """Oracle: the weights of the first run, bit for bit at rate 0."""
    recipe = replace(vary(QUICK, "sixth-conv"), epochs=1, learning_rate=1e-30)
    first = run(image_folder, tmp_path, recipe)
    initial = load_model(first.run)
    second = run(image_folder, tmp_path, initial.recipe, initial=initial, seed=3)
    a, b = (load_arrays(r.run / "last.safetensors") for r in (first, second))
    np.testing.assert_allclose(a["conv6/tower2/kernel"], b["conv6/tower2/kernel"], atol=1e-25)
    assert not np.array_equal(a["fc8/kernel"], b["fc8/kernel"])


# Caffe's weights

SHAPES = {
    "conv1": (11, 11, 3, 96),
    "conv2": (5, 5, 48, 256),
    "conv3": (3, 3, 256, 384),
    "conv4": (3, 3, 192, 384),
    "conv5": (3, 3, 192, 256),
    "fc6": (9216, 4096),
    "fc7": (4096, 4096),
    "fc8": (4096, 1000),
}


def random_layers(shapes):
    """Return the dictionary of bvlc_alexnet.npy with random weights; no layer is dead."""
    layers = {}
    for name, shape in shapes.items():
        fan_in = np.prod(shape[:-1])
        kernel = RANDOM.standard_normal(shape, np.float32) * np.float32((2 / fan_in) ** 0.5)
        layers[name] = [kernel, RANDOM.standard_normal(shape[-1], np.float32) * np.float32(0.3)]
    return layers


def save(path, layers):
    np.save(path, layers, allow_pickle=True)
    return path


def converted(layers):
    """Return the dense layers as caffe-tensorflow converts them: fc6 in order rows, columns, channels.

    Its transposed matrices lie in memory, and so in the file, by columns.
    """
    channels = layers["conv5"][0].shape[-1]
    kernel, bias = layers["fc6"]
    side = round((len(kernel) / channels) ** 0.5)
    caffes = np.ascontiguousarray(kernel.T).reshape(-1, channels, side, side)  # the order of Caffe
    new = {**layers, "fc6": [caffes.transpose(2, 3, 1, 0).reshape(kernel.shape), bias]}
    for name in ("fc7", "fc8"):
        caffes = np.ascontiguousarray(layers[name][0].T)
        new[name] = [caffes.transpose(1, 0), layers[name][1]]
        assert new[name][0].__reduce__()[2][3], "by columns"
    return new


def caffe_probabilities(layers, rgb):
    """Compute as Caffe does, in NumPy: BGR, k = 1, α / n, channels before rows in fc6."""

    def grouped(x, name):
        kernel, bias = layers[name]
        kernels, biases = np.split(kernel, 2, axis=3), np.split(bias, 2)
        return reference.relu(reference.convolve_in_towers(x, kernels, biases))

    def normalized(x):
        return reference.pool(reference.normalize_locally(x, k=1, n=5, alpha=1e-4 / 5))

    x = (rgb - np.array(MEAN))[..., ::-1]
    x = normalized(reference.relu(reference.convolve(x, *layers["conv1"], stride=4)))
    x = normalized(grouped(x, "conv2"))
    x = reference.relu(reference.convolve(x, *layers["conv3"]))
    x = reference.pool(grouped(grouped(x, "conv4"), "conv5"))
    x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    for name in ("fc6", "fc7"):
        x = reference.relu(x @ layers[name][0] + layers[name][1])
    return reference.softmax(x @ layers["fc8"][0] + layers["fc8"][1])


def test_caffes_network_of_full_size(tmp_path):
    """Oracle: Caffe's arithmetic in NumPy on the center 227×227 of an image of 256×256."""
    layers = random_layers(SHAPES)
    path = save(tmp_path / "bvlc_alexnet.npy", converted(layers))
    pixels = RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((256, 256)).save(tmp_path / "photo.png")
    (found,) = predict([tmp_path / "photo.png"], [path], top=1000)
    image = load_image(ImageFile(tmp_path / "photo.png"), CAFFE).astype(float)
    expected = caffe_probabilities(layers, image[None, 14:241, 14:241])[0]
    assert len(found.classes) == 1000
    by_number = dict(zip(found.classes, found.probabilities))
    ours = [by_number[f"class {number}"] for number in range(1000)]
    np.testing.assert_allclose(ours, expected, rtol=2e-3, atol=1e-6)
    assert np.max(expected) > 3 / 1000  # far from uniform
    (tmp_path / "bvlc_alexnet.txt").write_text("\n".join(f"n{number}" for number in range(1000)))
    member = load_caffe(path)
    assert member.classes[:2] == ("n0", "n1")


NARROW = replace(
    CAFFE,
    resize_size=72,
    crop_size=67,
    convs=tuple(replace(a, filters=b.filters) for a, b in zip(CAFFE.convs, TINY.convs)),
    dense=tuple(replace(layer, units=16) for layer in CAFFE.dense),
)
NARROW_SHAPES = {
    "conv1": (11, 11, 3, 8),
    "conv2": (5, 5, 4, 12),
    "conv3": (3, 3, 12, 8),
    "conv4": (3, 3, 4, 8),
    "conv5": (3, 3, 4, 8),
    "fc6": (8, 16),
    "fc7": (16, 16),
    "fc8": (16, 3),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layers: layers.pop("fc7"), "fc7 is missing"),
        (lambda layers: layers.update(fc9=[]), "fc9 is not a layer of AlexNet"),
        (lambda layers: layers["conv3"].pop(), r"conv3 is not \[weights, biases\]"),
        (
            lambda layers: layers.update(conv2=random_layers({"conv2": (5, 5, 8, 12)})["conv2"]),
            r"conv2/tower1/kernel: expected float32 \(5, 5, 4, 6\)",
        ),
        (
            lambda layers: layers.update(fc6=random_layers({"fc6": (9, 16)})["fc6"]),
            r"fc6/kernel: expected float32 \(8, 16\)",
        ),
        (
            lambda layers: layers.update(fc7=[np.zeros((16, 16)), np.zeros(16)]),
            "fc7 is not .*expected <f4. Received: <f8",
        ),
        (lambda layers: layers["fc8"][1].fill(np.inf), "fc8/bias: contains NaN"),
        (
            lambda layers: layers["fc8"][1].__setitem__(slice(2), (np.inf, -np.inf)),
            "fc8/bias: contains NaN",
        ),
        (
            lambda layers: layers["conv1"].__setitem__(0, np.zeros(3, np.float32)),
            "conv1 is not .*expected 4 dimensions. Received: 1",
        ),
        (
            lambda layers: layers["conv2"].__setitem__(1, np.array(1, np.float32)),
            "conv2 is not .*expected 1 dimensions. Received: 0",
        ),
        (
            lambda layers: layers.update(fc8=[np.zeros((16, 0), "f4"), np.zeros(0, "f4")]),
            "fc8 has no units",
        ),
        (lambda layers: layers.update({"a\nb": []}), r"a\\nb is not a layer"),
    ],
)
def test_a_file_with_another_structure_is_refused(tmp_path, change, message):
    layers = random_layers(NARROW_SHAPES)
    load_caffe(save(tmp_path / "good.npy", layers), NARROW)
    change(layers)
    with pytest.raises(AlexNetError, match=message):
        load_caffe(save(tmp_path / "bad.npy", layers), NARROW)


def test_arrays_that_share_their_bytes_are_refused(tmp_path, monkeypatch):
    """Oracle: the sum of the arrays, 16 times that of the file; the limit is lowered to reach it."""
    shared = np.zeros((1, 1, 1, 50_000), np.float32)
    layers = {name: [shared, shared.reshape(-1)] for name in NARROW_SHAPES}
    path = save(tmp_path / "shared.npy", layers)
    monkeypatch.setattr(caffe_weights, "_MOST_BYTES", path.stat().st_size)
    with pytest.raises(AlexNetError, match="the arrays have more than"):
        read_caffe(path, NARROW)


def test_training_from_caffes_weights_sees_images_as_caffe_does(image_folder, tmp_path):
    """Oracle: at rate 0, Caffe's arithmetic in NumPy up to fc7 and the new fc8, also when resumed.

    So mean pixel, order of channels and crop are those of the file.
    """
    layers = random_layers(NARROW_SHAPES)
    initial = load_caffe(save(tmp_path / "bvlc.npy", converted(layers)), NARROW)
    still = replace(initial.recipe, epochs=1, learning_rate=1e-30, batch_size=8)
    folder = run(image_folder, tmp_path / "runs", still, initial=initial).run
    start_and_resume.resume(folder, devices=choose_devices(0, "float32"), epochs=2)
    weights = load_arrays(folder / LAST)
    layers["fc8"] = [weights["fc8/kernel"], weights["fc8/bias"]]
    path = next(image_folder.rglob("*.png"))
    (found,) = predict([path], [folder], top=3)
    image = load_image(ImageFile(path), still).astype(float)
    expected = caffe_probabilities(layers, image[None, 2:69, 2:69])[0]
    by_name = dict(zip(found.classes, found.probabilities))
    ours = [by_name[name] for name in load_model(folder).classes]
    np.testing.assert_allclose(ours, expected, rtol=1e-3)


# Caffe's names of classes


@pytest.fixture
def narrow_caffe(tmp_path):
    """Write a small network of Caffe's with three classes of these names, and load it."""

    def load(*names):
        path = save(tmp_path / "bvlc.npy", random_layers(NARROW_SHAPES))
        path.with_suffix(".txt").write_text("".join(f"{name}\n" for name in names))
        return load_caffe(path, NARROW)

    return load


def test_classes_of_the_same_name_are_told_apart_by_number(narrow_caffe, tmp_path):
    """Oracle: the line of each class; a folder of the name that two classes have fits neither."""
    model = narrow_caffe("crane", "maillot", "crane")
    assert model.classes == ("crane (0)", "maillot", "crane (2)")
    paint(tmp_path / "data", per_class=2)
    (tmp_path / "data" / "red").rename(tmp_path / "data" / "crane")
    (tmp_path / "data" / "blue").rename(tmp_path / "data" / "maillot")
    shutil.rmtree(tmp_path / "data" / "green")
    with pytest.raises(AlexNetError, match=r"not know crane; the data lacks crane \(0\), crane"):
        evaluation.evaluate([model], tmp_path / "data")
    with pytest.raises(AlexNetError, match="two classes have the same name"):
        narrow_caffe("crane", "crane", "crane (0)")


def test_an_imagenet_folder_is_evaluated_by_its_synsets(narrow_caffe, tmp_path):
    """Oracle: the matrix counted from single predictions; two classes have the same words."""
    names = ("n03126707 crane", "n02012849 crane", "n03710637 maillot")
    model = narrow_caffe(*names)
    assert model.classes == names
    paint(tmp_path / "data", per_class=4)
    for color, name in zip(("blue", "green", "red"), names):
        (tmp_path / "data" / color).rename(tmp_path / "data" / name.split()[0])
    found = evaluation.evaluate([model], tmp_path / "data")
    expected = np.zeros((3, 3), int)
    for row, name in enumerate(names):
        paths = sorted((tmp_path / "data" / name.split()[0]).iterdir())
        for one in prediction.predict([model], prediction.list_images(paths)):
            expected[row, names.index(one.label)] += 1
    np.testing.assert_array_equal(found.matrix, expected)
    assert [score.name for score in found.per_class] == [*names]
    assert {item.file.label for item in found.least_certain} == {*names}
    assert evaluation.evaluate([model], _renamed(tmp_path, names)).matrix.tolist() == (
        found.matrix.tolist()
    )


def _renamed(folder, names):
    """Give the folders of `folder`/data the whole names of their classes."""
    for name in names:
        (folder / "data" / name.split()[0]).rename(folder / "data" / name)
    return folder / "data"


def test_a_file_written_by_python_2(tmp_path):
    """Oracle: the same weights from a pickle of protocol 2, where strings are bytes."""
    layers = converted(random_layers(NARROW_SHAPES))
    new = save(tmp_path / "new.npy", layers)
    old = tmp_path / "old.npy"
    with old.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        pickle.dump(np.array(layers, dtype=object), file, protocol=2)
    a, b = read_caffe(new, NARROW), read_caffe(old, NARROW)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


class Attack:
    """Calls a function when it is unpickled, which would leave a trace."""

    def __reduce__(self):
        return (open, ("attacked", "w"))


@pytest.mark.parametrize(
    "content",
    [
        {"conv1": Attack()},
        Attack(),
        [1, 2],
        {"conv1": [1, 2]},
        np.zeros(3, np.float32),
    ],
)
def test_no_file_runs_code(tmp_path, monkeypatch, content):
    """Oracle: no trace of the call; an AlexNetError in one line."""
    monkeypatch.chdir(tmp_path)
    np.save("evil.npy", np.array(content, dtype=object), allow_pickle=True)
    with pytest.raises(AlexNetError, match=r"evil\.npy"):
        read_caffe(tmp_path / "evil.npy", NARROW)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"hello", b"\x93NUMPY\x01\x00\xff\xff{"])
def test_an_invalid_file_is_refused(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(AlexNetError, match="not the weights of Caffe's AlexNet"):
        read_caffe(tmp_path / "x.npy")


def test_towers_and_colors_of_caffes_weights(tmp_path):
    """Oracle: the kernels of the file: RGB for BGR, the second half for the second tower."""
    layers = random_layers(NARROW_SHAPES)
    arrays = read_caffe(save(tmp_path / "bvlc.npy", layers), NARROW)
    np.testing.assert_array_equal(arrays["conv1/kernel"], layers["conv1"][0][:, :, ::-1])
    np.testing.assert_array_equal(arrays["conv4/tower2/kernel"], layers["conv4"][0][..., 4:])
