"""The launchers: clean, honest when dry, starting again when they should."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"])
# A value that a careless script would split, expand or close a quote with.
ODD = """--config.adapter.tap_layers=(1, 2) $HOME "a" it's"""
FLAGS = ["--config=configs/thumos.py:s", "--workdir=gs://bucket/runs/s", ODD]
DRY = {
    "local_processes.sh": (["2", *FLAGS], {}),
    "gpu_local.sh": (FLAGS, {"GPUS": "0,1,2,3", "PROCESSES": "2"}),
    "slurm.sbatch": (FLAGS, {}),
    "tpu_pod.sh": (FLAGS, {"ZONE": "z", "SPOT": "1",
                           "DATA": "gs://bucket/data"}),
    "gke_jobset.sh": (FLAGS, {"IMAGE": "image:1", "SLICES": "2"}),
    "sync_data.sh": (["gs://bucket/a b", "tpu:losa:videos"], {"ZONE": "z"}),
}


def _run(script, arguments, stubs=None, **environment):
    path = os.environ["PATH"]
    return subprocess.run(
        ["bash", str(LAUNCH / script), *arguments], cwd=ROOT, text=True,
        capture_output=True, timeout=60, env={
            **os.environ, "PATH": f"{stubs}:{path}" if stubs else path,
            **environment})


def _stub(folder, name, script):
    (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
    (folder / name).chmod(0o755)


def test_shellcheck_has_nothing_to_say():
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([shellcheck, "-x", *SCRIPTS], cwd=ROOT, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def forbidden(tmp_path):
    """Commands that a dry run must not call."""
    for name in ("gcloud", "kubectl", "srun", "scontrol", "rsync", "python"):
        _stub(tmp_path, name, f"touch {tmp_path}/called; exit 1")
    yield tmp_path
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("script", DRY)
def test_a_dry_run_prints_what_a_person_can_run(script, forbidden):
    arguments, environment = DRY[script]
    done = _run(script, ["--dry-run", *arguments], forbidden, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout and not done.stderr
    if script == "gke_jobset.sh":
        document = yaml.safe_load(done.stdout.partition("\n# which")[0])
        job = document["spec"]["replicatedJobs"][0]
        pod = job["template"]["spec"]["template"]["spec"]
        container = pod["containers"][0]
        assert container["args"] == FLAGS and job["replicas"] == 2
        assert "@" not in done.stdout.replace("user@", "")
        assert document["spec"]["failurePolicy"]["maxRestarts"] == 100
        return
    # A shell reads every line back as the words that were meant.
    words = shlex.split(done.stdout, comments=True)
    if script == "tpu_pod.sh":
        start = next(word for word in words if "nohup" in word)
        # The remote shell takes it apart once more.
        assert ODD in shlex.split(start.partition("nohup")[2])
        for verb in ("describe", "create", "scp", "ssh", "delete"):
            assert verb in words
        assert "--spot" in words
    elif script != "sync_data.sh":
        count = 2 if script in ("local_processes.sh", "gpu_local.sh") else 1
        assert words.count(ODD) == words.count("losa_jax.main") == count
    if script == "gpu_local.sh":
        assert "CUDA_VISIBLE_DEVICES=2,3" in words


@pytest.mark.parametrize("script", [one for one in DRY if one[0] != "s"
                                     or one == "slurm.sbatch"])
def test_another_program_is_started_on_request(script, forbidden):
    arguments, environment = DRY[script]
    count = arguments[:-len(FLAGS)]
    done = _run(script, [
        "--dry-run", *count, "gs://bucket/a b", "--checkpoint=gs://bucket/run",
        "--output=gs://bucket/out"], forbidden, **environment,
        PROGRAM="losa_jax.predict")
    assert done.returncode == 0, done.stderr
    assert "losa_jax.predict" in done.stdout
    assert "losa_jax.main" not in done.stdout


@pytest.mark.parametrize("script, arguments, message", [
    ("local_processes.sh", [], "number of processes"),
    ("gpu_local.sh", ["--dry-run"], "3 GPUs do not divide"),
    ("tpu_pod.sh", ["--workdir=runs/x"], "must be a gs:// folder"),
    ("gke_jobset.sh", ["--workdir=gs://b"], "set IMAGE"),
    ("sync_data.sh", ["one"], "two folders"),
])
def test_wrong_use_shows_the_header(script, arguments, message, forbidden):
    done = _run(script, arguments, forbidden, ZONE="z", GPUS="0,1,2",
                PROCESSES="2")
    assert done.returncode == 2
    assert message in done.stderr and "Common problems" in done.stderr


@pytest.mark.parametrize("statuses, restarts, want", [
    ((75, 0), 1, 0), ((76, 137, 0), 2, 0), ((75, 75), 1, 75),
    ((1,), 5, 1), ((2,), 5, 2),
])
def test_groups_start_again_where_it_may_help(statuses, restarts, want,
                                              tmp_path):
    """The second of two processes ends with each status in turn."""
    _stub(tmp_path, "python", f"""
case "$*" in *process_id=0*) exit 0 ;; esac
echo x >>{tmp_path}/starts
statuses=({' '.join(map(str, statuses))})
exit "${{statuses[$(wc -l <{tmp_path}/starts) - 1]}}"
""")
    done = _run("local_processes.sh", ["2"], tmp_path, PORT="1",
                RESTARTS=str(restarts))
    assert done.returncode == want, done.stderr
    assert len((tmp_path / "starts").read_text().split()) == len(statuses)


def test_a_pod_that_is_preempted_is_made_anew(tmp_path):
    """gcloud here is a script that plays a slice which is taken away once."""
    _stub(tmp_path, "gcloud", f"""
cd {tmp_path}; echo "$@" >>calls
case "$*" in
  *describe*) cat state 2>/dev/null ;;
  *" create "*) echo READY >state ;;
  *" delete "*) rm -f state ;;
  *nohup*) echo x >>starts ;;
  *"cat run.status"*)
    if [ "$(wc -l <starts)" = 1 ]; then echo PREEMPTED >state
    else echo 0; fi ;;
esac
""")
    done = _run("tpu_pod.sh", FLAGS, tmp_path, ZONE="z", POLL_SECONDS="0",
                NAME=f"test-{os.getpid()}")
    try:
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        folder = ROOT / f"runs/test-{os.getpid()}.logs"
        folder.rmdir()
    calls = (tmp_path / "calls").read_text()
    assert calls.count(" create ") == 2 and calls.count(" delete ") == 1
    assert len((tmp_path / "starts").read_text().split()) == 2
    assert "status 128: starting again (1 of 100)" in done.stdout


@pytest.fixture
def checkout(tmp_path):
    """A folder with what launch/environment.sh reads."""
    (tmp_path / "launch").mkdir()
    for name in ("launch/environment.sh", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "requirements.txt").write_text("# nothing\n")
    (tmp_path / "stubs").mkdir()
    return tmp_path


def _make_environment(checkout, path):
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", ". launch/environment.sh\n"
         "make_environment requirements.txt\ncommand -v python"],
        cwd=checkout, text=True, capture_output=True, timeout=120,
        env={**os.environ, "PATH": path, "LOSA_PYTHON": sys.executable})


def test_the_environment_is_made_by_uv_where_it_is_installed(checkout):
    _stub(checkout / "stubs", "uv", """echo "$*" >>calls
if [ "$1" = venv ]; then
  mkdir -p .venv/bin
  ln -s "$LOSA_PYTHON" .venv/bin/python
  echo 'PATH="$PWD/.venv/bin:$PATH"' >.venv/bin/activate
fi""")
    path = f"{checkout}/stubs:{os.environ['PATH']}"
    for _ in range(2):  # the second time there is nothing to do
        done = _make_environment(checkout, path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(f"{checkout}/.venv/bin/python\n")
    assert (checkout / "calls").read_text().splitlines() == [
        f"venv --quiet --seed --python {sys.executable} .venv",
        "pip install --quiet -r requirements.txt"]


def test_the_environment_is_made_without_uv(checkout):
    path = os.pathsep.join(
        folder for folder in os.environ["PATH"].split(os.pathsep)
        if not (Path(folder) / "uv").exists())
    done = _make_environment(checkout, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"{checkout}/.venv/bin/python\n")
    assert (checkout / ".venv/bin/pip").exists()
