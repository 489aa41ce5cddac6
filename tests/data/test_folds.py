"""The folds of a cross-validation: laws, and scikit-learn's division of the same images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from alexnet_cli.data.manifest import ImageFile, Manifest
from alexnet_cli.data.split_plan import plan_folds
from alexnet_cli.errors import AlexNetError, UsageError

ROOT = Path("/images")


def data_of(units: dict[str, list[str]], together: str = "sha256") -> Manifest:
    """Return images by class, each with its unit: the SHA-256 or the group that it shares."""
    files = tuple(
        ImageFile(ROOT / label / f"{number}.png", label, "train", **{together: unit})
        for label, items in units.items()
        for number, unit in enumerate(items)
    )
    return Manifest(ROOT, ROOT, tuple(units), files, (), 0)


def random_data(seed: int, together: str = "sha256") -> Manifest:
    """Return 3 classes of 40 to 90 images, about a fifth of them in a unit with others."""
    random = np.random.default_rng(seed)
    sizes = random.integers(40, 91, 3)
    return data_of(
        {
            f"class {c}": [
                f"{c}-{random.integers(n * 2) if random.random() < 0.2 else i}" for i in range(n)
            ]
            for c, n in enumerate(sizes)
        },
        together,
    )


@pytest.mark.parametrize("together", ["sha256", "group"])
@pytest.mark.parametrize("seed", range(6))
def test_folds_are_disjoint_exhaustive_and_as_balanced_as_those_of_scikit_learn(seed, together):
    """Oracle: the laws; beside them StratifiedGroupKFold on the same labels and units."""
    data, n_folds = random_data(seed, together), 3 + seed % 3
    plans = plan_folds(data, n_folds, seed)
    judged = [{file.path for file in plan.of("test")} for plan in plans]
    assert sum(map(len, judged)) == len(set.union(*judged)) == len(data.files)
    for plan in plans:
        assert [file.path for file in plan.files] == [file.path for file in data.files]
        where = {}
        for file in plan.files:
            assert where.setdefault(getattr(file, together), file.split) == file.split
    labels = np.array([file.label for file in data.files])
    groups = np.array([getattr(file, together) for file in data.files])
    theirs = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    folds = [data.files[i] for _, test in theirs.split(labels, labels, groups) for i in test]
    assert len(folds) == len(data.files)
    their_counts = [Counter(labels[test]) for _, test in theirs.split(labels, labels, groups)]
    our_counts = [Counter(file.label for file in plan.of("test")) for plan in plans]
    for label in data.classes:
        ours, others = ([count[label] for count in c] for c in (our_counts, their_counts))
        assert max(ours) - min(ours) <= max(1, max(others) - min(others))


def test_validation_is_a_tenth_of_the_other_folds_and_another_one_each_time():
    """Oracle: arithmetic, 100 images a class: 20 judged, 8 of the other 80 for validation."""
    data = data_of({name: [f"{name}{i}" for i in range(100)] for name in ("cat", "dog")})
    plans = plan_folds(data, 5)
    for plan in plans:
        for counts in plan.counts().values():
            assert counts == {"train": 72, "val": 8, "test": 20}
    seen = {file.path for plan in plans for file in plan.of("val")}
    assert len(seen) > 40  # five times the same would be 16 to 32


def test_the_plan_depends_on_the_seed_only():
    """Oracle: the plan of the same seed, and of another."""
    data = random_data(1)
    assert plan_folds(data, 4, 7) == plan_folds(data, 4, 7)
    assert plan_folds(data, 4, 7) != plan_folds(data, 4, 8)


def test_too_few_images_are_refused():
    """Oracle: 4 contents for 5 folds; a class whose images are all copies of one."""
    few = data_of({"cat": ["1", "2"], "dog": ["3", "4"]})
    with pytest.raises(UsageError, match="folds=5: must be at most"):
        plan_folds(few, 5)
    alike = data_of({"cat": ["1"] * 4, "dog": ["2", "3", "4", "5"]})
    with pytest.raises(AlexNetError, match="class 'cat': all its images are in fold"):
        plan_folds(alike, 2)


@pytest.mark.parametrize(("n_classes", "n"), [(100, 6), (100, 3), (7, 12)])
def test_what_is_left_over_of_many_classes_is_spread(n_classes: int, n: int) -> None:
    """Oracle: all images by the number of folds; each class has as many in each, or one more."""
    data = data_of({f"c{c:03}": [f"{c}-{i}" for i in range(n)] for c in range(n_classes)})
    sizes = [len(plan.of("test")) for plan in plan_folds(data, 5)]
    assert max(sizes) - min(sizes) <= 1
    for plan in plan_folds(data, 5):
        of_class = Counter(file.label for file in plan.of("test"))
        assert {of_class[label] for label in data.classes} <= {n // 5, n // 5 + 1}
