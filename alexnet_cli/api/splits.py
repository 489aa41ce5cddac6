"""Split a folder or a list of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alexnet_cli.api.arguments import Seed, as_folder, as_path, check_argument, path_errors
from alexnet_cli.data import scan_cache, scanning, split_folders
from alexnet_cli.data.manifest import Manifest
from alexnet_cli.data.split_plan import group_files, group_rule, plan_split
from alexnet_cli.errors import UsageError
from alexnet_cli.system import tensorflow_startup

StageProgress = Callable[[str, int, int], None]  # (stage, done, total)


def _ignore(stage: str, done: int, total: int) -> None:
    pass


@path_errors()
def split(
    source: str | Path,
    out: str | Path = "data",
    *,
    val: float | None = None,
    test: float | None = None,
    seed: int | None = None,
    group: str | None = None,
    link: str | None = None,
    prepare: bool = False,
    check: bool = True,
    force: bool = False,
    processes: bool = False,
    progress: StageProgress = _ignore,
) -> Manifest:
    """Divide the images of class folders, or of a list, into training, validation and test images.

    Args:
        source: a folder that holds a folder for each class, or a CSV file with columns file and label,
            and perhaps split, which is kept, and group.
        out: where the split is written: OUT/train/CLASS/…, OUT/val/CLASS/…, and a manifest.
        val, test: fractions of each class; by default 0.1 and 0.
        seed: the same seed and images give the same split; 0 by default.
        group: images that stay together: "folder" for those of one sub-folder of their class, or a
            regular expression for those whose file names share its first group.
        link: "copy" (default), "hard" or "symbolic" links to the images.
        prepare: write images of 256×256 pixels in TFRecord shards instead, which load fast from any
            storage; `source` may then be a split, whose division is kept.
        check: read every image first; else select images by file extension.
        force: replace an earlier split at `out`.
        processes: read many thousands of images with one process per core; the calling script then
            needs the guard `if __name__ == "__main__"`.
        progress: called with (stage, done, total).

    Returns the manifest of the written split. Raises `AlexNetError` and writes nothing if `source` has
    no images, or if `out` contains anything but a split.
    """
    source, out = as_path("source", source), as_path("out", out)
    check_argument("seed", seed, Seed | None)
    for name, fraction in (("val", val), ("test", test)):
        check_argument(name, fraction, float | None)
    check_argument("group", group, str | None)
    if link is not None and link not in split_folders.LINKS:
        reason = f"choose from {', '.join(split_folders.LINKS)}"
        raise UsageError(reason, argument="link", value=link)
    is_split = (prepare or source.is_file()) and scanning.is_split(source)
    for name, value in (("val", val), ("test", test), ("seed", seed), ("group", group)):
        if is_split and value is not None:
            reason = f"leave it out, as {source} is already split"
            raise UsageError(reason, argument=name, value=value)
    if group is not None:
        group_rule(group)  # which refuses a wrong one, before the scan
    if prepare and link is not None:
        raise UsageError("leave it out, as new images are written", argument="link", value=link)
    split_folders.check_target(
        out, scanning.require_source(source), force
    )  # before the scan, which takes long
    as_folder("out", out)
    options = scanning.ScanOptions(
        check,
        scan_cache.cache_path(out),
        lambda done, total: progress("checking images", done, total),
        processes,
    )
    if is_split:
        planned = split_folders.open_data(source, options=options)
    else:
        fractions = {"val": 0.1 if val is None else val, "test": test or 0.0}
        scanned = scanning.scan(source, options)
        if group is not None:
            scanned = group_files(scanned, group)
        planned = plan_split(scanned, seed=seed or 0, **fractions)

    def writing(done: int, total: int) -> None:
        progress("writing", done, total)

    if not prepare:
        return split_folders.write(planned, out, link=link or "copy", force=force, progress=writing)
    tensorflow_startup.load_tensorflow()
    from alexnet_cli.data import tfrecords

    return tfrecords.write(planned, out, force=force, processes=processes, progress=writing)
