"""Several workers: who they are, how they meet, and that they train as one process does."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from helpers import HANG, TINY, assert_close, assert_same_run

from alexnet_cli.data.manifest import Manifest
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.runs.checkpoint import CheckpointMeta
from alexnet_cli.runs.run_folder import LAST, RunConfig, RunFolder
from alexnet_cli.runs.weights_file import load_arrays, save_arrays
from alexnet_cli.training.cluster import Cluster, find_cluster, wait_for_workers

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


def stand_in(folder, name, then):
    """Make folder/bin/name, a program that adds its name and arguments to `calls` where it runs."""
    program = folder / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\necho {name} "$@" >> calls\n{then}\n')
    program.chmod(0o755)


@pytest.fixture
def no_scontrol(monkeypatch, tmp_path):
    """A machine without Slurm's programs."""
    monkeypatch.setenv("PATH", str(tmp_path))


def cluster_of(options, environment):
    """The cluster of these --hosts and --rank."""
    hosts, rank = options
    return find_cluster(hosts.split(",") if hosts else None, rank, environment)


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
@pytest.mark.usefixtures("no_scontrol")
def test_a_cluster_is_read_from_options_tf_config_or_slurm(options, environment, expected):
    """Oracle: TensorFlow's and Slurm's documented forms, by hand; 12321 + 40007 mod 10,000."""
    assert cluster_of(options, environment) == expected


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (("a:1,b:2", None), {}, "rank: is missing"),
        ((None, 1), {}, "rank=1: needs hosts"),
        (("a:1,b", 0), {}, "hosts='a:1,b': 'b' is not host:port"),
        (("a:1,b:70000", 0), {}, "hosts='a:1,b:70000': 'b:70000' is not host:port"),
        (("a:1,a:1", 0), {}, "hosts='a:1,a:1': an address is there twice"),
        (("a:1,b:2", 2), {}, "hosts='a:1,b:2': worker 2 is not one of 0 to 1"),
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
        (
            (None, None),
            slurm("login,rack[1-2]node[01-02]", "1(x5)", 0),
            r": 'rack\[1-2\]node\[01-02\]' can't be expanded without scontrol; use --",
        ),
        ((None, None), slurm("n[1,x]", "1(x2)", 0), r"'n\[1,x\]' can't be expanded"),
        ((None, None), slurm("n[1-2", "1(x2)", 0), r"'n\[1-2' can't be expanded"),
        ((None, None), slurm("n1,,n2", "1(x3)", 0), "'' can't be expanded"),
    ],
)
@pytest.mark.usefixtures("no_scontrol")
def test_an_invalid_configuration_gets_one_line(options, environment, message):
    """Oracle: the source of the configuration and the value that is wrong in it."""
    with pytest.raises(UsageError, match=message) as error:
        cluster_of(options, environment)
    assert "\n" not in str(error.value)


def test_scontrol_expands_slurms_list_of_hosts(tmp_path, monkeypatch):
    """Oracle: a stand-in that notes how it is called and answers as Slurm's own program does."""
    answer = "rack1node01\nrack1node02\nrack2node01\nrack2node02\n"
    stand_in(tmp_path, "scontrol", f"printf '{answer}'")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.chdir(tmp_path)
    found = find_cluster(None, None, slurm("rack[1-2]node[01-02]", "1(x4)", 2))
    assert found == Cluster(tuple(f"{host}:12328" for host in answer.split()), 2)
    assert (tmp_path / "calls").read_text() == "scontrol show hostnames rack[1-2]node[01-02]\n"


@pytest.mark.parametrize("answer", ["exit 1", "echo n1; exit 1", ":", "printf '\\377'"])
def test_a_failing_scontrol_leaves_the_list_to_our_own_rules(tmp_path, monkeypatch, answer):
    """Oracle: the hosts by hand, for a stand-in that fails, says nothing or what is no text."""
    stand_in(tmp_path, "scontrol", answer)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.chdir(tmp_path)
    found = find_cluster(None, None, slurm("gpu[1-2]-ib,login", "2,1(x2)", 0))
    hosts = ("gpu1-ib:12328", "gpu1-ib:12329", "gpu2-ib:12328", "login:12328")
    assert found == Cluster(hosts, 0)
    assert (tmp_path / "calls").exists()
    with pytest.raises(UsageError, match=r"'a\[1-2\]b\[3-4\]' can't be expanded without scontrol"):
        find_cluster(None, None, slurm("a[1-2]b[3-4]", "1(x4)", 0))


# How they meet


# Below the ports that systems give to outgoing connections; processes of pytest begin far apart.
PORTS = itertools.count(10_000 + os.getpid() * 97 % 20_000)


def addresses(count):
    """Free ports of this machine."""
    names = []
    while len(names) < count:
        port = next(PORTS)
        with contextlib.suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            names.append(f"127.0.0.1:{port}")
    return tuple(names)


def meet_in_threads(workers, indices, wait_seconds, n_devices=MappingProxyType({})):
    """Let some of the workers meet; returns what each raised, if anything."""
    raised = {}

    def arrive(index):
        try:
            n = n_devices.get(index, 1)
            wait_for_workers(Cluster(workers, index), wait_seconds, n_devices=n)
        except AlexNetError as error:
            raised[index] = error

    threads = [threading.Thread(target=arrive, args=(index,)) for index in indices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=HANG)
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
    """Oracle: the address of the one who did not come; exit code 69.

    On a busy machine the others may need longer to come, and are then given it.
    """
    for wait_seconds in (1.5, 15, 150):
        workers = addresses(3)
        raised = meet_in_threads(workers, present, wait_seconds)
        if all(str(error).endswith(f": {workers[missing]}") for error in raised.values()):
            break
    assert raised.keys() == set(present)
    assert all(str(error).endswith(f": {workers[missing]}") for error in raised.values())
    assert {error.exit_code for error in raised.values()} == {69}


def test_workers_with_different_numbers_of_devices_are_told_so():
    """Oracle: by hand: every worker gets the same line, and soon, as waiting longer does not help."""
    workers = addresses(3)
    raised = meet_in_threads(workers, (0, 1, 2), 150, n_devices={2: 4})
    counts = f"({workers[0]}: 1, {workers[1]}: 1, {workers[2]}: 4)"
    line = (
        f"the workers have different numbers of devices {counts}; give all of them the same --gpus"
    )
    assert {index: str(error) for index, error in raised.items()} == dict.fromkeys(range(3), line)
    assert {error.exit_code for error in raised.values()} == {1}


def test_a_stranger_does_not_count():
    """Oracle: the first still waits when the second comes, later than the stranger."""
    workers = addresses(2)
    host, port = workers[0].split(":")
    knocked = threading.Event()

    def knock():
        while True:
            with contextlib.suppress(ConnectionRefusedError):  # the first does not listen yet
                connection = socket.create_connection((host, int(port)))
                break
            time.sleep(0.05)
        with connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            knocked.set()
            assert connection.recv(64) == b""  # no word until all go

    stranger = threading.Thread(target=knock)
    first = threading.Thread(target=wait_for_workers, args=(Cluster(workers, 0), 60))
    for thread in (stranger, first):
        thread.start()
    assert knocked.wait(HANG)
    wait_for_workers(Cluster(workers, 1), 60)
    for thread in (first, stranger):
        thread.join(timeout=HANG)
        assert not thread.is_alive()


# How they train

SETTINGS = {
    "resize_size": 72,
    "scale": 0.05,  # as nothing else holds back what the layers compute
    "crop_size": 64,
    **{f"conv{number}.filters": 8 for number in (1, 2, 3)},
    **{f"fc{number}.units": 16 for number in (6, 7)},
    **{f"{layer}.stddev": "none" for layer in ("conv1", "conv2", "conv3", "fc6", "fc7")},
}
TINY_NETWORK = [
    *("--recipe", "paper"),  # its rate does not depend on the length of the run
    *("--variant", "no-lrn", "--variant", "no-conv3", "--variant", "no-conv4"),  # compiles sooner
    *(word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")),
    *("--batch-size", "5", "--gpus", "0", "--precision", "float32"),
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
        which = ["--hosts", ",".join(self.workers), "--rank", str(index)]
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
        errors = [process.communicate(timeout=HANG)[1] for process in self.processes]
        return [process.returncode for process in self.processes], errors


def start_training(count, data, out, *options):
    return Job(count, data, *TINY_NETWORK, "--out", out, *options)


def test_three_workers_reach_the_weights_of_one_process(image_folder, tmp_path):
    """Oracle: one process, dropout included. Batches of 5 from 33 images: the last is three, one per worker or none.

    The first finds the kernels that all start from.
    """
    options = ("--epochs", 2, "--set", "kmeans_init=true")
    states, metrics = {}, {}
    outs = {count: tmp_path / str(count) for count in (1, 3)}
    jobs = {n: start_training(n, image_folder, out, *options) for n, out in outs.items()}
    for count, out in outs.items():
        codes, errors = jobs[count].finish()
        assert codes == [0] * count, errors
        states[count] = load_arrays(out / "latest" / "last.safetensors")
        metrics[count] = json.loads((out / "latest" / "metrics.json").read_text())
        assert len(list(out.iterdir())) == 2  # one run, by the chief alone, and `latest`
    assert_close(states[3], states[1])
    for split in ("train", "val"):
        score, alone = (metrics[n]["last"][split] for n in (3, 1))
        assert (score["n"], score["top1"]) == (alone["n"], alone["top1"])
        assert score["loss"] == pytest.approx(alone["loss"], rel=1e-4)
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


def test_workers_on_two_networks_train_as_one_process(image_folder, tmp_path, two_networks):
    """Oracle: one process. Loopback does not lead from one namespace to the other."""
    options = (*TINY_NETWORK, "--epochs", 1)
    both = Job(2, image_folder, *options, "--out", tmp_path / "two", hosts=two_networks)
    alone = Job(1, image_folder, *options, "--out", tmp_path / "one")
    for job in (both, alone):
        codes, errors = job.finish()
        assert codes == [0] * len(codes), errors
    one, two = (load_arrays(tmp_path / n / "latest" / "last.safetensors") for n in ("one", "two"))
    assert_close(two, one)


def test_a_killed_worker_ends_all_and_the_job_continues_bit_identically(image_folder, tmp_path):
    """Oracle: two workers that nobody disturbed, velocities and history included."""
    job = start_training(2, image_folder, tmp_path / "cut", "--epochs", 10_000)
    job.wait_for_epoch(2)
    job.processes[1].kill()
    codes, errors = job.finish()
    assert codes == [75, -signal.SIGKILL]
    assert "a worker died or froze" in errors[0]
    cut = (tmp_path / "cut" / "latest").resolve()
    assert f"continue with: alexnet train --resume {cut}" in errors[0]
    done = RunFolder(cut).checkpoint().epoch
    resume = ("--resume", cut, "--epochs", done + 1, "--gpus", 0)
    codes, errors = Job(2, *resume).finish()
    assert codes == [0, 0], errors
    whole = start_training(2, image_folder, tmp_path / "whole", "--epochs", done + 1)
    assert whole.finish()[0] == [0, 0]
    assert_same_run(cut, (tmp_path / "whole" / "latest").resolve())


def test_signals_end_every_worker(image_folder, tmp_path):
    """Oracle: the exit codes of shells; the finished epoch is safe."""
    numbers = {143: signal.SIGTERM, 130: signal.SIGINT}
    jobs = {
        n: start_training(2, image_folder, tmp_path / str(n), "--epochs", 10_000) for n in numbers
    }
    for code, number in numbers.items():
        job = jobs[code]
        job.wait_for_epoch(1)
        for process in job.processes:
            process.send_signal(number)
        codes, errors = job.finish()
        assert codes == [code, code], "".join(errors)
        assert "Saved up to" in errors[0]
        assert "Traceback" not in errors[0] + errors[1]


def test_workers_that_see_different_images_say_so(image_folder, tmp_path):
    other = tmp_path / "other"
    for path in sorted(image_folder.rglob("*.png"))[1:]:
        target = other / path.relative_to(image_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
    job = Job(0)
    job.workers = addresses(2)
    job.processes = [
        job.start(index, str(data), *TINY_NETWORK, "--out", str(tmp_path / str(index)))
        for index, data in enumerate((image_folder, other))
    ]
    codes, errors = job.finish()
    assert codes == [1, 1]
    assert all("the workers see different images" in text for text in errors)


# The examples

EXAMPLES = Path(__file__).parents[2] / "examples" / "cluster"


@pytest.fixture
def two_runs(tmp_path):
    """Two runs as training leaves them, the newer of which `latest` does not lead to."""
    versions = {"alexnet": "1"}
    config = RunConfig(TINY, ("a", "b"), 0, "float32", "/data", versions, initial_weights=None)
    statistics = Statistics(np.zeros((72, 72, 3), np.float32), np.eye(3))
    manifest = Manifest(Path("/data"), Path("/data"), ("a", "b"), (), (), 0, seed=0, val=0.1)
    runs = [RunFolder.create(tmp_path / "runs", config, statistics, manifest) for _ in range(2)]
    for number, run in enumerate(runs):
        save_arrays(run.path / LAST, {})
        os.utime(run.path / LAST, (1000 + number, 1000 + number))
    runs[0].write_records(CheckpointMeta(9), TINY)
    return [run.path for run in runs]


@pytest.mark.parametrize(
    ("code", "restarts", "again"),
    [(0, 0, 0), (2, 0, 0), (75, 19, 1), (75, 20, 0), (137, 0, 1), (143, 0, 0)],
)
def test_slurms_script_continues_the_newest_run_and_tries_again(
    tmp_path, two_runs, code, restarts, again
):
    """Oracle: the calls that stand-ins for Slurm's programs note; the run that was written last."""
    _, newest = two_runs
    stand_in(tmp_path, "srun", f"exit {code}")
    stand_in(tmp_path, "scontrol", "exit 0")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    environment = {"PATH": path, "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts)}
    script = EXAMPLES / "train.slurm"
    done = subprocess.run(["bash", script], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == code
    first, *others = (tmp_path / "calls").read_text().splitlines()
    assert first == f"srun --kill-on-bad-exit=0 alexnet train --resume {newest}"
    assert others == ["scontrol requeue 7"] * again


def shell_of_the_pod():
    """The block of train.yaml that the pod's shell runs, without a YAML parser."""
    _, block = (EXAMPLES / "train.yaml").read_text().split("- |\n")
    indent = block[: len(block) - len(block.lstrip())]
    lines = itertools.takewhile(lambda line: line.startswith(indent), block.splitlines())
    return "\n".join(line.removeprefix(indent) for line in lines)


def test_the_pod_of_kubernetes_continues_the_newest_run(tmp_path, two_runs):
    """Oracle: the call of a stand-in, the run that was written last, and our reading of TF_CONFIG."""
    _, newest = two_runs
    stand_in(tmp_path, "alexnet", 'echo "$TF_CONFIG"')
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    environment = {"PATH": path, "JOB_COMPLETION_INDEX": "1"}
    command = ["/bin/sh", "-c", shell_of_the_pod()]
    pod = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
    hosts = ("alexnet-0.alexnet:12345", "alexnet-1.alexnet:12345")
    assert find_cluster(None, None, {"TF_CONFIG": pod.stdout.decode()}) == Cluster(hosts, 1)
    assert (tmp_path / "calls").read_text() == f"alexnet train --resume {newest}\n"


def test_without_a_run_both_examples_start_one(tmp_path):
    """Oracle: the calls of stand-ins, in a folder without runs."""
    stand_in(tmp_path, "alexnet", "exit 0")
    stand_in(tmp_path, "srun", "exit 0")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    environment = {"PATH": path, "JOB_COMPLETION_INDEX": "0", "SLURM_JOB_ID": "7"}
    for command in (["/bin/sh", "-c", shell_of_the_pod()], ["bash", EXAMPLES / "train.slurm"]):
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    start = "alexnet train data --recipe paper"
    expected = [start, f"srun --kill-on-bad-exit=0 {start}"]
    assert (tmp_path / "calls").read_text().splitlines() == expected
