"""The image and k8s/mpijob.yaml as they are, with containers in place of pods: what the operator would do with them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import HERE, MARKS, REPOSITORY

from launch import json_lines, wait_until

pytestmark = MARKS

PODS = HERE / "pods_up.sh"
IMAGE = "localhost/mpisgd:test"
POD_NAME = "mpisgd-launcher-x7f2k"  # as the Job controller makes them
WITHOUT_END = 'mode = "async"\npasses = "none"\npatience = "none"\nmax_seconds = 120\n'


@dataclass(frozen=True)
class Launcher:
    """The launcher's container, and what it left."""

    process: subprocess.Popen[str]
    run: Path

    def end(self) -> tuple[int, str]:
        """Wait for its end; return its exit code and what it said."""
        said, _ = self.process.communicate(timeout=120)
        return self.process.returncode, said

    def events(self) -> list[dict[str, Any]]:
        return json_lines(self.run / "events.jsonl")

    def wait_for_training(self) -> None:
        wait_until(lambda: json_lines(self.run / "metrics.jsonl"), 60, "the first measurement")


@dataclass(frozen=True)
class Pods:
    """The pods of the MPIJob in k8s/mpijob.yaml; its workers run."""

    documents: dict[str, dict[str, Any]]
    directory: Path

    @property
    def name(self) -> str:
        return str(self.documents["MPIJob"]["metadata"]["name"])

    def container(self, role: str) -> tuple[list[str], list[str]]:
        """Return podman's options for a role's container, and its command."""
        spec = self.documents["MPIJob"]["spec"]["mpiReplicaSpecs"][role]["template"]["spec"]
        (container,) = spec["containers"]
        user = spec["securityContext"]
        options = ["--user", f"{user['runAsUser']}:{user['runAsGroup']}", "--cap-drop", "all"]
        options += ["--security-opt", "no-new-privileges"]
        for variable in container.get("env", []):
            value = variable.get("value", POD_NAME).replace("$(POD_NAME)", POD_NAME)
            options += ["--env", f"{variable['name']}={value}"]
        for mount in container.get("volumeMounts", []):
            options += ["--volume", f"{self.directory / mount['name']}:{mount['mountPath']}"]
        return options, [*container["command"], *container.get("args", [])]

    def start_workers(self) -> None:
        options, command = self.container("Worker")
        workers = self.documents["MPIJob"]["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"]
        self.call("up", self.name, str(workers), *options, IMAGE, *command)

    def launch(self, settings: str | None = None) -> Launcher:
        """Start the launcher with the file's own settings, or others."""
        for volume in ("settings", "runs"):
            (self.directory / volume).mkdir()
        (self.directory / "runs").chmod(0o777)  # what fsGroup is for
        ((name, own),) = self.documents["ConfigMap"]["data"].items()
        (self.directory / "settings" / name).write_text(own if settings is None else settings)
        options, command = self.container("Launcher")
        process = subprocess.Popen(
            ["bash", PODS, "launch", self.name, *options, IMAGE, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return Launcher(process, self.directory / "runs" / POD_NAME)

    def call(self, *arguments: str) -> None:
        subprocess.run(["bash", PODS, *arguments], check=True, timeout=300)


@pytest.fixture(scope="module")
def image() -> None:
    """The image of the Containerfile, from this working tree."""
    subprocess.run(["bash", HERE / "image_build.sh", IMAGE, REPOSITORY], check=True, timeout=900)


@pytest.fixture
def pods(image: None, tmp_path: Path) -> Iterator[Pods]:
    """Running workers; whatever runs ends with the test."""
    text = (REPOSITORY / "k8s" / "mpijob.yaml").read_text()
    pods = Pods({document["kind"]: document for document in yaml.safe_load_all(text) if document}, tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(pods.call, "down")
        pods.start_workers()
        yield pods


def test_nine_pods_train(pods: Pods) -> None:
    launcher = pods.launch()
    code, said = launcher.end()
    assert code == 0, said
    (begun,) = [event for event in launcher.events() if event["event"] == "training"]
    assert begun["workers"] == 8
    assert (launcher.run / "model.h5").exists()


def test_a_pod_that_dies_fails_the_launcher(pods: Pods) -> None:
    launcher = pods.launch(WITHOUT_END)
    launcher.wait_for_training()
    pods.call("kill", pods.name, "5")
    code, said = launcher.end()
    assert code != 0, said


def test_a_wrong_setting_fails_the_launcher(pods: Pods) -> None:
    code, said = pods.launch("batch_size = 0\n").end()
    assert code != 0
    assert "config.toml: batch_size: found 0, expected an integer, at least 1" in said


def test_a_deleted_launcher_saves_its_model(pods: Pods) -> None:
    launcher = pods.launch(WITHOUT_END)
    launcher.wait_for_training()
    pods.call("delete", pods.name)
    code, said = launcher.end()
    assert code == 0, said
    assert (launcher.run / "model.h5").exists()
    assert launcher.events()[-1]["reason"] == "signal SIGUSR1"
