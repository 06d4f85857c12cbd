"""Studies on Ray and through submitit: the same claims as by processes here, bit by bit."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lossgeom.cli import main
from lossgeom.lab.executors import Job, Processes, Ray, Slurm
from lossgeom.lab.executors.ray import _connected
from lossgeom.lab.runner import run_study
from lossgeom.lab.studies import STUDIES
from lossgeom.recording.record import Record
from tests.cli.test_cli import heed_interrupts
from tests.cli.test_run import untimed
from tests.lab.test_executors import Threads

pytestmark = pytest.mark.slow
STUDY = STUDIES["progressive_sharpening"]
CONFIG = STUDY.Config(
    network=replace(STUDY.Config().network, examples=60, widths=(8,)),
    steps=14,  # there is a checkpoint after ten
    every=1,
    label_smoothing=(0.0, 0.3, 0.6),
)
FIRST, SECOND, *_ = (run.name for run in STUDY.plan(CONFIG, 1))
FLAGS = [
    "--steps", "14", "--every", "1", "--examples", "60", "--widths", "8",
    "--label-smoothing", "0", "0.3", "0.6", "--seeds", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def by_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes") / "out"
    run_study(STUDY, CONFIG, folder, seeds=1, executor=Processes(2))
    return folder


@pytest.fixture
def two_missing(by_processes, tmp_path):
    """The study without two of its runs."""
    shutil.copytree(by_processes, tmp_path / "out")
    for name in (FIRST, SECOND):
        shutil.rmtree(tmp_path / "out/runs" / name)
    return tmp_path / "out"


def assert_same(folder, by_processes):
    claims = [each / "claims.json" for each in (folder, by_processes)]
    assert claims[0].read_bytes() == claims[1].read_bytes()
    assert untimed(folder) == untimed(by_processes)


@dataclass(frozen=True)
class EndsOnce(Job):
    """Gets a signal in the middle of its first attempt, and notes what each one finds."""

    by: signal.Signals

    def __call__(self):
        notes = self.path.parent.parent / "attempts"
        rows = len(Record.open(self.path).rows()) if self.path.exists() else 0
        with notes.open("a") as file:
            file.write(f"{rows}\n")
        if rows == 0:
            append = Record.append

            def killed(record, row):
                append(record, row)
                if row["step"] == 12:
                    os.kill(os.getpid(), self.by)

            Record.append = killed  # in a process that ends
        super().__call__()


@dataclass(frozen=True)
class Ending:
    """An executor one of whose runs is ended once."""

    executor: object
    by: signal.Signals = signal.SIGKILL

    def completed(self, jobs):
        first, *others = jobs
        return self.executor.completed([EndsOnce(**vars(first), by=self.by), *others])


def attempts(folder):
    """How many rows each attempt has found."""
    return [int(line) for line in (folder / "attempts").read_text().split()]


# Ray


@contextmanager
def two_machines():
    pytest.importorskip("ray", reason="Ray is not installed: the extra ray brings it")
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    try:
        cluster.add_node(**small)
        yield cluster
    finally:
        cluster.shutdown()


def test_a_killed_worker_on_a_ray_cluster(tmp_path, by_processes):
    told, out = [], tmp_path / "out"
    with two_machines() as cluster:
        executor = Ray(cluster.address)
        run_study(
            STUDY, CONFIG, out, seeds=1, executor=Ending(executor), on_progress=told.append
        )  # fmt: skip
        found = attempts(out)
        assert len(found) == 2
        assert found[0] == 0 < found[1]
        assert_same(out, by_processes)
        assert any(0 < progress.done < 1 and not progress.latest for progress in told)

        # an error is not tried again, and tells of one thread; the cluster is still there
        jobs = [Threads(tmp_path / "other/runs/a"), Threads(tmp_path / "other/runs/b")]
        with closing(executor.completed(jobs)) as completed:
            errors = [str(each[1]) for each in completed if each is not None]
        assert errors == ["(['1', '1', '1', '1', '1'], 1)"] * 2
        with _connected(cluster.address) as ray:
            assert [node["Alive"] for node in ray.nodes()] == [True, True]


def test_a_ray_cluster_that_is_started_here_ends_when_interrupted(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: the extra ray brings it")
    command = [sys.executable, "-m", "lossgeom", "run", STUDY.name, "--executor", "ray"]
    command += ["--ray-address", "local", "--workers", "1", "--steps", "10000", "--out", "out"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    )
    while not list(tmp_path.glob("out/runs/*/rows.jsonl")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    below = descendants(process.pid)
    assert any("raylet" in command for command in below.values())
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert stderr.strip() == "lossgeom: interrupted; the same command goes on from here"
    until = time.monotonic() + 30
    while time.monotonic() < until and set(below) & set(descendants(1)):
        time.sleep(0.2)
    assert not set(below) & set(descendants(1))


def descendants(pid):
    """The processes below one that are alive, with their commands."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (path / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            command = (path / "cmdline").read_text()
        except OSError:
            continue
        if state != "Z":
            parents[int(path.name)] = int(parent), command
    found = {pid}
    while more := {each for each, (parent, _) in parents.items() if parent in found} - found:
        found |= more
    return {each: parents[each][1] for each in found - {pid}}


# Slurm


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGUSR2])
def test_a_job_that_is_killed_or_comes_to_the_end_of_its_time(by_processes, two_missing, by):
    """With SIGUSR2, Slurm says that the time is nearly over."""
    pytest.importorskip("submitit", reason="submitit is not installed: the extra slurm brings it")
    executor = Ending(Slurm(workers=2, cluster="local"), by)
    run_study(STUDY, CONFIG, two_missing, seeds=1, executor=executor)
    found = attempts(two_missing)
    assert len(found) == 2
    assert found[0] == 0 < found[1]
    assert_same(two_missing, by_processes)
    assert list((two_missing / "slurm").glob("*_log.err"))


SBATCH = """\
#!/bin/sh
# In place of Slurm: one job for each task of an array, in the background.
cp "$1" {folder}/submitted.sh
echo "$OMP_NUM_THREADS" > {folder}/threads
export SLURM_JOB_NODELIST=here SLURM_ARRAY_JOB_ID=7 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1
export SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0
for task in 0 1; do
    SLURM_JOB_ID=$((7 + task)) SLURM_ARRAY_TASK_ID=$task sh "$1" > {folder}/log$task 2>&1 &
done
echo "Submitted batch job 7"
"""
SRUN = """\
#!/bin/sh
while [ "${1#--}" != "$1" ]; do
    case $1 in --unbuffered) shift ;; *) shift 2 ;; esac
done
exec "$@"
"""


def test_options_of_sbatch(by_processes, two_missing, tmp_path, monkeypatch, capsys):
    pytest.importorskip("submitit", reason="submitit is not installed: the extra slurm brings it")
    programs = {"sbatch": SBATCH.format(folder=tmp_path), "srun": SRUN, "sacct": "#!/bin/sh\n"}
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # which a worker does not keep
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    options = ["--executor", "slurm", "--slurm", "partition=main", "time=7", "mem=2G", "exclusive"]
    status = main(["run", STUDY.name, *FLAGS, *options, "--out", str(two_missing)])
    assert status == 0, capsys.readouterr().err
    assert_same(two_missing, by_processes)
    submitted = (tmp_path / "submitted.sh").read_text().splitlines()
    assert {
        "#SBATCH --partition=main", "#SBATCH --time=7", "#SBATCH --mem=2G", "#SBATCH --exclusive",
        "#SBATCH --cpus-per-task=1", f"#SBATCH --job-name=lossgeom-{STUDY.name}",
        "#SBATCH --array=0-1%2",
    } <= set(submitted)  # fmt: skip
    assert (tmp_path / "threads").read_text() == "1\n"
