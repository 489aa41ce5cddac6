"""Plan a split: assign every image to train, val or test, at random within its class (stratified).

A plan depends only on the contents and classes of the images and on the seed, not on names, dates or
directory order. Files with equal content always get the same split. If the files have not been read,
their paths replace their contents.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from fractions import Fraction

from alexnet_cli.data.manifest import ImageFile, Manifest
from alexnet_cli.errors import AlexNetError, UsageError


def plan_split(
    scanned: Manifest, *, val: float = 0.1, test: float = 0.0, seed: int = 0
) -> Manifest:
    """Return `scanned` with a split for every image; no file is moved.

    `val` and `test` are fractions of each class, above 0 and at least 0, together below 1, rounded
    by largest remainder. A class with two or more different contents gets train and val images, one
    with three or more also test images if `test` > 0; a single content goes to train. Files with
    equal content get the same split, across classes too. Raises `UsageError` for fractions out of
    range, `AlexNetError` if contents that classes share make that impossible.
    """
    if not 0 < val < 1:
        raise UsageError("must be above 0 and below 1", argument="val", value=val)
    if not 0 <= test < 1:
        raise UsageError("must be at least 0 and below 1", argument="test", value=test)
    # From str, so that 0.1 is exactly 1/10: binary rounding must not decide between remainders.
    val_share, test_share = Fraction(str(val)), Fraction(str(test))
    shares = {"train": 1 - val_share - test_share, "val": val_share, "test": test_share}
    if shares["train"] <= 0:
        reason = f"with a test fraction of {test}, no images are left for training"
        raise UsageError(reason, argument="val", value=val)
    if not test:
        del shares["test"]
    splits = _divide(scanned, shares, seed)
    files = tuple(replace(file, split=split) for file, split in zip(scanned.files, splits))
    return replace(scanned, files=files, seed=seed, val=val, test=test)


def plan_folds(data: Manifest, folds: int, seed: int = 0) -> list[Manifest]:
    """Return `data` split anew for each of the `folds` networks of a cross-validation.

    Every image is in the test split of exactly one of them, its fold. The folds divide each class as
    `plan_split` does, equally; so does each network's validation split, a tenth of the images of the
    other folds. Raises `UsageError` for more folds than there are images, `AlexNetError` for a class
    of which a network would see no image.
    """
    names = [f"fold {number}" for number in range(1, folds + 1)]
    fold_of = _divide(data, dict.fromkeys(names, Fraction(1, folds)), seed)
    if len({*fold_of}) < folds:
        reason = f"must be at most {len({*fold_of})}, as there are so few images"
        raise UsageError(reason, argument="folds", value=folds)
    plans = []
    for number, name in enumerate(names, start=1):
        others = tuple(file for file, fold in zip(data.files, fold_of) if fold != name)
        # A seed for each fold, as otherwise nearly the same images would validate every network.
        planned = iter(plan_split(replace(data, files=others), seed=seed + number).files)
        files = tuple(
            replace(file, split="test") if fold == name else next(planned)
            for file, fold in zip(data.files, fold_of)
        )
        trained = {file.label for file in files if file.split == "train"}
        if missing := [label for label in data.classes if label not in trained]:
            raise AlexNetError(
                f"class {missing[0]!r}: all its images are in {name}, so that no network could be "
                "judged by them. Add images of other things of this class"
            )
        plans.append(replace(data, files=files))
    return plans


def _divide(scanned: Manifest, shares: dict[str, Fraction], seed: int) -> list[str]:
    """Return for each file which of `shares` it belongs to."""
    chosen = _assign(scanned, shares, seed)
    return [chosen[_content_key(file, scanned)] for file in scanned.files]


def _content_key(file: ImageFile, scanned: Manifest) -> str:
    # Not `relative_to`, which takes half a minute for a million files.
    return file.sha256 or str(file.path)[len(str(scanned.source)) :]


def _assign(scanned: Manifest, shares: dict[str, Fraction], seed: int) -> dict[str, str]:
    """Return the split of each content.

    Contents are taken in the order of a hash keyed by the seed, which is as good as shuffled; those
    in several classes or with many copies come first. Each goes to the split in which the class
    with the least room left has the most room. Contents that occur once fill every quota exactly.
    """
    groups: dict[str, dict[str, int]] = {}  # content → class → number of files
    once = {
        label: {label: 1} for label in scanned.classes
    }  # one dict for nearly all contents saves memory
    for file in scanned.files:
        content, label = _content_key(file, scanned), file.label
        if members := groups.get(content):
            groups[content] = {**members, label: members.get(label, 0) + 1}
        else:
            groups[content] = once[label]
    n_files: dict[str, int] = {}
    unplaced: dict[str, int] = {}  # class → number of contents
    for members in groups.values():
        for label, n in members.items():
            n_files[label] = n_files.get(label, 0) + n
            unplaced[label] = unplaced.get(label, 0) + 1
    splits = tuple(shares)
    lacking = {label: set(splits[:n]) for label, n in unplaced.items()}
    room = {label: _quotas(n, shares, lacking[label]) for label, n in n_files.items()}

    def hardest_first(content: str) -> tuple[bool, int, bytes]:
        members = groups[content]
        shuffled = hashlib.sha256(f"{seed}:{content}".encode("utf-8", "surrogateescape")).digest()
        return len(members) == 1, -sum(members.values()), shuffled

    chosen: dict[str, str] = {}
    for content in sorted(groups, key=hardest_first):
        members = groups[content]
        choices = splits
        for label in members:
            if (
                len(lacking[label]) >= unplaced[label]
            ):  # just enough contents are left for the empty splits
                choices = tuple(s for s in choices if s in lacking[label]) or choices
        room_left = {s: min(room[label][s] - n for label, n in members.items()) for s in choices}
        split = max(room_left, key=room_left.__getitem__)  # ties: train, then val, then test
        for label, n in members.items():
            room[label][split] -= n
            unplaced[label] -= 1
            lacking[label].discard(split)
        chosen[content] = split
    for label, missing in lacking.items():
        if missing:  # only if classes share contents
            raise AlexNetError(
                f"class {label!r}: no images are left for {' or '.join(sorted(missing))}, as too many "
                "are also in other classes. Remove the duplicates"
            )
    return chosen


def _quotas(n: int, shares: dict[str, Fraction], needed: set[str]) -> dict[str, int]:
    """Return the number of files for each split: `n` divided by largest remainder.

    Ties go to train, then val, then test. Each split in `needed` gets at least one.
    """
    quota = {split: int(n * share) for split, share in shares.items()}
    by_remainder = sorted(shares, key=lambda split: quota[split] - n * shares[split])
    for split in by_remainder[: n - sum(quota.values())]:
        quota[split] += 1
    for split in shares:
        if split in needed and not quota[split]:
            donor = max(shares, key=lambda other: quota[other] - (other in needed))
            quota[donor] -= 1
            quota[split] += 1
    return quota
