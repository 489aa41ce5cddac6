"""Split plans: quotas, stratification, duplicates and randomness."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from folders import make, two_classes

from alexnet_cli.data import scanning
from alexnet_cli.data.manifest import SPLITS, ImageFile, Manifest
from alexnet_cli.data.split_plan import group_files, plan_split
from alexnet_cli.errors import AlexNetError, UsageError


def scan_of(contents: Mapping[str, Sequence[object]]) -> Manifest:
    """Return a scan without files, from the contents of each class."""
    images = tuple(
        ImageFile(
            Path(f"/data/{label}/{i}"), label, "", hashlib.sha256(str(content).encode()).hexdigest()
        )
        for label, members in contents.items()
        for i, content in enumerate(members)
    )
    return Manifest(Path("/data"), Path("/data"), tuple(contents), images, (), 0)


def numbers(manifest: Manifest, label: str) -> tuple[int, ...]:
    """Return how many images of a class are in train, val and test."""
    return tuple(manifest.counts()[label].values())


def by_content(manifest: Manifest) -> dict[str, str]:
    """Return the split of each content."""
    return {file.sha256: file.split for file in manifest.files}


@pytest.mark.parametrize(
    ("n", "val", "test", "expected"),
    [
        (9, 0.1, 0.1, (7, 1, 1)),  # 7.2 + .9 + .9
        (10, 0.1, 0.1, (8, 1, 1)),
        (100, 0.29, 0.14, (57, 29, 14)),  # .29 * 100 is 28.999999999999996 in binary
        (25, 0.1, 0.1, (20, 3, 2)),  # 20 + 2.5 + 2.5: the tie goes to val
        (15, 0.1, 0.0, (14, 1, 0)),  # 13.5 + 1.5: the tie goes to train
        (7, 0.2, 0.2, (4, 2, 1)),  # 4.2 + 1.4 + 1.4
        (1, 0.1, 0.1, (1, 0, 0)),
        (1, 0.9, 0.0, (1, 0, 0)),  # a single image is for training, whatever the fraction
        (2, 0.1, 0.1, (1, 1, 0)),
        (2, 0.1, 0.5, (1, 1, 0)),  # test gives way
        (3, 0.1, 0.1, (1, 1, 1)),
        (3, 0.1, 0.0, (2, 1, 0)),
        (3, 0.9, 0.0, (1, 2, 0)),
    ],
)
def test_quotas(n: int, val: float, test: float, expected: tuple[int, int, int]) -> None:
    """Oracle: largest remainders by hand, then no empty splits where there are enough images."""
    for seed in range(5):
        manifest = plan_split(scan_of({"a": list(range(n))}), val=val, test=test, seed=seed)
        assert numbers(manifest, "a") == expected


def test_splits_are_disjoint_exhaustive_and_stratified() -> None:
    """Oracle: every file once; each class within one file of its exact share."""
    sizes = dict(zip("abcdefgh", (3, 10, 11, 29, 57, 100, 333, 1000), strict=True))
    found = scan_of({label: [f"{label}{i}" for i in range(n)] for label, n in sizes.items()})
    manifest = plan_split(found, val=0.15, test=0.25, seed=3)
    parts = [{file.path for file in manifest.of(split)} for split in SPLITS]
    assert set.union(*parts) == {file.path for file in found.files}
    assert sum(map(len, parts)) == sum(sizes.values())
    for label, n in sizes.items():
        for count, share in zip(numbers(manifest, label), (0.6, 0.15, 0.25), strict=True):
            assert abs(count - n * share) < 1


def test_the_plan_depends_on_contents_and_seed_alone(tmp_path: Path) -> None:
    """Oracle: the same files under other names, in another order, give the same split."""
    found = scanning.scan(two_classes(tmp_path / "data", 20))
    first = by_content(plan_split(found, test=0.2, seed=5))
    backwards = replace(found, files=found.files[::-1])
    assert by_content(plan_split(backwards, test=0.2, seed=5)) == first
    other = make(
        tmp_path / "other",
        {f"{file.label}/sub/{file.sha256[:9]}.jpg": file.path.read_bytes() for file in found.files},
    )
    assert by_content(plan_split(scanning.scan(other), test=0.2, seed=5)) == first
    assert by_content(plan_split(found, test=0.2, seed=6)) != first


def test_assignment_follows_the_hash_order() -> None:
    """Oracle: the rule written again: in hash order, to the split with the most room."""
    found = scan_of({"a": list(range(10))})
    manifest = plan_split(found, val=0.3, seed=11)
    order = sorted(
        (file.sha256 for file in found.files),
        key=lambda content: hashlib.sha256(f"11:{content}".encode()).hexdigest(),
    )
    # Room for 7 + 3: train until both have 3 left, then turn by turn, ties to train.
    expected = ["train"] * 5 + ["val", "train", "val", "train", "val"]
    assert [by_content(manifest)[content] for content in order] == expected


def test_every_image_is_as_likely_in_val_as_any_other() -> None:
    """Oracle: a binomial law, mean and 5 sigma, for each of 20 images over 2000 seeds."""
    found = scan_of({"a": list(range(20)), "b": ["x", "y"]})
    n_seeds, share = 2000, 0.2
    hits = Counter(
        file.path
        for seed in range(n_seeds)
        for file in plan_split(found, val=share, seed=seed).of("val")
        if file.label == "a"
    )
    sigma = (n_seeds * share * (1 - share)) ** 0.5
    assert len(hits) == 20
    assert all(abs(n - n_seeds * share) < 5 * sigma for n in hits.values())


def test_equal_contents_get_one_split_across_classes() -> None:
    """Oracle: random duplicates: one split per content, and no required split is empty."""
    chance = random.Random(1)
    for seed in range(60):
        pool = chance.choice((6, 15, 60))
        contents = {
            label: [chance.randrange(pool) for _ in range(chance.choice((1, 2, 5, 30)))]
            + [f"{label}{i}" for i in range(3)]
            for label in "abc"
        }
        manifest = plan_split(scan_of(contents), val=0.1, test=0.1, seed=seed)
        splits: dict[str, set[str]] = {}
        for file in manifest.files:
            splits.setdefault(file.sha256, set()).add(file.split)
        assert all(len(where) == 1 for where in splits.values())
        assert all(n > 0 for row in manifest.counts().values() for n in row.values())


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([1] * 5, (5, 0, 0)),  # one content: all of it for training
        ([1] * 5 + [2] * 5, (5, 5, 0)),  # quotas 9 and 1, but val must not stay empty
        ([1] * 8 + [2, 3], (8, 1, 1)),
        ([1] * 4 + [2] * 3 + [3] * 3, (4, 3, 3)),
    ],
)
def test_duplicates_never_leave_a_split_empty(
    members: list[object], expected: tuple[int, int, int]
) -> None:
    """Oracle: the only valid splits, found by hand."""
    manifest = plan_split(scan_of({"a": members}), val=0.1, test=0.1)
    assert numbers(manifest, "a") == expected
    assert sum(map(len, manifest.duplicates())) == sum(
        n for n in Counter(members).values() if n > 1
    )


def test_classes_without_a_valid_split_are_refused() -> None:
    """Oracle: three contents, each pair a class: no two splits can separate all the pairs."""
    with pytest.raises(AlexNetError, match=r"class '[abc]': no images are left for"):
        plan_split(scan_of({"a": [1, 2], "b": [1, 3], "c": [2, 3]}))


@pytest.mark.parametrize(
    ("val", "test", "message"),
    [
        (1.5, 0, r"val=1\.5:"),
        (0, 0, "val=0:"),
        (1.0, 0, r"val=1\.0:"),
        (float("nan"), 0, "val=nan:"),
        (0.1, -0.1, r"test=-0\.1:"),
        (0.1, float("inf"), "test=inf:"),
        (0.6, 0.4, r"val=0\.6: with a test fraction of 0\.4"),
    ],
)
def test_invalid_fractions_are_refused(val: float, test: float, message: str) -> None:
    """Oracle: option and value in the message."""
    with pytest.raises(UsageError, match=message):
        plan_split(scan_of({"a": [1, 2]}), val=val, test=test)


def grouped_scan(groups: Sequence[Mapping[str, int]]) -> Manifest:
    """Return a scan whose groups have so many files, all different, of each class."""
    labels = sorted({label for group in groups for label in group})
    pairs = [
        (label, f"{number}")
        for number, group in enumerate(groups)
        for label, n in group.items()
        for _ in range(n)
    ]
    found = scan_of({label: [(label, i) for i in range(len(pairs))] for label in labels})
    of_class = {label: iter([f for f in found.files if f.label == label]) for label in labels}
    files = tuple(replace(next(of_class[label]), group=group) for label, group in pairs)
    return replace(found, files=files)


def test_groups_and_equal_contents_never_cross_splits() -> None:
    """Oracle: the connected components of random groups and contents, found by repeated merging."""
    chance = random.Random(2)
    for seed in range(40):
        found = scan_of({label: [chance.randrange(300) for _ in range(60)] for label in "abc"})
        names = ["", *(f"g{i}" for i in range(chance.choice((10, 40))))]
        files = [replace(file, group=chance.choice(names[:1] * 9 + names)) for file in found.files]
        components = [{file.sha256} for file in files]
        for name in {file.group for file in files} - {""}:
            together = {file.sha256 for file in files if file.group == name}
            touched = [c for c in components if c & together]
            rest = [c for c in components if not c & together]
            components = [*rest, set.union(together, *touched)]
        found = replace(found, files=tuple(files))
        manifest = plan_split(found, val=0.2, test=0.2, seed=seed)
        split_of = by_content(manifest)
        for component in components:
            assert len({split_of[content] for content in component}) == 1
        chance.shuffle(files)
        assert (
            by_content(plan_split(replace(found, files=tuple(files)), val=0.2, test=0.2, seed=seed))
            == split_of
        )


@pytest.mark.parametrize(
    "groups",
    [
        [{"a": 50}, {"a": 30}, {"a": 10}, {"a": 6}, {"a": 4}],
        [{"a": 9}, {"a": 9}, {"a": 9}, {"a": 3}, {"a": 3}, {"a": 3}, {"b": 8}, {"b": 2}],
        # Groups that classes share must not be placed before larger ones of one class.
        [{"a": 1}, *[{"a": 3, "b": 8}] * 2, {"a": 13}, {"b": 13}, {"b": 13}],
    ],
)
def test_counts_are_as_near_as_groups_allow(groups: list[dict[str, int]]) -> None:
    """Oracle: the least possible largest deviation from the fractions, over all assignments."""
    shares, labels = (0.7, 0.2, 0.1), sorted({label for group in groups for label in group})

    def deviation(assigned: Sequence[int]) -> float:
        counts = {(label, split): 0 for label in labels for split in range(3)}
        for group, split in zip(groups, assigned, strict=True):
            for label, n in group.items():
                counts[label, split] += n
        full = {label: sum(group.get(label, 0) for group in groups) for label in labels}
        return max(abs(n - shares[split] * full[label]) for (label, split), n in counts.items())

    best = min(map(deviation, itertools.product(range(3), repeat=len(groups))))
    manifest = plan_split(grouped_scan(groups), val=0.2, test=0.1)
    split_of = {file.group: SPLITS.index(file.split) for file in manifest.files}
    assert deviation([split_of[str(i)] for i in range(len(groups))]) == pytest.approx(best)


@pytest.mark.parametrize("largest", [8, 20])
def test_every_split_has_large_groups_as_well_as_small_ones(largest: int) -> None:
    """Oracle: the law of a random choice: images in val and test are in groups as large as all are."""
    chance = random.Random(7)
    groups = [{chance.choice("ab"): chance.randint(1, largest)} for _ in range(300)]
    sizes = [sum(group.values()) for group in groups]

    def mean_size(files: Sequence[ImageFile]) -> float:
        return sum(sizes[int(file.group)] for file in files) / len(files)

    for seed in range(5):
        manifest = plan_split(grouped_scan(groups), val=0.1, test=0.1, seed=seed)
        for split in SPLITS:
            assert mean_size(manifest.of(split)) == pytest.approx(
                mean_size(manifest.files), rel=0.1
            )


def test_groups_that_classes_share_leave_no_split_empty_where_possible() -> None:
    """Oracle: by hand: the shared group must go to val, though the others are larger."""
    manifest = plan_split(grouped_scan([{"a": 9}, {"b": 9}, {"a": 1, "b": 1}]), val=0.1)
    assert numbers(manifest, "a") == numbers(manifest, "b") == (9, 1, 0)


@pytest.mark.parametrize(
    ("rule", "groups"),
    [
        ("folder", ["", "p1", "p1", "p2"]),
        (r"(p\d)_", ["p1", "p2", "", ""]),
        (r"_(x)?", ["x", "", "x", ""]),
    ],
)
def test_groups_by_folder_or_name(rule: str, groups: list[str]) -> None:
    """Oracle: groups by hand; the folder of the class is no group, nor is an empty match."""
    names = ("a/p1_x.png", "a/p1/p2_1.png", "b/p1/deep/p_x.png", "b/p2/3.png")
    files = tuple(ImageFile(Path("/data", name), name[0]) for name in names)
    found = Manifest(Path("/data"), Path("/data"), ("a", "b"), files, (), 0)
    grouped = group_files(found, rule)
    assert [file.group for file in grouped.files] == groups
    assert grouped.group == rule


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("(", r"group='\(': is no regular expression"),
        ("a{99999999999}", "group=.*: is no regular expression"),
        ("plant", "group='plant': put parentheses"),
        ("(plant)", r"group='\(plant\)': is in no file name, for example a/0\. Leave"),
        ("folder", r"group='folder': no image is in a sub-folder of its class, for example a/0\."),
    ],
)
def test_rules_that_group_nothing_are_refused(rule: str, message: str) -> None:
    """Oracle: option, value and reason in the message."""
    with pytest.raises(UsageError, match=message):
        group_files(scan_of({"a": [1, 2], "b": [3]}), rule)
