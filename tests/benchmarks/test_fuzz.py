"""A small sample of the inputs that the fuzzers of the benchmarks try."""

from __future__ import annotations

import pytest

from benchmarks.fuzz_commands import COMMANDS, NAMES, CommandLines
from benchmarks.fuzz_harness import FINDINGS, take, try_one
from benchmarks.fuzz_runs import Runs

N_INPUTS, N_LINES = 150, 80


def test_changed_runs_and_weights_are_refused_in_one_line_or_loaded(tmp_path):
    """Oracle: a loaded model or `AlexNetError`; the files unchanged are loaded, most others are not."""
    runs = Runs(tmp_path)
    for pristine in ("config.json", "bvlc_alexnet.npy"):
        assert runs.outcome_of({pristine: runs.files[pristine]}) == "loaded"
    outcomes = []
    for number in range(N_INPUTS):
        kind, changed = take(runs, number, seed=1)
        outcomes.append(try_one(runs, changed))
        assert not outcomes[-1].startswith(FINDINGS), (number, kind, outcomes[-1])
    assert 0 < outcomes.count("loaded") < N_INPUTS / 2


@pytest.fixture(scope="module")
def command_lines(tmp_path_factory):
    return CommandLines(tmp_path_factory.mktemp("lines"))


def test_silly_command_lines_end_in_one_line(command_lines):
    """Oracle: exit code 0, 1 or 2, and one line on standard error where it is not 0."""
    for number in range(N_LINES):
        words = command_lines.draw(number, seed=1)
        assert command_lines.problem(words) is None, (number, words)


def test_all_options_and_names_take_part(command_lines):
    """Oracle: the options of the application and the names of `--set`, among the benchmark's lines."""
    words = [word for number in range(5000) for word in command_lines.draw(number, seed=0)]
    options = {
        p.opts[0] for command in COMMANDS.values() for p in command.params if p.opts[0][0] == "-"
    }
    typed = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert options <= typed
    text = "\n".join(words)
    assert [name for name in NAMES if f"{name}=" not in text] == []


def test_a_finding_is_reported(command_lines, monkeypatch):
    """The positive control: a command that raises, as a bug would, and one that writes two lines."""
    words = ["recipes", "modern"]
    assert command_lines.problem(words) is None
    for error, message in (
        (ValueError("a bug"), "ValueError: a bug"),
        (SystemExit(3), "ends with 3"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr("alexnet_cli.cli.tables.show_paper_comparison", _raise(error))
            assert message in command_lines.problem(words)


def _raise(error):
    def fail(*_):
        raise error

    return fail
