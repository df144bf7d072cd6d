"""The manifests are what their readers take, agree with the image and the settings, and lock down what can be.

ECS's are checked against the API's own model in botocore, Kubernetes' against its schemas, Compose's against its own, and
HAProxy's part by HAProxy. Beyond that what is checked is what would go wrong: names that must match, variables that must
exist, restrictions that must be there.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import botocore.session
import botocore.validate
import jsonschema
import kubernetes_validate
import pytest
import yaml

from container.metrics.serving_port import TIMEOUT_S
from container.operate.fleet.balancer import find
from container.operate.fleet.kubernetes import Wanted, manifests
from container.settings import every_setting
from tests.container.manifests import restricted
from tests.rig.fleet import has

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


FLEETS = {
    "kubernetes.yaml": (DEPLOY / "kubernetes.yaml").read_text(),
    "kubernetes-fleet.yaml": (DEPLOY / "kubernetes-fleet.yaml").read_text(),
    "as printed": manifests(
        Wanted("cities", "prod", "s3://acme/cities/", least=2, most=30, memory="512Mi", load_percent=0)
    ),
}


@pytest.mark.parametrize("text", FLEETS.values(), ids=FLEETS)
def test_kubernetes_takes_each_object_and_knows_each_field(text: str) -> None:
    for one in yaml.safe_load_all(text):
        if one["kind"] == "ServiceMonitor":  # of the Prometheus operator; its schema requires these two
            assert set(one["spec"]) == {"selector", "endpoints"}
            assert all(set(endpoint) == {"port", "path", "interval"} for endpoint in one["spec"]["endpoints"])
        else:
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    (service,) = (one for one in yaml.safe_load_all(FLEETS["kubernetes.yaml"]) if one["kind"] == "Service")
    service["spec"]["selectors"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="selectors"):
        kubernetes_validate.validate(service, kubernetes_validate.latest_version(), strict=True)


def workloads(text: str) -> dict[str, dict[str, Any]]:
    """The templates of pods, by the name of what makes them."""
    documents = yaml.safe_load_all(text)
    return {one["metadata"]["name"]: one["spec"]["template"] for one in documents if "template" in one.get("spec", {})}


@pytest.mark.parametrize("text", FLEETS.values(), ids=FLEETS)
def test_pods_keep_to_the_restricted_standard(text: str) -> None:
    found = workloads(text)
    assert found
    for template in found.values():
        assert restricted.faults(template["spec"], template["metadata"].get("annotations")) == []


# One for each of the standard's controls: where it stands, and what must not.
FORBIDDEN: dict[str, tuple[list[str | int], Any]] = {
    "hostNetwork": (["hostNetwork"], True),
    "hostPID": (["hostPID"], True),
    "volume x": (["volumes"], [{"name": "x", "hostPath": {"path": "/"}}]),
    "sysctl kernel.msgmax": (["securityContext", "sysctls"], [{"name": "kernel.msgmax", "value": "1"}]),
    "seccomp of the pod": (["securityContext", "seccompProfile"], {"type": "Unconfined"}),
    "AppArmor of the pod": (["securityContext", "appArmorProfile"], {"type": "Unconfined"}),
    "SELinux of the pod": (["securityContext", "seLinuxOptions"], {"type": "spc_t"}),
    "runAsUser of the pod": (["securityContext", "runAsUser"], 0),
    "runAsNonRoot of the pod": (["securityContext", "runAsNonRoot"], False),
    "privileged of endpoint": (["containers", 0, "securityContext", "privileged"], True),
    "procMount of endpoint": (["containers", 0, "securityContext", "procMount"], "Unmasked"),
    "hostPort of endpoint": (["containers", 0, "ports"], [{"containerPort": 8080, "hostPort": 80}]),
    "a handler's host of endpoint": (["containers", 0, "livenessProbe", "httpGet", "host"], "169.254.169.254"),
    "allowPrivilegeEscalation of endpoint": (["containers", 0, "securityContext", "allowPrivilegeEscalation"], True),
    "runAsNonRoot of endpoint": (["containers", 0, "securityContext", "runAsNonRoot"], False),
    "seccomp of endpoint": (["containers", 0, "securityContext", "seccompProfile"], {"type": "Unconfined"}),
    "capabilities of endpoint": (["containers", 0, "securityContext", "capabilities", "add"], ["SYS_ADMIN"]),
}


@pytest.mark.parametrize("fault", FORBIDDEN)
def test_what_the_restricted_standard_forbids_is_found(kubernetes: dict[str, dict[str, Any]], fault: str) -> None:
    pod = copy.deepcopy(kubernetes["Deployment"]["spec"]["template"]["spec"])
    path, value = FORBIDDEN[fault]
    at = pod
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    assert fault in restricted.faults(pod)


@pytest.mark.parametrize("name", ["securityContext", "containers"])
def test_what_is_not_said_is_no_restriction(kubernetes: dict[str, dict[str, Any]], name: str) -> None:
    pod = copy.deepcopy(kubernetes["Deployment"]["spec"]["template"]["spec"])
    (pod if name == "securityContext" else pod["containers"][0]).pop("securityContext")
    assert len(restricted.faults(pod)) == 2


@pytest.mark.parametrize("text", FLEETS.values(), ids=FLEETS)
def test_pods_have_limits_no_token_and_nowhere_else_to_write(text: str) -> None:
    for template in workloads(text).values():
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        for one in restricted.containers(pod):
            assert one["securityContext"]["readOnlyRootFilesystem"] is True
            assert set(one["resources"]["limits"]) == set(one["resources"]["requests"]) == {
                "cpu", "memory", "ephemeral-storage"
            }  # fmt: skip
        assert all(
            {"medium", "sizeLimit"} <= set(volume["emptyDir"]) for volume in pod["volumes"] if "emptyDir" in volume
        )


def let_in(policies: list[dict[str, Any]], labels: dict[str, str], port: str) -> list[Any]:
    """From whom a port of a pod can be reached, by NetworkPolicies: peers, and None for anybody. Nodes, whence probes come,
    always can."""
    own = [one["spec"] for one in policies if one["spec"]["podSelector"]["matchLabels"].items() <= labels.items()]
    if not any("Ingress" in one["policyTypes"] for one in own):
        return [None]
    rules = [rule for one in own for rule in one.get("ingress", ())]
    reaching = [rule for rule in rules if not rule.get("ports") or port in {each["port"] for each in rule["ports"]}]
    return [peer for rule in reaching for peer in rule.get("from") or [None]]


@pytest.mark.parametrize("text", FLEETS.values(), ids=FLEETS)
def test_nobody_reaches_an_admin_port_but_prometheus_and_the_balancer(text: str) -> None:
    policies = [one for one in yaml.safe_load_all(text) if one["kind"] == "NetworkPolicy"]
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    for name, template in workloads(text).items():
        labels, (one, *others) = template["metadata"]["labels"], restricted.containers(template["spec"])
        assert others == []
        ports = {port["name"]: let_in(policies, labels, port["name"]) for port in one["ports"]}
        assert None not in [peer for peers in ports.values() for peer in peers], f"{name} is open to everybody"
        balancer = {"podSelector": {"matchLabels": labels | {"part": "balancer"}}}
        assert [peer for peer in ports.get("admin", ()) if peer != balancer] in ([], [prometheus])
        assert let_in(policies, labels, "9999") == []


def test_a_pod_that_no_policy_selects_is_open_to_everybody() -> None:
    policy = {"spec": {"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Ingress"], "ingress": [{}]}}
    assert let_in([policy], {"app": "b"}, "admin") == let_in([policy], {"app": "a"}, "admin") == [None]


@pytest.mark.parametrize("name", ["compose.yaml", "compose-fleet.yaml"])
def test_compose_takes_its_files(name: str) -> None:
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    document = yaml.safe_load((DEPLOY / name).read_text())
    check = jsonschema.validators.validator_for(rules := json.loads(schema.read_text()))(rules)
    check.validate(document)
    document["services"]["endpoint"]["memory_limit"] = "1g"
    assert not check.is_valid(document)


def haproxys() -> dict[str, str]:
    """HAProxy's configuration as each manifest has it."""
    compose = yaml.safe_load((DEPLOY / "compose-fleet.yaml").read_text())
    (balancer,) = json.loads((DEPLOY / "ecs-fleet-balancer.json").read_text())["containerDefinitions"]
    (ring,) = (one for one in yaml.safe_load_all(FLEETS["kubernetes-fleet.yaml"]) if one["kind"] == "ConfigMap")
    return {
        "compose": compose["configs"]["haproxy"]["content"].replace("$$", "$"),
        "ecs": balancer["environment"][0]["value"],
        "kubernetes": ring["data"]["haproxy.cfg"],
    }


@pytest.mark.parametrize("text", haproxys().values(), ids=haproxys())
def test_haproxy_takes_what_each_manifest_gives_it(tmp_path: Path, text: str) -> None:
    if not has("haproxy"):
        pytest.skip("haproxy is not installed")
    (tmp_path / "haproxy.cfg").write_text(text)
    command = [find("haproxy"), "-c", "-f", str(tmp_path / "haproxy.cfg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


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
