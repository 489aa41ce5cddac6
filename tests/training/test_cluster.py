"""Several workers: who they are, how they meet, and that they train as one process does."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_same_run

from alexnet_cli.errors import UsageError
from alexnet_cli.runs.weights_file import load_arrays
from alexnet_cli.training.cluster import Cluster, WorkerMissing, find_cluster, wait_for_workers

THREE = ("a:1", "b:2", "c:3")


def tf_config(workers, index, kind="worker", **jobs):
    cluster = {"cluster": {"worker": list(workers), **jobs}, "task": {"type": kind, "index": index}}
    return {"TF_CONFIG": json.dumps(cluster)}


def slurm(nodes, tasks, rank):
    return {
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_PROCID": str(rank),
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_STEP_TASKS_PER_NODE": tasks,
        "SLURM_JOB_ID": "40007",
    }


# Who they are


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        (("a:1,b:2,c:3", 2), {}, Cluster(THREE, 2)),
        ((None, None), {}, None),
        ((None, None), tf_config(THREE, 1), Cluster(THREE, 1)),
        ((None, None), tf_config(THREE[1:], 0, chief=["a:1"]), Cluster(THREE, 1)),
        ((None, None), tf_config(THREE[1:], 0, "chief", chief=["a:1"]), Cluster(THREE, 0)),
        ((None, None), tf_config(["a:1"], 0), None),
        ((None, None), {"TF_CONFIG": "{}"}, None),
        (("x:1,y:2", 0), tf_config(THREE, 1), Cluster(("x:1", "y:2"), 0)),  # what is typed wins
        (
            (None, None),
            slurm("gpu[08-10],login", "1(x4)", 3),
            Cluster(("gpu08:12328", "gpu09:12328", "gpu10:12328", "login:12328"), 3),
        ),
        (
            (None, None),
            slurm("n[1,5]", "2(x2)", 1),
            Cluster(("n1:12328", "n1:12329", "n5:12328", "n5:12329"), 1),
        ),
        ((None, None), {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        ((None, None), {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None),  # a batch script
    ],
)
def test_a_cluster_is_read_from_options_tf_config_or_slurm(options, environment, expected):
    """Oracle: TensorFlow's and Slurm's documented forms, by hand; 12321 + 40007 mod 10,000."""
    assert find_cluster(*options, environment) == expected


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (("a:1,b:2", None), {}, "--workers: say with --worker which"),
        ((None, 1), {}, "--worker: needs --workers"),
        (("a:1,b", 0), {}, "--workers: 'b' is not host:port"),
        (("a:1,b:70000", 0), {}, "--workers: 'b:70000' is not host:port"),
        (("a:1,a:1", 0), {}, "--workers: an address is there twice"),
        (("a:1,b:2", 2), {}, "--workers: worker 2 is not one of 0 to 1"),
        ((None, None), {"TF_CONFIG": "{"}, "TF_CONFIG: must be JSON"),
        ((None, None), {"TF_CONFIG": "[]"}, "TF_CONFIG: must be JSON"),
        ((None, None), tf_config(THREE, 3), "TF_CONFIG: worker 3 is not one of 0 to 2"),
        ((None, None), tf_config(THREE, "1"), "TF_CONFIG: worker '1' is not one of"),
        ((None, None), tf_config(THREE, 0, "ps"), "TF_CONFIG: task type 'ps' is neither"),
        ((None, None), slurm("n[1,5]", "many", 0), "Slurm: its variables can't be read: 'many'"),
        ((None, None), slurm("n[1,5]", "2", 0), "Slurm: its variables can't be read"),
        (
            (None, None),
            {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"},
            "Slurm: its variables can't",
        ),
    ],
)
def test_a_configuration_that_makes_no_sense_gets_one_line(options, environment, message):
    with pytest.raises(UsageError, match=message) as error:
        find_cluster(*options, environment)
    assert "\n" not in str(error.value)


# How they meet


def addresses(count):
    """Free ports of this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    names = tuple(f"127.0.0.1:{s.getsockname()[1]}" for s in sockets)
    for s in sockets:
        s.close()
    return names


def meet_in_threads(workers, indices, wait_seconds):
    """Let some of the workers meet; returns what each raised, if anything."""
    raised = {}

    def arrive(index):
        try:
            wait_for_workers(Cluster(workers, index), wait_seconds)
        except WorkerMissing as error:
            raised[index] = str(error)

    threads = [threading.Thread(target=arrive, args=(index,)) for index in indices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()
    return raised


def test_all_meet_and_the_port_is_free_again():
    """Oracle: the port itself, bound as TensorFlow will; twice, as a job is restarted."""
    workers = addresses(3)
    for _ in range(2):
        assert meet_in_threads(workers, (2, 0, 1), 20) == {}
        host, port = workers[0].split(":")
        socket.create_server((host, int(port))).close()


@pytest.mark.parametrize(("present", "missing"), [((0, 1), 2), ((1, 2), 0)])
def test_who_is_missing_is_named_to_all(present, missing):
    """Oracle: the address of the one who did not come; exit code 69."""
    workers = addresses(3)
    raised = meet_in_threads(workers, present, 1.5)
    assert raised.keys() == set(present)
    assert all(text.endswith(workers[missing]) for text in raised.values())
    assert WorkerMissing.exit_code == 69


def test_a_stranger_does_not_count():
    workers = addresses(2)
    host, port = workers[0].split(":")

    def knock():
        time.sleep(0.3)
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")

    stranger = threading.Thread(target=knock)
    stranger.start()
    raised = meet_in_threads(workers, (0,), 1.5)
    stranger.join()
    assert raised[0].endswith(workers[1])


# How they train

TINY_NETWORK = [
    "--recipe",
    "paper",  # its rate does not depend on the length of the run
    "--set",
    "resize_size=72",
    "--set",
    "crop_size=64",
    "--set",
    "conv1.filters=8",
    "--set",
    "conv2.filters=12",
    "--set",
    "conv3.filters=8",
    "--set",
    "conv4.filters=8",
    "--set",
    "conv5.filters=8",
    "--set",
    "conv1.stddev=none",
    "--set",
    "conv2.stddev=none",
    "--set",
    "conv3.stddev=none",
    "--set",
    "conv4.stddev=none",
    "--set",
    "conv5.stddev=none",
    "--set",
    "fc6.units=16",
    "--set",
    "fc7.units=16",
    "--set",
    "fc6.stddev=none",
    "--set",
    "fc7.stddev=none",
    "--batch-size",
    "5",
    "--gpus",
    "0",
    "--precision",
    "float32",
]


class Job:
    """Workers as processes of this machine."""

    def __init__(self, count, *arguments, hosts=None):
        """Start them, by default on loopback; or each in its network namespace, name → address."""
        self.workers, self.namespaces = addresses(count), tuple(hosts or ())
        if hosts:
            self.workers = tuple(f"{address}:12345" for address in hosts.values())
        self.processes = [
            self.start(index, *map(str, arguments)) for index in range(len(self.workers))
        ]

    def start(self, index, *arguments):
        which = ["--workers", ",".join(self.workers), "--worker", str(index)]
        if len(self.workers) == 1:
            which = []
        inside = ["ip", "netns", "exec", self.namespaces[index]] if self.namespaces else []
        command = [*inside, sys.executable, "-m", "alexnet_cli", "train", *arguments, *which]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)

    def wait_for_epoch(self, epoch):
        """Read the first worker's table up to that epoch."""
        for line in self.processes[0].stdout:
            if line.split()[:1] == [str(epoch)]:
                return
        raise AssertionError(self.processes[0].stderr.read())

    def finish(self):
        """Wait for all; returns exit codes and what stood on standard error."""
        errors = [process.communicate(timeout=120)[1] for process in self.processes]
        return [process.returncode for process in self.processes], errors


def start_training(count, data, out, *options):
    return Job(count, data, *TINY_NETWORK, "--out", out, *options)


def test_two_and_three_workers_reach_the_weights_of_one_process(photographs, tmp_path):
    """Oracle: one process. Batches of 5 from 33 images: the last is three, one per worker or none.

    The first finds the kernels that all start from.
    """
    options = ("--epochs", 2, "--variant", "no-dropout", "--set", "kmeans_init=true")
    states, metrics = {}, {}
    outs = {count: tmp_path / str(count) for count in (1, 2, 3)}
    jobs = {n: start_training(n, photographs, out, *options) for n, out in outs.items()}
    for count, out in outs.items():
        codes, errors = jobs[count].finish()
        assert codes == [0] * count, errors
        states[count] = load_arrays(out / "latest" / "last.npz")
        metrics[count] = json.loads((out / "latest" / "metrics.json").read_text())
        assert len(list(out.iterdir())) == 2  # one run, by the chief alone, and `latest`
    for count in (2, 3):
        for name, expected in states[1].items():
            if name != "notes":
                found = states[count][name]
                np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-6, err_msg=name)
        assert metrics[count]["last"]["val"]["n"] == metrics[1]["last"]["val"]["n"]
    assert np.abs(states[1]["velocity/fc8/kernel"]).max() > 1e-5


@pytest.fixture
def two_networks():
    """Two network namespaces joined by a cable, name → address, where the machine allows it."""
    names = [f"alexnet-{os.getpid()}-{end}" for end in "ab"]
    cable = [f"ax{os.getpid()}{end}" for end in "ab"]
    hosts = dict(zip(names, ("10.77.0.1", "10.77.0.2")))
    commands = [f"netns add {name}" for name in names]
    commands += [f"link add {cable[0]} type veth peer name {cable[1]}"]
    for end, (name, address) in zip(cable, hosts.items()):
        commands += [f"link set {end} netns {name}", f"-n {name} link set lo up"]
        commands += [
            f"-n {name} address add {address}/24 dev {end}",
            f"-n {name} link set {end} up",
        ]
    try:
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)
        yield hosts
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine makes no network namespaces")
    finally:
        for name in names:
            with contextlib.suppress(OSError):
                subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_workers_on_two_networks_train_as_one_process(photographs, tmp_path, two_networks):
    """Oracle: one process. Loopback does not lead from one namespace to the other."""
    options = (*TINY_NETWORK, "--epochs", 1, "--variant", "no-dropout")
    both = Job(2, photographs, *options, "--out", tmp_path / "two", hosts=two_networks)
    alone = Job(1, photographs, *options, "--out", tmp_path / "one")
    for job in (both, alone):
        codes, errors = job.finish()
        assert codes == [0] * len(codes), errors
    one, two = (load_arrays(tmp_path / n / "latest" / "last.npz") for n in ("one", "two"))
    for name in one.keys() - {"notes"}:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-3, atol=2e-6, err_msg=name)


def test_a_killed_worker_ends_all_and_the_job_continues_bit_identically(photographs, tmp_path):
    """Oracle: two workers that nobody disturbed, dropout, velocities and history included."""
    job = start_training(2, photographs, tmp_path / "cut", "--epochs", 10_000)
    job.wait_for_epoch(2)
    time.sleep(random.Random(0).uniform(0, 0.5))
    job.processes[1].kill()
    codes, errors = job.finish()
    assert codes == [75, -signal.SIGKILL]
    assert "a worker died or froze" in errors[0]
    cut = (tmp_path / "cut" / "latest").resolve()
    assert f"continue with: alexnet train --resume {cut}" in errors[0]
    done = json.loads(load_arrays(cut / "last.npz", only="notes")["notes"].tobytes())["epoch"]
    resume = ("--resume", cut, "--epochs", done + 1, "--gpus", 0)
    codes, errors = Job(2, *resume).finish()
    assert codes == [0, 0], errors
    whole = start_training(2, photographs, tmp_path / "whole", "--epochs", done + 1)
    assert whole.finish()[0] == [0, 0]
    assert_same_run(cut, (tmp_path / "whole" / "latest").resolve())


def test_signals_end_every_worker(photographs, tmp_path):
    """Oracle: the exit codes of shells; the finished epoch is safe."""
    numbers = {143: signal.SIGTERM, 130: signal.SIGINT}
    jobs = {
        n: start_training(2, photographs, tmp_path / str(n), "--epochs", 10_000) for n in numbers
    }
    for code, number in numbers.items():
        job = jobs[code]
        job.wait_for_epoch(1)
        for process in job.processes:
            process.send_signal(number)
        codes, errors = job.finish()
        assert codes == [code, code], "".join(errors)
        assert "is safe" in errors[0]
        assert "Traceback" not in errors[0] + errors[1]


def test_workers_that_see_different_images_say_so(photographs, tmp_path):
    other = tmp_path / "other"
    for path in sorted(photographs.rglob("*.png"))[1:]:
        target = other / path.relative_to(photographs)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
    job = Job(0)
    job.workers = addresses(2)
    job.processes = [
        job.start(index, str(data), *TINY_NETWORK, "--out", str(tmp_path / str(index)))
        for index, data in enumerate((photographs, other))
    ]
    codes, errors = job.finish()
    assert codes == [1, 1]
    assert all("the workers see different images" in text for text in errors)


@pytest.mark.parametrize(
    ("code", "restarts", "again"),
    [(0, 0, 0), (2, 0, 0), (75, 19, 1), (75, 20, 0), (137, 0, 1), (143, 0, 0)],
)
def test_slurms_script_goes_on_with_the_newest_run_and_tries_again(tmp_path, code, restarts, again):
    """Oracle: the calls that stand-ins for Slurm's programs note; the run that was written last."""
    for name, then in (("srun", f"exit {code}"), ("scontrol", "exit 0")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> calls\n{then}\n')
        program.chmod(0o755)
    for number, name in enumerate(("new", "old")):
        state = tmp_path / "runs" / name / "last.npz"
        state.parent.mkdir(parents=True)
        state.touch()
        os.utime(state, (1000 - number, 1000 - number))
    script = Path(__file__).parents[2] / "examples" / "cluster" / "train.slurm"
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    environment = {"PATH": path, "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts)}
    done = subprocess.run(["bash", script], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == code
    first, *others = (tmp_path / "calls").read_text().splitlines()
    assert first.endswith(f"alexnet train --resume {tmp_path}/runs/new")
    assert others == ["scontrol requeue 7"] * again
