"""Run many damaged inputs, drawn from a seed, in processes of their own; count the outcomes.

Seed and number determine each input, so that a run continues with `--first`, and a finding is
repeated with `--first NUMBER --mutations 1`. An exception that the subject does not expect, a crash,
and an input that takes longer than `LIMIT` are findings; their inputs are kept in OUT.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

LIMIT = 10  # seconds for one input
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
FINDINGS = ("crash", "hang", "unexpected")


class Subject(Protocol):
    """What is fuzzed."""

    memory: int  # bytes that a worker may take beyond what it has at its start
    kinds: Sequence[str]  # of inputs, for the table

    def mutate(self, draw: random.Random) -> tuple[str, Any]:
        """Return the kind of an input, and the input."""

    def keep(self, content: Any, path: Path) -> None:
        """Write an input to `path`, a file or a folder."""

    def outcome_of(self, content: Any) -> str:
        """Try one input and return the outcome in words; those of `FINDINGS` start with the finding."""


def take(subject: Subject, number: int, seed: int) -> tuple[str, Any]:
    """Return input `number`: its kind, and the input."""
    return subject.mutate(random.Random(f"{seed}:{number}"))


def try_one(subject: Subject, content: Any) -> str:
    """Return the outcome of one input; any exception that escapes is unexpected."""
    try:
        return subject.outcome_of(content)
    except BaseException as error:
        return f"unexpected: {error!r:.300}"


# Damage to bytes


def damage(content: bytearray, draw: random.Random, others: Sequence[bytes]) -> bytearray:
    """Return `content`, never empty, with one to four places damaged; `others` are spliced in."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        change = draw.choice((_flip, _set, _set, _splice, _cut, _insert, _remove, _repeat))
        content = change(content, draw, others) or bytearray(1)
    return content


def _place(content: bytearray, draw: random.Random) -> int:
    """Return a random position, half of the time among the headers."""
    return draw.randrange(min(len(content), draw.choice((256, len(content)))))


def _flip(content: bytearray, draw: random.Random, _others: Sequence[bytes]) -> bytearray:
    for _ in range(draw.choice((1, 2, 16))):
        content[_place(content, draw)] ^= 1 << draw.randrange(8)
    return content


def _set(content: bytearray, draw: random.Random, _others: Sequence[bytes]) -> bytearray:
    width = draw.choice((1, 2, 4))
    value = draw.choice(EXTREMES) & (256**width - 1)
    place = _place(content, draw)
    content[place : place + width] = value.to_bytes(width, draw.choice(("big", "little")))
    return content


def _splice(content: bytearray, draw: random.Random, others: Sequence[bytes]) -> bytearray:
    other = draw.choice(others)
    start, end = sorted(draw.randrange(len(other)) for _ in range(2))
    place = _place(content, draw)
    return content[:place] + other[start:end] + content[place + draw.choice((0, end - start)) :]


def _cut(content: bytearray, draw: random.Random, _others: Sequence[bytes]) -> bytearray:
    return content[: draw.randrange(len(content))]


def _insert(content: bytearray, draw: random.Random, _others: Sequence[bytes]) -> bytearray:
    place = _place(content, draw)
    return content[:place] + draw.randbytes(draw.choice((1, 4, 300))) + content[place:]


def _remove(content: bytearray, draw: random.Random, _others: Sequence[bytes]) -> bytearray:
    place = _place(content, draw)
    return content[:place] + content[place + draw.choice((1, 4, 300)) :]


def _repeat(content: bytearray, draw: random.Random, _others: Sequence[bytes]) -> bytearray:
    start, end = sorted(draw.randrange(len(content)) for _ in range(2))
    return content[:end] + content[start:end] * draw.choice((1, 1, 40)) + content[end:]


# Workers


def limit_memory(more: int) -> None:
    """Let the address space of this process grow by no more than so many bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _work(
    make: Callable[[Path], Subject], numbers: range, seed: int, results: Connection, chatter: Path
) -> None:
    """Try the inputs of `numbers`; send kind, outcome, seconds and peak memory in kB of each."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(chatter, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    subject = make(Path(tempfile.mkdtemp(dir=chatter.parent)))
    limit_memory(subject.memory)
    results.send(None)
    for number in numbers:
        kind, content = take(subject, number, seed)
        began = time.perf_counter()
        outcome = try_one(subject, content)
        seconds = time.perf_counter() - began
        results.send((kind, outcome, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


@dataclass
class Tally:
    """Counts of the outcomes so far, the slowest input and the one that took most memory."""

    make: Callable[[Path], Subject]
    seed: int
    out: Path
    scratch: Path
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest: tuple[float, int] = (0.0, -1)
    largest: tuple[int, int] = (0, -1)
    lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        """Make a subject of its own, which draws the inputs of findings again."""
        self.subject = self.make(self.scratch)

    def add(self, number: int, kind: str, outcome: str, seconds: float, memory: int) -> None:
        """Count one outcome; print a finding and keep its input."""
        with self.lock:
            self.counts[kind, outcome.partition(": ")[0] if _is_finding(outcome) else outcome] += 1
            self.slowest = max(self.slowest, (seconds, number))
            self.largest = max(self.largest, (memory, number))
            if _is_finding(outcome):
                self.out.mkdir(parents=True, exist_ok=True)
                path = self.out / f"{self.seed}-{number}"
                self.subject.keep(take(self.subject, number, self.seed)[1], path)
                print(f"{outcome}: {kind}, kept in {path}", flush=True)


def _is_finding(outcome: str) -> bool:
    return outcome.startswith(FINDINGS)


def drive(numbers: range, tally: Tally, chatter: Path) -> None:
    """Try the inputs of `numbers` in a worker, and start another one after each that dies."""
    context = multiprocessing.get_context("fork")
    while numbers:
        results, other = context.Pipe(duplex=False)
        arguments = (tally.make, numbers, tally.seed, other, chatter)
        worker = context.Process(target=_work, args=arguments)
        worker.start()
        other.close()
        try:
            results.recv()  # it is ready
            while numbers:
                number, outcome = numbers[0], "hang"
                if results.poll(LIMIT):
                    try:
                        tally.add(number, *results.recv())
                        numbers = numbers[1:]
                        continue
                    except EOFError:
                        worker.join()
                        outcome = f"crash: exit code {worker.exitcode}"
                kind = take(tally.subject, number, tally.seed)[0]
                tally.add(number, kind, outcome, LIMIT * (outcome == "hang"), 0)
                numbers = numbers[1:]
                break
        finally:
            worker.kill()
            worker.join()


def report(tally: Tally, seconds: float, chatter: Path) -> None:
    """Print a row for each kind of input, and the extremes."""
    outcomes = sorted({outcome for _, outcome in tally.counts})
    print(f"{'':<28}" + "".join(f"{outcome:>26}" for outcome in outcomes))
    for kind in (*tally.subject.kinds, "all"):
        cells = [
            sum(n for (k, o), n in tally.counts.items() if o == outcome and kind in (k, "all"))
            for outcome in outcomes
        ]
        print(f"{kind:<28}" + "".join(f"{n:>26,}" for n in cells))
    print(f"slowest: {tally.slowest[0]:.3f} s, input {tally.slowest[1]}")
    print(
        f"peak memory of a worker: {tally.largest[0] / 1024:.0f} MiB, by input {tally.largest[1]}"
    )
    lines = chatter.read_text(errors="replace").splitlines() if chatter.exists() else []
    print(f"lines that libraries wrote to standard error: {len(lines):,}")
    for text, n in Counter(lines).most_common(10):
        print(f"  {n:,} times {text!r}")
    print(f"{seconds:.0f} s in total")


def main(make: Callable[[Path], Subject], default_mutations: int) -> None:
    """Try all inputs, and report the outcomes; exits with 1 if there are findings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mutations", type=int, default=default_mutations)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz"))
    given = parser.parse_args()
    n_workers, began = os.cpu_count() or 1, time.perf_counter()
    end = given.first + given.mutations
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(n_workers) as pool:
        tally = Tally(make, given.seed, given.out, Path(folder, "tally"))
        chatter = Path(folder, "chatter")
        parts = [range(given.first + part, end, n_workers) for part in range(n_workers)]
        list(pool.map(lambda part: drive(part, tally, chatter), parts))
        report(tally, time.perf_counter() - began, chatter)
    raise SystemExit(any(outcome.startswith(FINDINGS) for _, outcome in tally.counts))
