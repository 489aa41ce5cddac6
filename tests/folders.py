"""Folders of tiny images, for the tests of scans, plans, splits and manifests."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image

from alexnet_cli.data import scanning
from alexnet_cli.data.manifest import Manifest
from alexnet_cli.data.split_plan import plan_split


def png(number: int) -> bytes:
    """Return a PNG whose content differs for every number."""
    stream = BytesIO()
    Image.new("RGB", (2, 2), (number % 256, number // 256 % 256, 7)).save(stream, "PNG")
    return stream.getvalue()


def make(root: Path, files: dict[str, bytes]) -> Path:
    """Write files below `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def two_classes(root: Path, n: int = 10) -> Path:
    """Write `n` cats and `n` dogs, all different."""
    cats = {f"cat/{i}.png": png(i) for i in range(n)}
    return make(root, cats | {f"dog/{i}.png": png(1000 + i) for i in range(n)})


def tree(root: Path) -> dict[str, bytes]:
    """Return every file below `root` with its bytes."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def planned(tmp_path: Path, n: int = 10) -> Manifest:
    """Return a plan for `2 * n + 1` images, one of them in a sub-folder."""
    source = make(two_classes(tmp_path / "data", n), {"cat/sub/x.PNG": png(99)})
    return plan_split(scanning.scan(source), val=0.2, test=0.1)
