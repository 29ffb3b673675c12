"""k8s/mpijob.yaml: every field is one the operator knows, and the documents in it fit each other."""

from __future__ import annotations

import copy
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mpisgd.settings import resolve

REPOSITORY = Path(__file__).parents[1]
CRD = Path(os.environ.get("MPIJOB_CRD", REPOSITORY.parent / "shared" / "k8s" / "kubeflow.org_mpijobs.yaml"))
DOCUMENTS = {
    document["kind"]: document
    for document in yaml.safe_load_all((REPOSITORY / "k8s" / "mpijob.yaml").read_text(encoding="utf-8"))
    if document
}
JOB, CONFIG_MAP, CLAIM = (DOCUMENTS[kind] for kind in ("MPIJob", "ConfigMap", "PersistentVolumeClaim"))
SPEC = JOB["spec"]
LAUNCHER, WORKER = (SPEC["mpiReplicaSpecs"][role]["template"]["spec"] for role in ("Launcher", "Worker"))
CONTAINER = LAUNCHER["containers"][0]
VARIABLES = {variable["name"]: variable.get("value") for variable in CONTAINER["env"]}


@pytest.fixture(scope="module")
def operator() -> jsonschema.Draft202012Validator:
    """The operator's schema of an MPIJob, with unknown fields refused."""
    if not CRD.exists():
        pytest.skip(f"no resource definition of the mpi-operator at {CRD}: set MPIJOB_CRD")
    definition = yaml.load(CRD.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    (version,) = [v for v in definition["spec"]["versions"] if JOB["apiVersion"].endswith(v["name"])]
    known: dict[str, Any] = strict(version["schema"]["openAPIV3Schema"])
    # The schema leaves these two to the API server.
    known["properties"]["metadata"] = {"properties": {"name": {"type": "string"}}, "additionalProperties": False}
    return jsonschema.Draft202012Validator(known)


def strict(schema: Any) -> Any:
    """Return an OpenAPI schema as a JSON schema that refuses what it does not name."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    result = {name: strict(part) for name, part in schema.items()}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and "type" in schema and not open_ended:
        result["additionalProperties"] = False
    return result


def test_the_operator_knows_every_field(operator: jsonschema.Draft202012Validator) -> None:
    operator.validate(JOB)


@pytest.mark.parametrize(
    "path", ["spec", "spec.runPolicy", "spec.mpiReplicaSpecs.Worker", "spec.mpiReplicaSpecs.Launcher.template.spec"]
)
def test_an_unknown_field_would_be_noticed(operator: jsonschema.Draft202012Validator, path: str) -> None:
    job = copy.deepcopy(JOB)
    place = job
    for name in path.split("."):
        place = place[name]
    place["bakcoffLimit"] = 1
    with pytest.raises(jsonschema.ValidationError, match="bakcoffLimit"):
        operator.validate(job)


def test_the_file_is_one_job_with_its_settings_and_its_disk() -> None:
    assert set(DOCUMENTS) == {"MPIJob", "ConfigMap", "PersistentVolumeClaim"}


def test_no_name_is_taken_by_the_operator() -> None:
    job = JOB["metadata"]["name"]
    assert CONFIG_MAP["metadata"]["name"] not in {f"{job}-config", f"{job}-ssh", job}
    assert {"mpi-job-config", "ssh-auth"}.isdisjoint(volume["name"] for volume in LAUNCHER["volumes"])


def test_volumes_and_mounts_match() -> None:
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in LAUNCHER["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert volumes["settings"]["configMap"]["name"] == CONFIG_MAP["metadata"]["name"]
    assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
    (file,) = CONFIG_MAP["data"]
    assert f"--config {mounts['settings']}/{file}" in CONTAINER["args"][0]
    assert str(VARIABLES["MPISGD_RUN_DIR"]).startswith(mounts["runs"] + "/")
    # The operator's own two mounts are not ours to take.
    assert {"/etc/mpi", SPEC["sshAuthMountPath"]}.isdisjoint(mounts.values())


def test_the_settings_are_settings_of_the_program(tmp_path: Path) -> None:
    ((name, text),) = CONFIG_MAP["data"].items()
    (tmp_path / name).write_text(text, encoding="utf-8")
    settings = {name: value for name, value in VARIABLES.items() if name.startswith("MPISGD_") and value}
    config = resolve({"config": str(tmp_path / name)}, settings)
    assert config.mode == tomllib.loads(text)["mode"]
    assert config.done_file == VARIABLES["MPISGD_DONE_FILE"]


def test_there_is_a_slot_for_each_of_nine_ranks() -> None:
    (ranks,) = re.findall(r"mpirun -n (\d+)", CONTAINER["args"][0])
    workers = SPEC["mpiReplicaSpecs"]["Worker"]["replicas"]
    assert int(ranks) == 9 == SPEC["slotsPerWorker"] * (workers + SPEC["runLauncherAsWorker"])


def test_all_pods_run_one_image_as_nobody_special() -> None:
    assert CONTAINER["image"] == WORKER["containers"][0]["image"]
    for pod in (LAUNCHER, WORKER):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["containers"][0]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }


def test_image_and_job_agree_on_user_port_and_places() -> None:
    containerfile = (REPOSITORY / "Containerfile").read_text(encoding="utf-8")
    user = LAUNCHER["securityContext"]["runAsUser"]
    assert user == WORKER["securityContext"]["runAsUser"]
    assert f"\nUSER {user}\n" in containerfile
    assert f"'Port {WORKER['containers'][0]['startupProbe']['tcpSocket']['port']}'" in containerfile
    assert f"HostKey {SPEC['sshAuthMountPath']}/id_rsa" in containerfile
    for place in (WORKER["containers"][0]["command"][-1], "/opt/mpisgd"):
        assert place in containerfile
    assert "/opt/mpisgd/bin/python -m mpisgd" in CONTAINER["args"][0]
