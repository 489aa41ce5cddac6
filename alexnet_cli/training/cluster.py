"""Training on several machines: find the cluster, and wait until all workers have started.

TensorFlow waits more than ten minutes for a worker that never starts, and ignores signals meanwhile.
So the workers first find each other over plain TCP, on the addresses that TensorFlow will use.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from alexnet_cli.errors import AlexNetError, UsageError

WAIT_SECONDS = 120.0
_UNEQUAL = "the workers have different numbers of devices"
SLURM_PORT = 12321  # plus the job's number, so that two jobs on one machine do not share a port


class WorkerMissing(AlexNetError):
    """A worker did not start in time (EX_UNAVAILABLE)."""

    exit_code = 69


class WorkerLost(AlexNetError):
    """A worker died or froze while training; restarting all workers continues (EX_TEMPFAIL)."""

    exit_code = 75


@dataclass(frozen=True)
class Cluster:
    """The addresses of all workers, as `host:port`, and the index of this worker among them."""

    workers: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Return whether this worker writes the run folder."""
        return self.index == 0

    @property
    def n_on_this_machine(self) -> int:
        """The number of workers whose address has the same host as that of this worker."""
        hosts = [_split(address)[0] for address in self.workers]
        return hosts.count(hosts[self.index])


def find_cluster(
    hosts: Sequence[str] | None, rank: int | None, environment: Mapping[str, str]
) -> Cluster | None:
    """Return the cluster of the arguments, else of TF_CONFIG, else of Slurm's variables.

    Returns None for fewer than two workers; raises `UsageError` for an invalid configuration.
    """
    if hosts is not None:
        if rank is None:
            raise UsageError("is missing: the index of this machine in hosts", argument="rank")
        try:
            return _cluster([*hosts], rank)
        except ValueError as error:
            raise UsageError(
                str(error), argument="hosts", value=",".join(map(str, hosts))
            ) from None
    if rank is not None:
        reason = "needs hosts, all addresses as host:port,host:port"
        raise UsageError(reason, argument="rank", value=rank)
    if "TF_CONFIG" in environment:
        return _from_tf_config(environment["TF_CONFIG"])
    if environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":  # under srun; a batch script has none
        return _from_slurm(environment)
    return None


def _cluster(workers: Any, index: Any) -> Cluster | None:
    """Return the cluster, or None for one worker. Raises `ValueError` for an invalid one."""
    if not isinstance(workers, list) or not all(isinstance(w, str) for w in workers):
        raise ValueError("the workers must be a list of host:port")
    for address in workers:
        if not _is_address(address):
            raise ValueError(f"{address[:60]!r} is not host:port")
    if len({*workers}) < len(workers):
        raise ValueError("an address is there twice")
    if not isinstance(index, int) or not 0 <= index < len(workers):
        raise ValueError(f"worker {index!r} is not one of 0 to {len(workers) - 1}")
    return Cluster(tuple(workers), index) if len(workers) > 1 else None


def _is_address(text: str) -> bool:
    """Return whether `text` is host:port, its host a name or an IP address, version 6 in brackets."""
    found = re.fullmatch(r"([\w.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", text)
    try:
        return bool(found and found[1].encode("idna") and 0 < int(found[2]) < 65536)
    except UnicodeError:  # a part of the name is empty, or has more than 63 characters
        return False


def _from_tf_config(text: str) -> Cluster | None:
    try:
        config = json.loads(text)
        jobs, task = config.get("cluster", {}), config.get("task", {})
        kind, index = task.get("type", "worker"), task.get("index", 0)
        chief, workers = jobs.get("chief", []), jobs.get("worker", [])
    except (ValueError, AttributeError):
        raise UsageError("TF_CONFIG: must be JSON with `cluster` and `task`") from None
    if not chief and not workers:
        return None
    if kind not in ("chief", "worker") or (kind == "chief" and not chief):
        raise UsageError(f"TF_CONFIG: task type {kind!r} is neither chief nor worker")
    if kind == "worker" and isinstance(index, int):
        index += len(chief)
    try:
        return _cluster([*chief, *workers], index)
    except ValueError as error:
        raise UsageError(f"TF_CONFIG: {error}") from None


def _from_slurm(environment: Mapping[str, str]) -> Cluster | None:
    """Build an address for each task of the job: its node, and a port by its place on the node."""
    try:
        per_node = _slurm_tasks(environment["SLURM_STEP_TASKS_PER_NODE"])
        hosts = _slurm_hosts(environment["SLURM_STEP_NODELIST"])
        first_port = SLURM_PORT + int(environment.get("SLURM_JOB_ID", "0")) % 10_000
        workers = [
            f"{host}:{first_port + place}"
            for host, n_tasks in zip(hosts, per_node, strict=True)
            for place in range(n_tasks)
        ]
        return _cluster(workers, int(environment["SLURM_PROCID"]))
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"Slurm: its variables can't be read: {error}; use --hosts and --rank"
        ) from None


def _slurm_tasks(text: str) -> list[int]:
    """Expand `2(x3),1` into 2, 2, 2, 1."""
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if not match:
            raise ValueError(f"{text!r} is not a list of task counts")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _slurm_hosts(text: str) -> list[str]:
    """Return the hosts of Slurm's list, as `scontrol` expands it, or else by our own simple rules."""
    try:
        command = ["scontrol", "show", "hostnames", text]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=True
        )
        hosts = done.stdout.decode().split()
    except (OSError, subprocess.SubprocessError, ValueError):  # not installed, or it failed
        hosts = []
    return hosts or _expand_hosts(text)


def _expand_hosts(text: str) -> list[str]:
    """Expand `gpu[01-03,7],login` into gpu01, gpu02, gpu03, gpu7, login.

    Raises `ValueError` for several brackets in one name, whose order only `scontrol` knows.
    """
    hosts: list[str] = []
    for name in re.split(r",(?![^\[]*\])", text):
        match = re.fullmatch(r"([^\[\]]+)(?:\[([-,\d]+)\]([^\[\]]*))?", name)
        if not match:
            raise ValueError(f"{name!r} can't be expanded without scontrol")
        prefix, ranges, suffix = match.groups(default="")
        if not ranges:
            hosts.append(prefix)
            continue
        for part in ranges.split(","):
            low, _, high = part.partition("-")
            for number in range(int(low), int(high or low) + 1):
                hosts.append(f"{prefix}{number:0{len(low)}}{suffix}")
    return hosts


# Waiting for each other


def wait_for_workers(
    cluster: Cluster, wait_seconds: float = WAIT_SECONDS, *, n_devices: int = 1
) -> None:
    """Wait until all workers have started, each with `n_devices` of its own.

    The chief listens on its own address, and the other workers connect to it. All return at the
    same time. Raises `WorkerMissing` with the addresses of the others, or `AlexNetError` if the
    numbers of devices differ, in which case TensorFlow would wait for ever.
    """
    deadline = time.monotonic() + wait_seconds
    if cluster.is_chief:
        _gather(cluster, n_devices, deadline, wait_seconds)
    else:
        _report(cluster, n_devices, deadline, wait_seconds)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _gather(cluster: Cluster, n_devices: int, deadline: float, wait_seconds: float) -> None:
    own = cluster.workers[0]
    found = {0: n_devices}
    with ExitStack() as open_sockets:
        try:
            family = socket.getaddrinfo(*_split(own), type=socket.SOCK_STREAM)[0][0]
            server = socket.create_server(("", _split(own)[1]), family=family)
        except OSError as error:
            raise AlexNetError(f"{own}: can't listen there: {error.strerror}") from None
        open_sockets.enter_context(server)
        waiting = []
        while len(found) < len(cluster.workers) and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                connection, _ = server.accept()
                open_sockets.enter_context(connection)
                connection.settimeout(5)
                line = connection.recv(64).decode(errors="replace").split()
            except OSError:
                continue
            if len(line) == 3 and line[0] == "alexnet" and all(map(str.isdecimal, line[1:])):
                found[int(line[1])] = int(line[2])
                waiting.append(connection)
        problem = _find_problem(cluster, found, wait_seconds)
        for connection in waiting:
            try:
                connection.sendall((str(problem) if problem else "go").encode() + b"\n")
                connection.recv(1)  # the worker closes first, so that the port is free at once
            except OSError:
                pass
    if problem:
        raise problem


def _find_problem(
    cluster: Cluster, found: Mapping[int, int], wait_seconds: float
) -> AlexNetError | None:
    """Return the error for the numbers of devices of the workers that were `found`, by index."""
    missing = [worker for n, worker in enumerate(cluster.workers) if n not in found]
    if missing:
        return WorkerMissing(
            f"after {wait_seconds:.0f} s these workers were missing: {', '.join(missing)}"
        )
    if len({*found.values()}) > 1:
        counts = ", ".join(f"{worker}: {found[n]}" for n, worker in enumerate(cluster.workers))
        return AlexNetError(f"{_UNEQUAL} ({counts}); give all of them the same --gpus")
    return None


def _report(cluster: Cluster, n_devices: int, deadline: float, wait_seconds: float) -> None:
    chief = cluster.workers[0]
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(_split(chief), timeout=2) as connection:
                connection.sendall(f"alexnet {cluster.index} {n_devices}\n".encode())
                connection.settimeout(max(1, deadline + 5 - time.monotonic()))
                answer = connection.recv(4096).decode(errors="replace").strip()
        except OSError:
            time.sleep(0.2)
            continue
        if answer == "go":
            return
        if answer:
            raise AlexNetError(answer) if answer.startswith(_UNEQUAL) else WorkerMissing(answer)
    raise WorkerMissing(f"after {wait_seconds:.0f} s the first worker was missing: {chief}")
