"""The manifests are well-formed, agree with the image and the settings, and lock down what can be.

ECS's is checked against the API's own model in botocore. For the others there is no small schema to check against, so what
is checked is what would go wrong: names that must match, variables that must exist, restrictions that must be there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import botocore.session
import botocore.validate
import pytest
import yaml

from container.metrics.serving_port import TIMEOUT_S
from container.settings import every_setting

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "container" / "manifests"
VARIABLES = {variable for one in every_setting() for variable in one.metadata["variables"]}
DRAIN_S = next(one.default for one in every_setting() if one.name == "drain_s")
PORT = next(one.default for one in every_setting() if one.name == "port")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["endpoint"])


@pytest.fixture(scope="module")
def task() -> dict[str, Any]:
    return dict(json.loads((DEPLOY / "ecs-task.json").read_text()))


@pytest.fixture(scope="module")
def kubernetes() -> dict[str, dict[str, Any]]:
    """The objects, by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}


def container(kubernetes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return dict(kubernetes["Deployment"]["spec"]["template"]["spec"]["containers"][0])


def seconds(text: str) -> int:
    match = re.fullmatch(r"(\d+)s", text)
    assert match is not None
    return int(match[1])


def test_every_variable_is_a_setting(
    compose: dict[str, Any], task: dict[str, Any], kubernetes: dict[str, dict[str, Any]]
) -> None:
    used = set(compose["environment"])
    used |= {one["name"] for one in task["containerDefinitions"][0]["environment"]}
    used |= {one["name"] for one in container(kubernetes)["env"]}
    assert used <= VARIABLES


def test_each_waits_longer_for_the_end_than_requests_are_waited_for(
    compose: dict[str, Any], task: dict[str, Any], kubernetes: dict[str, dict[str, Any]]
) -> None:
    pod = kubernetes["Deployment"]["spec"]["template"]["spec"]
    assert seconds(compose["stop_grace_period"]) > DRAIN_S
    assert task["containerDefinitions"][0]["stopTimeout"] > DRAIN_S
    before_s = int(container(kubernetes)["lifecycle"]["preStop"]["exec"]["command"][1])
    assert before_s > 0  # or requests are still sent to who has gone
    assert pod["terminationGracePeriodSeconds"] > before_s + DRAIN_S


def test_compose_locks_the_container_down(compose: dict[str, Any]) -> None:
    assert compose["read_only"] is True
    assert compose["cap_drop"] == ["ALL"]
    assert compose["security_opt"] == ["no-new-privileges:true"]
    (scratch,) = compose["tmpfs"]
    assert scratch.startswith("/tmp:")
    assert {"noexec", "nosuid", "nodev"} <= set(scratch.partition(":")[2].split(","))
    assert compose["cpus"] > 0
    assert compose["ulimits"]["nofile"] >= 65536
    assert compose["logging"]["options"]["mode"] == "non-blocking"
    assert compose["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert all(one.endswith(":ro") for one in compose["volumes"])


def test_the_task_is_what_register_task_definition_takes(task: dict[str, Any]) -> None:
    model = botocore.session.get_session().get_service_model("ecs")
    shape = model.operation_model("RegisterTaskDefinition").input_shape
    report = botocore.validate.ParamValidator().validate(task, shape)
    assert not report.has_errors(), report.generate_report()


def test_the_task_locks_the_container_down(task: dict[str, Any]) -> None:
    (one,) = task["containerDefinitions"]
    assert one["readonlyRootFilesystem"] is True
    assert one["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
    (scratch,) = one["linuxParameters"]["tmpfs"]
    assert scratch["containerPath"] == "/tmp"
    assert {"noexec", "nosuid", "nodev"} <= set(scratch["mountOptions"])
    assert (
        one["logConfiguration"]["options"]["mode"] == "non-blocking"
    )  # or a log service that is away stops the container
    assert [(limit["name"], limit["hardLimit"] >= 65536) for limit in one["ulimits"]] == [("nofile", True)]
    assert one["portMappings"][0]["containerPort"] == PORT
    # Fargate has neither tmpfs nor security options: whoever changes this has to mount a volume at /tmp.
    assert task["requiresCompatibilities"] == ["EC2"]


def test_kubernetes_locks_the_container_down(kubernetes: dict[str, dict[str, Any]]) -> None:
    pod = kubernetes["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    one = container(kubernetes)
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert one["resources"]["limits"]["memory"] == one["resources"]["requests"]["memory"]
    assert set(one["resources"]["limits"]) == {"cpu", "memory", "ephemeral-storage"}
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is kubernetes["ServiceAccount"]["automountServiceAccountToken"] is False


def test_kubernetes_names_match(kubernetes: dict[str, dict[str, Any]]) -> None:
    deployment, service = kubernetes["Deployment"]["spec"], kubernetes["Service"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    pod = deployment["template"]["spec"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    assert service["selector"].items() <= labels.items()
    assert pod["serviceAccountName"] == kubernetes["ServiceAccount"]["metadata"]["name"]
    one = container(kubernetes)
    ports = {port["name"]: port["containerPort"] for port in one["ports"]}
    variables = {variable["name"]: variable["value"] for variable in one["env"]}
    assert ports == {"http": PORT, "admin": int(variables["MME_ADMIN_PORT"])}
    assert all(port["targetPort"] in ports for port in service["ports"])
    probes = [one[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert all(probe["httpGet"]["port"] == "admin" for probe in probes)
    assert {mount["name"] for mount in one["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_user_is_the_images(kubernetes: dict[str, dict[str, Any]], task: dict[str, Any]) -> None:
    context = kubernetes["Deployment"]["spec"]["template"]["spec"]["securityContext"]
    user = f"{context['runAsUser']}:{context['runAsGroup']}"
    assert f"ARG RUN_AS={user}" in (ROOT / "Dockerfile").read_text()
    assert task["containerDefinitions"][0]["user"] == user


def test_what_is_deployed_is_named_by_its_digest(kubernetes: dict[str, dict[str, Any]], task: dict[str, Any]) -> None:
    for image in (container(kubernetes)["image"], task["containerDefinitions"][0]["image"]):
        assert re.fullmatch(r"[^@]+@sha256:[0-9a-f]{64}", image)


def test_the_admin_port_is_open_to_prometheus_alone(kubernetes: dict[str, dict[str, Any]]) -> None:
    policy = kubernetes["NetworkPolicy"]["spec"]
    labels = kubernetes["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    rules = {rule["ports"][0]["port"]: rule["from"] for rule in policy["ingress"]}
    assert set(rules) == {"http", "admin"}
    assert rules["admin"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


def test_one_endpoint_stays_while_nodes_are_emptied(kubernetes: dict[str, dict[str, Any]]) -> None:
    budget = kubernetes["PodDisruptionBudget"]["spec"]
    assert budget["selector"] == kubernetes["Deployment"]["spec"]["selector"]
    assert 0 < budget["minAvailable"] < kubernetes["Deployment"]["spec"]["replicas"]


def test_probes_wait_longer_than_health_asks_the_serving_port(
    kubernetes: dict[str, dict[str, Any]], task: dict[str, Any]
) -> None:
    one = container(kubernetes)
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert one[name]["timeoutSeconds"] > TIMEOUT_S
    assert one["livenessProbe"]["failureThreshold"] > 1
    assert (
        task["containerDefinitions"][0]["healthCheck"]["timeout"] > 2 * TIMEOUT_S
    )  # the admin port, then the serving port
