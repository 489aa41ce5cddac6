"""Plan a split: assign every image to train, val or test, at random within its class (stratified).

A plan depends only on the contents, classes and groups of the images and on the seed, not on names,
dates or directory order. Files with equal content, near copies and files of one group always get the
same split. If the files have not been read, their paths replace their contents.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from operator import itemgetter
from pathlib import Path

from alexnet_cli.data.manifest import ImageFile, Manifest
from alexnet_cli.errors import AlexNetError, UsageError

_Shares = dict[str, dict[str, Fraction]]  # class → split → fraction of its images


def group_rule(rule: str) -> Callable[[Path], str]:
    """Return the function from the path of an image below the classes to its group, "" for none.

    `rule`: "folder" for the sub-folder of the class folder, which is the same group in every class, or
    a regular expression whose first group, in parentheses, is searched in the file name. Raises
    `UsageError` for any other text.
    """
    if rule == "folder":
        return lambda below: below.parts[0] if len(below.parts) > 1 else ""
    try:
        pattern = re.compile(rule)
    except (re.error, OverflowError) as error:
        reason = f"is no regular expression: {error}. To group by sub-folder, give folder"
        raise UsageError(reason, argument="group", value=rule) from None
    if not pattern.groups:
        reason = "put parentheses around the part that images of a group share: (plant[0-9]+)_"
        raise UsageError(reason, argument="group", value=rule)

    def find(below: Path) -> str:
        found = pattern.search(below.name)
        return (found and found[1]) or ""

    return find


def group_files(scanned: Manifest, rule: str) -> Manifest:
    """Return `scanned` with the group of every image by `rule`, as `group_rule` has it.

    Raises `UsageError` if no image is in a group, or if `scanned` is a list that has groups of its own
    or is to be grouped by folder.
    """
    if scanned.image_list and (rule == "folder" or any(file.group for file in scanned.files)):
        reason = f"is not for {scanned.image_list}. Group its images by a column named group"
        raise UsageError(reason, argument="group", value=rule)
    find, in_folders = group_rule(rule), scanned.image_list is None
    depth = len(scanned.source.parts) + in_folders  # the folder of the class says nothing
    files = tuple(
        replace(file, group=find(Path(*file.path.parts[depth:]))) for file in scanned.files
    )
    if not any(file.group for file in files):
        what = (
            "no image is in a sub-folder of its class" if rule == "folder" else "is in no file name"
        )
        reason = f"{what}, for example {files[0].path.relative_to(scanned.source)}. Leave it out"
        raise UsageError(reason, argument="group", value=rule)
    return replace(scanned, files=files, group=rule)


def plan_split(
    scanned: Manifest, *, val: float = 0.1, test: float = 0.0, seed: int = 0
) -> Manifest:
    """Return `scanned` with a split for every image; no file is moved.

    `val` and `test` are fractions of each class, above 0 and at least 0, together below 1, rounded
    by largest remainder. Files with equal content, near copies and files of one group form a unit,
    across classes too, and get the same split. A class with two or more units gets train and val
    images, one with three or more also test images if `test` > 0; a single unit goes to train.
    Raises `UsageError` for fractions out of range, `AlexNetError` if units that classes share make
    that impossible.
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
    splits = _divide(scanned, dict.fromkeys(scanned.classes, shares), seed)
    files = tuple(replace(file, split=split) for file, split in zip(scanned.files, splits))
    return replace(scanned, files=files, seed=seed, val=val, test=test)


def plan_folds(data: Manifest, folds: int, seed: int = 0) -> list[Manifest]:
    """Return `data` split anew for each of the `folds` networks of a cross-validation.

    Every image is in the test split of exactly one of them, its fold. The folds divide each class as
    `plan_split` does, equally; so does each network's validation split, a tenth of the images of the
    other folds. What is left over of a class goes to the folds after those that have what is left
    over of the class before. Raises `UsageError` if a fold would have no image, `AlexNetError` for a
    class of which a network would see no image.
    """
    names = [f"fold {number}" for number in range(1, folds + 1)]
    shares, first = {}, 0
    n_files = Counter(file.label for file in data.files)
    for label in data.classes:
        shares[label] = dict.fromkeys([*names[first:], *names[:first]], Fraction(1, folds))
        first = (first + n_files[label]) % folds
    fold_of = _divide(data, shares, seed)
    if len({*fold_of}) < folds:
        reason = f"must be at most {len({*fold_of})}, as so few images may be in different folds"
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


def _divide(scanned: Manifest, shares: _Shares, seed: int) -> list[str]:
    """Return for each file which of the `shares` of its class it belongs to."""
    units = _units(scanned)
    chosen = _assign(scanned, units, shares, seed)
    return [chosen[unit] for unit in units]


def _content_key(file: ImageFile, scanned: Manifest) -> str:
    # Not `relative_to`, which takes half a minute for a million files.
    return file.sha256 or str(file.path)[len(str(scanned.source)) :]


def _units(scanned: Manifest) -> list[str]:
    """Return the unit of each file: the least of the contents that must stay together."""
    contents = [_content_key(file, scanned) for file in scanned.files]
    above: dict[str, str] = {}  # content → a lesser one of its unit
    of_group: dict[str, str] = {}

    def least(content: str) -> str:
        while (lesser := above.get(content)) is not None:
            above[content] = above.get(lesser, lesser)  # halves the way for the next search
            content = lesser
        return content

    def join(one: str, other: str) -> None:
        lesser, greater = sorted((least(one), least(other)))
        if lesser != greater:
            above[greater] = lesser

    for file, content in zip(scanned.files, contents, strict=True):
        if file.copy_of:
            join(content, file.copy_of)
        if file.group:
            join(content, of_group.setdefault(file.group, content))
    return [least(content) for content in contents]


def _assign(scanned: Manifest, units: Sequence[str], shares: _Shares, seed: int) -> dict[str, str]:
    """Return the split of each unit.

    Units are taken in the order of a hash keyed by the seed, which is as good as shuffled; those in
    several classes or with many files come first. Where files are grouped, the largest come first:
    their counts come nearer to the fractions, but more often no images are left for a split. Of two
    ways to place them the one whose counts are nearer is taken, first the one that gives every split
    large units as well as small ones.
    """
    members: dict[str, dict[str, int]] = {}  # unit → class → number of files
    # One dict for nearly all units saves memory.
    once = {label: {label: 1} for label in scanned.classes}
    for file, unit in zip(scanned.files, units, strict=True):
        label = file.label
        if known := members.get(unit):
            members[unit] = {**known, label: known.get(label, 0) + 1}
        else:
            members[unit] = once[label]

    def largest_first(unit: str) -> tuple[int, bytes]:
        shuffled = hashlib.sha256(f"{seed}:{unit}".encode("utf-8", "surrogateescape")).digest()
        return -sum(members[unit].values()), shuffled

    in_order = {unit: members[unit] for unit in sorted(members, key=largest_first)}
    if any(file.group for file in scanned.files):
        plans = []
        for in_proportion in (True, False):
            with suppress(AlexNetError):
                plans.append(_place(in_order, shares, in_proportion))
        if plans:
            return min(plans, key=itemgetter(1))[0]
    shared_first = sorted(in_order, key=lambda unit: len(members[unit]) == 1)
    return _place({unit: members[unit] for unit in shared_first}, shares)[0]


def _place(
    units: dict[str, dict[str, int]], shares: _Shares, in_proportion: bool = False
) -> tuple[dict[str, str], int]:
    """Return the split of each of `units` (unit → class → number of files), placed one by one.

    Each goes to the split in which the class with the least room left has the most room; with
    `in_proportion` room is a share of the quota, and only splits that it fits into are considered, if
    there are any. Units of one file fill every quota exactly; also returned is how many files the
    worst count is away from its quota.
    """
    n_files: dict[str, int] = {}
    unplaced: dict[str, int] = {}  # class → number of units
    for members in units.values():
        for label, n in members.items():
            n_files[label] = n_files.get(label, 0) + n
            unplaced[label] = unplaced.get(label, 0) + 1
    splits = tuple(next(iter(shares.values())))
    lacking = {label: {*tuple(shares[label])[:n]} for label, n in unplaced.items()}
    quotas = {label: _quotas(n, shares[label], lacking[label]) for label, n in n_files.items()}
    room = {label: {**quota} for label, quota in quotas.items()}
    chosen: dict[str, str] = {}
    for unit, members in units.items():
        choices = splits
        for label in members:
            # If just enough units are left for the empty splits.
            if len(lacking[label]) >= unplaced[label]:
                choices = tuple(s for s in choices if s in lacking[label]) or choices
        room_left = {s: min(room[label][s] - n for label, n in members.items()) for s in choices}
        if in_proportion and (fitting := [s for s in choices if room_left[s] >= 0]):
            parts = {
                s: min(room[label][s] / quotas[label][s] for label in members) for s in fitting
            }
            split = max(parts, key=parts.__getitem__)
        else:
            split = max(room_left, key=room_left.__getitem__)  # ties: train, then val, then test
        for label, n in members.items():
            room[label][split] -= n
            unplaced[label] -= 1
            lacking[label].discard(split)
        chosen[unit] = split
    for label, missing in lacking.items():
        if missing:  # only if classes share units
            raise AlexNetError(
                f"class {label!r}: no images are left for {' or '.join(sorted(missing))}, as too many "
                "must stay with images of other classes. Remove the duplicates, or make smaller groups"
            )
    return chosen, max(abs(left) for of_class in room.values() for left in of_class.values())


def _quotas(n: int, shares: dict[str, Fraction], needed: set[str]) -> dict[str, int]:
    """Return the number of files for each split: `n` divided by largest remainder.

    Ties go to the first of `shares`. Each split in `needed` gets at least one.
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
