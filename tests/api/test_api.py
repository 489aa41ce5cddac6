"""The Python API: the example of the documentation, line by line, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import HANG, QUICK, predict, run
from PIL import Image

import alexnet_cli as alexnet
from alexnet_cli.api.runs import choose_recipe
from alexnet_cli.data.images import open_rgb

EXAMPLES = Path(__file__).parents[2] / "examples"
# As little work as the network allows; learning rate and recipe are those of `modern`.
SMALL = {
    "resize_size": 72,
    "crop_size": 64,
    **{f"conv{number}.filters": 8 for number in range(1, 6)},
    **{f"conv{number}.stddev": None for number in range(1, 6)},
    **{f"fc{number}.units": 16 for number in (6, 7)},
    "kmeans_init": False,
}
CPU = {"gpus": 0, "precision": "float32"}


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty working folder, beside which `flowers/` and `rose.jpg` are found."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowers").symlink_to(EXAMPLES / "flowers")
    (tmp_path / "rose.jpg").symlink_to(EXAMPLES / "rose.jpg")
    return tmp_path


@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")  # tf2onnx asks
def test_the_example_of_the_documentation(empty):
    """Oracle: 200 images, 40 of each class: 4 validate, 4 test; figures counted anew; ONNX's own file."""
    pytest.importorskip("onnx")
    manifest = alexnet.split("flowers/", out="data", test=0.1)
    assert [len(manifest.of(name)) for name in ("train", "val", "test")] == [160, 20, 20]
    run = alexnet.train(
        "data", recipe="modern", epochs=2, overrides={"cutmix": 0.0, **SMALL}, **CPU
    )
    assert [row.epoch for row in run.history] == [1, 2]
    assert run.recipe.cutmix == 0.0
    assert (run.metrics.last.train.n, run.metrics.last.val.n) == (160, 20)
    assert run.plot_curves() == run.path / "curves.png"
    with Image.open(run.path / "curves.png") as curves:
        assert curves.format == "PNG"

    model = alexnet.load("runs/latest")
    (prediction,) = model.predict("rose.jpg", top=5)
    assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-6)
    assert prediction.probabilities == tuple(sorted(prediction.probabilities, reverse=True))
    assert (prediction.label, prediction.probability) == (
        prediction.classes[0],
        prediction.probabilities[0],
    )
    images = [
        f"flowers/tulips/{name.name}" for name in sorted(Path("flowers/tulips").iterdir())[:3]
    ]
    probabilities = model.probabilities(images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert model.features(images).shape == (3, 16)
    assert model.keras.output_shape == (None, 5)
    assert model.classes == manifest.classes

    report = model.evaluate("data", split="test")
    assert report.score.n == report.details.matrix.sum() == 20
    assert report.score.top1 == np.trace(report.details.matrix) / 20
    page = report.save_html("report.html").read_text()
    assert f"{report.score.top1:.1%}" in page
    exported = model.export("onnx", out="flowers.onnx")
    assert exported.n_same == exported.n_images == 20
    assert Path("flowers.onnx").stat().st_size > 10_000


def test_an_image_is_the_same_as_path_picture_and_pixels(trained, image_folder):
    """Oracle: the decoder's pixels, handed over in each form; a prediction from the command's function."""
    model = alexnet.load(trained)
    path = next((image_folder / "red").iterdir())
    picture = open_rgb(path)
    forms = [path, str(path), picture, np.asarray(picture)]
    found = [model.predict(form)[0] for form in forms]
    (expected,) = predict([path], [trained])
    assert all(one.probabilities == expected.probabilities for one in found)
    assert model.predict(forms) == found
    assert [one.path for one in found] == [path, path, None, None]
    gray = np.asarray(picture.convert("L"))
    assert (
        model.predict(gray)[0].probabilities == model.predict(picture.convert("L"))[0].probabilities
    )


def test_a_turned_picture_is_upright_as_its_file_is(trained, tmp_path):
    """Oracle: the file itself, whose EXIF says that the camera was turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    model = alexnet.load(trained)
    with Image.open(tmp_path / "turned.png") as turned:
        (in_memory,) = model.predict(turned)
    (in_file,) = model.predict(tmp_path / "turned.png")
    assert in_memory.probabilities == in_file.probabilities


def test_features_are_the_outputs_of_the_keras_layer(trained, image_folder):
    """Oracle: Keras' own fc7, on the crops that the model cuts; NumPy computes so few."""
    import keras

    model = alexnet.load(trained)
    images = sorted((image_folder / "blue").iterdir())[:4]
    ensemble = alexnet.load(trained)._models[0]
    from alexnet_cli.data.crops import Cropper

    crop = Cropper(ensemble.recipe, ensemble.statistics)
    from alexnet_cli.data.manifest import ImageFile
    from alexnet_cli.data.store import load_image

    crops = np.concatenate([crop(load_image(ImageFile(path), ensemble.recipe)) for path in images])
    fc7 = keras.Model(model.keras.input, model.keras.get_layer("fc7").output)
    np.testing.assert_allclose(model.features(images), fc7(crops), rtol=1e-4, atol=1e-4)


def test_a_heat_map_is_an_array_and_a_picture(trained, image_folder, tmp_path):
    """Oracle: the size of the crop; the picture of the default class is that of the named one."""
    model = alexnet.load(trained)
    path = image_folder / "blue" / "3.png"
    label = model.predict(path)[0].label
    evidence = model.heatmap(open_rgb(path))
    assert (evidence.shape, evidence.dtype) == ((64, 64), np.float32)
    np.testing.assert_array_equal(evidence, model.heatmap(path, label=label))
    one = model.draw_heatmap(path, tmp_path / "one.png")
    other = model.draw_heatmap(path, tmp_path / "other.png", label=label)
    assert one.read_bytes() == other.read_bytes()


def test_several_models_are_their_mean_and_have_no_network_of_their_own(
    trained, image_folder, tmp_path
):
    """Oracle: the mean of both, computed here; one line for what only one model has."""
    other = run(image_folder, tmp_path / "runs", QUICK, seed=5).run
    images = sorted((image_folder / "green").iterdir())[:3]
    both = alexnet.load([trained, other])
    alone = [alexnet.load(path).probabilities(images) for path in (trained, other)]
    np.testing.assert_allclose(both.probabilities(images), np.mean(alone, axis=0), rtol=1e-6)
    for use in (
        lambda: both.keras,
        lambda: both.features(images),
        lambda: both.heatmap(images[0]),
        lambda: both.export("litert"),
        lambda: both.predict(images, neighbors=1),
    ):
        with pytest.raises(alexnet.AlexNetError, match=r"(one|single) model") as refused:
            use()
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: alexnet.split("nowhere"), "nowhere: not found"),
        (lambda m: alexnet.split("flowers", val=1.5), r"val=1\.5: must be"),
        (lambda m: alexnet.train("flowers", recipe="vgg"), "no recipe named 'vgg'"),
        (
            lambda m: alexnet.train("flowers", overrides={"learnin_rate": 1}),
            r"overrides=\{'learnin_rate': 1\}: .*Did you mean learning_rate",
        ),
        (lambda m: alexnet.train("flowers", epochs=0), "epochs=0: must be 1 or more"),
        (lambda m: alexnet.train("flowers", gpus=64), "gpus=64: TensorFlow finds no GPU"),
        (lambda m: alexnet.train("flowers", hosts="a:1,b:2", rank=0), "hosts="),
        (lambda m: alexnet.load("nowhere"), "nowhere: no such run folder"),
        (lambda m: alexnet.load([]), "path: the list is empty"),
        (lambda m: alexnet.Run("nowhere"), "nowhere: no such run folder"),
        (lambda m: m.predict("nowhere.jpg"), r"nowhere\.jpg: No such file"),
        (lambda m: m.predict("rose.jpg", top=0), "top=0: must be 1 or more"),
        (lambda m: m.predict("rose.jpg", threshold=2), "threshold=2: must be 1 or less"),
        (lambda m: m.predict("rose.jpg", neighbors=-1), "neighbors=-1: must be 0 or more"),
        (lambda m: m.predict_files("rose.jpg"), r"paths='rose\.jpg': must be a list"),
        (lambda m: m.evaluate(threshold=2), "threshold=2: must be 1 or less"),
        (lambda m: m.heatmap("rose.jpg", label="rse"), "label='rse': the model has no such class"),
        (lambda m: m.heatmap(["rose.jpg"] * 2), "image: must be one image, not 2"),
        (lambda m: m.draw_heatmap("rose.jpg", "no/x.png"), "path='no/x.png': folder no not found"),
        (lambda m: m.draw_neighbors([]), r"predictions=\[\]: must not be empty"),
        (lambda m: alexnet.split("flowers", seed="x"), "seed='x': must be a whole number"),
        (lambda m: alexnet.train("flowers", seed=-1), "seed=-1: must be 0 or more"),
        (
            lambda m: alexnet.train("flowers", variants="no-lrn"),
            "variants='no-lrn': must be a list",
        ),
        (lambda m: alexnet.train("flowers", hosts=[1, 2], rank=0), "hosts='1,2'"),
        (lambda m: alexnet.resume("flowers", epochs=2.5), r"epochs=2\.5: must be a whole number"),
        (lambda m: alexnet.draw_figures("run"), "runs='run': must be a list"),
        (lambda m: m.predict_files(["rose.jpg"], top=0), "top=0: must be 1 or more"),
        (lambda m: m.predict(np.zeros((3, 8, 8))), r"uint8 of shape .* float64 \(3, 8, 8\)"),
        (lambda m: m.predict(7), "Received: int"),
        (lambda m: m.evaluate(split="some"), "split='some': choose from"),
        (lambda m: m.export("tflite"), "format='tflite': choose from"),
        (lambda m: m.export(["onnx"]), r"format=\['onnx'\]: must be text"),
        (lambda m: m.export(license=7), "license=7: must be text"),
        (lambda m: m.predict("rose.jpg", top="3"), "top='3': must be a whole number"),
        (lambda m: m.predict("rose.jpg", top=None), "top: must be a whole number"),
        (lambda m: m.predict("rose.jpg", threshold="x"), "threshold='x': must be a number"),
        (lambda m: m.predict("rose.jpg", threshold=float("nan")), "threshold=nan: must be"),
        (lambda m: m.predict_files(7), "paths=7: must be a list"),
        (lambda m: m.predict_files([7]), "paths=7: must be a path"),
        (lambda m: alexnet.split("flowers", val="much"), "val='much': must be a number"),
        (lambda m: alexnet.split("flowers", test=[0.1]), r"test=\[0\.1\]: must be a number"),
        (lambda m: alexnet.split("flowers", link="soft"), "link='soft': choose from copy, hard"),
        (lambda m: alexnet.split(7), "source=7: must be a path"),
        (lambda m: alexnet.load(7), "path=7: must be a list"),
        (lambda m: alexnet.load([7]), "path=7: must be a path"),
        (lambda m: alexnet.train("flowers", overrides=[1]), r"overrides=\[1\]: must be a dict"),
        (lambda m: alexnet.train("flowers", settings=[1]), r"settings=\[1\]: must be a list of t"),
        (lambda m: alexnet.train("flowers", settings=["epochs=0"]), "settings='epochs=0': must be"),
        (lambda m: alexnet.train("flowers", variants=["tan"]), "did you mean tanh"),
        (lambda m: alexnet.train("flowers", recipe=["vgg"]), r"recipe=\['vgg'\]: must be text"),
        (lambda m: alexnet.train("flowers", out="rose.jpg"), "out='rose.jpg': is a file; name"),
        (
            lambda m: alexnet.Run(m.paths[0]).plot_curves("no/x.png"),
            "out='no/x.png': folder no not",
        ),
        (lambda m: m.evaluate(split="val").save_html("no/x.html"), "path='no/x.html': folder no"),
        (lambda m: m.evaluate(split="val").save_json("."), "path='.': is a folder; name a file"),
        (lambda m: m.evaluate(split="val").plot_confusion("no/x"), "path='no/x': folder no not"),
        (lambda m: alexnet.split("flowers", out="rose.jpg/data"), r"out='.*': rose\.jpg is a file"),
        (lambda m: alexnet.train("flowers", out="rose.jpg/runs"), r"out='.*': rose\.jpg is a file"),
        (
            lambda m: alexnet.train("flowers", variants=["finetune"]),
            "variants='finetune': needs weights to start from",
        ),
        (lambda m: alexnet.draw_figures(out="rose.jpg/a"), r"out='.*': rose\.jpg is a file; name"),
        (lambda m: alexnet.load("a" * 300), "no file can have this name"),
        (lambda m: m.predict("a" * 300), "no file can have this name"),
    ],
)
def test_a_wrong_argument_is_one_line_at_the_call(empty, trained, call, message):
    """Oracle: the argument's name and value; generators do not wait for their first item."""
    with pytest.raises(alexnet.AlexNetError, match=message) as refused:
        call(alexnet.load(trained))
    assert "\n" not in str(refused.value)


def test_other_weights_bring_their_recipe_and_what_finetuning_needs(trained):
    """Oracle: the recipe of the weights with the variant's change, unless a recipe is named."""

    def chosen(recipe=None, weights=trained, variants=(), **overrides):
        return choose_recipe(recipe, variants, overrides, (), {}, weights)[0]

    own = alexnet.Run(trained).recipe
    tuned = chosen(variants=["no-dropout"], epochs=7)
    assert tuned.name == f"{own.name}+no-dropout+finetune"
    assert (tuned.trivial_augment, tuned.epochs) == (True, 7)
    assert (tuned.convs, tuned.learning_rate) == (own.convs, own.learning_rate)
    assert not chosen(trivial_augment=False).trivial_augment
    named = chosen("paper")
    assert (named.name, named.trivial_augment) == ("paper", False)
    assert chosen("paper", variants=["finetune"]).name == "paper+finetune"
    assert chosen(tuned).name == tuned.name
    assert chosen(weights=None).name == "modern"


def test_weights_that_were_finetuned_bring_the_variant_once(trained, image_folder, tmp_path):
    """Oracle: the name of the recipe."""
    first = alexnet.train(image_folder, weights=trained, epochs=1, out=tmp_path, **CPU)
    again, _ = choose_recipe(None, (), None, (), {}, first.path)
    assert again.name == first.recipe.name == f"{alexnet.Run(trained).recipe.name}+finetune"
    variants = ["no-dropout"]
    later = alexnet.train(
        image_folder, weights=first.path, variants=variants, epochs=1, out=tmp_path, **CPU
    )
    again, _ = choose_recipe(None, (), None, (), {}, later.path)
    assert again.name == later.recipe.name == f"{first.recipe.name}+no-dropout"


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "\ud800", "x/" * 3000], ids=ascii)
@pytest.mark.parametrize(
    "call",
    [
        lambda m, name: alexnet.split(name),
        lambda m, name: alexnet.split("flowers", name),
        lambda m, name: alexnet.train(name),
        lambda m, name: alexnet.train("flowers", out=name),
        lambda m, name: alexnet.train("flowers", weights=name),
        lambda m, name: alexnet.resume(name),
        lambda m, name: alexnet.load(name),
        lambda m, name: alexnet.load([f"{name}.npy"]),
        lambda m, name: alexnet.Run(Path(name)),
        lambda m, name: alexnet.draw_figures([name]),
        lambda m, name: alexnet.draw_figures(m.paths, name),
        lambda m, name: m.predict(name),
        lambda m, name: m.predict_files([name]),
        lambda m, name: m.features(["rose.jpg", name]),
        lambda m, name: m.evaluate(name),
        lambda m, name: m.export("onnx", name),
        lambda m, name: alexnet.Run(m.paths[0]).plot_curves(name),
    ],
)
def test_a_name_that_no_file_can_have_is_one_line(empty, trained, call, name):
    """Oracle: the operating system, which opens no such path: EINVAL or ENAMETOOLONG."""
    with pytest.raises(alexnet.AlexNetError, match="no file can have this name") as refused:
        call(alexnet.load(trained), name)
    assert len(str(refused.value).splitlines()) == 1
    assert sorted(path.name for path in empty.iterdir()) == ["flowers", "rose.jpg"]


def test_other_devices_need_another_process(image_folder, tmp_path, monkeypatch):
    """Oracle: TensorFlow's own refusal, as it comes once devices have started."""
    import tensorflow as tf

    def refuse(devices, kind):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", refuse)
    with pytest.raises(alexnet.AlexNetError, match="gpus=0: TensorFlow already runs on other"):
        alexnet.train(image_folder, out=tmp_path, gpus=0)


SCRIPT = """
import signal, sys, warnings
handler = signal.getsignal(signal.SIGINT)
import alexnet_cli as alexnet
assert not {"tensorflow", "numpy", "PIL", "rich", "typer"} & sys.modules.keys()
import numpy  # which adds filters of its own
filters = list(warnings.filters)
assert set(alexnet.__all__) <= set(dir(alexnet))
manifest = alexnet.split(sys.argv[1], out="data")
assert "tensorflow" not in sys.modules
model = alexnet.load(sys.argv[2])
print(len(manifest.files), model.predict(sys.argv[1])[0].label)
assert "tensorflow" not in sys.modules
assert list(warnings.filters) == filters
assert signal.getsignal(signal.SIGINT) is handler
"""


def test_a_script_without_a_main_guard_runs_once_and_finds_all_as_it_was(
    image_folder, trained, tmp_path
):
    """Oracle: what the script prints, once; sys.modules, warning filters and signal handlers."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py", str(image_folder), str(trained)]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["36", "blue"]
    assert done.stderr == ""
