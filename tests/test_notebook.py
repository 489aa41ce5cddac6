"""The notebook of examples/: it runs from top to bottom, and its stored outputs are those of a run."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import pytest
from helpers import HANG
from PIL import Image

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "alexnet.ipynb"
QUICK = """epochs, variants = 2, []
overrides = {"resize_size": 72, "crop_size": 64, "kmeans_init": False}
overrides |= {f"conv{number}.filters": 8 for number in range(1, 6)}
overrides |= {f"conv{number}.stddev": None for number in range(1, 6)}
overrides |= {"fc6.units": 16, "fc7.units": 16}"""


def outputs(notebook):
    """Return the outputs of all cells, in order."""
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def printed(notebook):
    """Return what the notebook printed; it wrote nothing to stderr, and no cell failed."""
    found = outputs(notebook)
    kinds = {(output["output_type"], output.get("name")) for output in found}
    assert kinds <= {("stream", "stdout"), ("display_data", None), ("execute_result", None)}
    return "".join("".join(output.get("text", "")) for output in found)


def shown(notebook, kind):
    """Return everything of a media type that the notebook shows."""
    return ["".join(o["data"][kind]) for o in outputs(notebook) if kind in o.get("data", {})]


def check(notebook):
    """Check the numbers that the notebook shows against each other.

    Oracle: 40 images a class, a tenth validates, a fifth tests; softmax sums to 1; top-1 is the
    diagonal of the confusion matrix by its sum; the mean of two networks by NumPy.
    """
    text = printed(notebook)
    for name in ("daisy", "dandelion", "roses", "sunflowers", "tulips"):
        assert re.search(rf"^{name} +40 images$", text, re.MULTILINE)
        assert re.search(rf"^{name} +28 +4 +8$", text, re.MULTILINE)
    assert re.search(r"^sum +140 +20 +40$", text, re.MULTILINE)
    (sums,) = re.findall(r"^sums: \[(.*)\]$", text, re.MULTILINE)
    assert [float(one) for one in sums.split()] == pytest.approx([1, 1], abs=1e-6)
    ((hits, top1),) = re.findall(
        r"^40 test images, (\d+) on the diagonal: top-1 ([\d.]+)%$", text, re.M
    )
    assert float(top1) == pytest.approx(100 * int(hits) / 40, abs=0.05)
    ((n, of),) = re.findall(r"^(\d+) of (\d+) neighbors", text, re.MULTILINE)
    assert (0 <= int(n) <= int(of), of) == (True, "18")
    (difference,) = re.findall(r"^largest difference from the mean: (\S+)$", text, re.MULTILINE)
    assert float(difference) < 1e-6
    assert re.findall(r"^(seed 0|seed 1|both) +top-1 ", text, re.M) == ["seed 0", "seed 1", "both"]
    assert f"seed 0  top-1 {top1}%" in text
    for picture in (pictures := shown(notebook, "image/jpeg")):
        Image.open(io.BytesIO(base64.b64decode(picture))).verify()
    assert len(pictures) == 6  # images, curves, confusion matrix, rose, kernels, neighbors
    report, rose, noise = shown(notebook, "text/html")
    assert f"<td>{top1}%</td>" in report
    assert "rose.jpg" in rose
    assert "image from memory" in noise


def test_the_committed_notebook_is_a_complete_run():
    """Oracle: `check`; cells counted from 1 without a gap; a size that loads at once anywhere."""
    notebook = json.loads(NOTEBOOK.read_text())
    check(notebook)
    counts = [c["execution_count"] for c in notebook["cells"] if c["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert NOTEBOOK.stat().st_size < 1_000_000
    assert "/tmp" not in printed(notebook)


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Run the notebook, or its first cells, in a folder, with the network `QUICK`; returns it."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "TMPDIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))

    def call(folder, until=""):
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        (settings,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
        settings.source += f"\n{QUICK}"
        if until:
            last = [until in cell.source for cell in notebook.cells].index(True)
            del notebook.cells[last + 1 :]
        resources = {"metadata": {"path": str(folder)}}
        client = nbclient.NotebookClient(notebook, timeout=HANG, resources=resources)
        client.create_kernel_manager().shutdown_wait_time = HANG  # else killed before it tidies up
        client.execute()
        return notebook

    return call


def test_the_notebook_runs_in_its_folder_and_leaves_nothing(execute, tmp_path):
    """Oracle: `check`; the files of examples/ and of the temporary folder before and after."""
    before = sorted(EXAMPLES.rglob("*"))
    check(execute(EXAMPLES))
    assert sorted(EXAMPLES.rglob("*")) == before
    assert not list((tmp_path / "TMPDIR").glob("alexnet-*"))


def test_the_notebook_finds_its_images_from_the_root_of_the_repository(execute):
    """Oracle: the numbers of images that the split prints."""
    text = printed(execute(ROOT, until="alexnet.split("))
    assert re.search(r"^sum +140 +20 +40$", text, re.MULTILINE)
