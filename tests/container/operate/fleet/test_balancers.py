"""Balancers' configurations: what they say, and that the balancers themselves take them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from container.operate.fleet import envoy, haproxy, kubernetes, nginx
from container.operate.fleet.balancer import configuration, find
from container.operate.fleet.replicas import IDLE_S, Address, Fleet, parse_address, parse_replicas
from container.operate.main import main
from container.operate.troubles import Misused
from container.settings import every_setting
from tests.rig.fleet import has

LISTEN = Address("127.0.0.1", 18080)
REPLICAS = parse_replicas(["10.0.0.1:8080/8081,10.0.0.2:8080/8081", "10.0.0.3:8080/9081"])
FLEETS = {
    "addresses": Fleet(LISTEN, REPLICAS),
    "one name": Fleet(LISTEN, name=Address("replicas.internal", 8080, 8081), resolver="127.0.0.53"),
    "names": Fleet(LISTEN, (Address("a-0.a", 8080), Address("a-1.a", 8080))),
    "no bound": Fleet(LISTEN, REPLICAS, load_percent=0),
}
FLEET = FLEETS["addresses"]


@pytest.mark.parametrize("fleet", FLEETS.values(), ids=FLEETS)
@pytest.mark.parametrize("kind", ["haproxy", "envoy", "nginx"])
def test_the_balancer_takes_its_configuration(tmp_path: Path, kind: str, fleet: Fleet) -> None:
    if not has(kind):
        pytest.skip(f"{kind} is not installed")
    if kind == "nginx" and fleet is FLEETS["names"]:
        pytest.skip("nginx looks names up when it starts")
    path = tmp_path / ("fleet.json" if kind == "envoy" else "fleet.conf")
    path.write_text(nginx.configuration(fleet, str(tmp_path)) if kind == "nginx" else configuration(kind, fleet))
    checks = {
        "haproxy": ["-c", "-f", str(path)],
        "envoy": ["--mode", "validate", "-c", str(path)],
        "nginx": ["-t", "-p", str(tmp_path), "-c", str(path)],
    }
    done = subprocess.run([find(kind), *checks[kind]], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"warning|deprecated", done.stdout + done.stderr, re.IGNORECASE)


def test_haproxy_looks_after_each_replica_at_its_own_admin_port() -> None:
    text = haproxy.configuration(FLEET)
    servers = re.findall(r"server (replica-\d) (\S+) id (\d) check .* port (\d+)\n", text)
    assert servers == [
        ("replica-1", "10.0.0.1:8080", "1", "8081"),
        ("replica-2", "10.0.0.2:8080", "2", "8081"),
        ("replica-3", "10.0.0.3:8080", "3", "9081"),
    ]
    assert "uri /readyz" in text


def test_haproxys_hot_models_have_the_same_ring() -> None:
    cold, _, hot = haproxy.configuration(FLEET).partition("\nbackend hot\n")
    ring = re.compile(r"server (replica-\d) (\S+) id (\d)")
    assert ring.findall(cold) == ring.findall(hot) != []
    assert "hash-balance-factor 150" in hot
    assert "hash-balance-factor" not in cold
    assert "backend hot" not in haproxy.configuration(FLEETS["no bound"])


def test_without_an_admin_port_ping_is_asked() -> None:
    assert "uri /ping" in haproxy.configuration(FLEETS["names"])
    assert '"path": "/ping"' in envoy.configuration(FLEETS["names"])


def test_envoy_has_the_target_as_its_key_wherever_it_is_named() -> None:
    document = envoy.document(FLEET)
    (listener,) = document["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    policies = manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["hash_policy"]
    pattern = policies[1]["header"]["regex_rewrite"]["pattern"]["regex"]
    for attributes in (
        "TargetModel=us/a.tar.gz",
        "Timing=1; TargetModel = us/a.tar.gz , b=c",
        "x=y,TargetModel=us/a.tar.gz ",
    ):
        assert re.sub(pattern, r"\1", attributes) == "us/a.tar.gz"
    (cluster,) = document["static_resources"]["clusters"]
    assert cluster["common_lb_config"]["consistent_hashing_lb_config"] == {"hash_balance_factor": 300}


def test_a_balancer_lets_an_idle_connection_go_before_the_replica_does() -> None:
    replicas_s = next(one.default for one in every_setting() if one.name == "idle_s")
    assert replicas_s > IDLE_S
    assert f"pool-purge-delay {IDLE_S}s" in haproxy.configuration(FLEET)
    assert f"keepalive_timeout {IDLE_S}s" in nginx.configuration(FLEET)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["haproxy"], "give each replica's address"),
        (["haproxy", "--replica", "a:1", "--dns", "b:1"], "give each replica's address"),
        (["envoy", "--replica", "a:1,a:1"], "same address"),
        (["nginx", "--replica", "a:99999"], "a port that there is none of"),
        (["nginx", "--replica", "a"], "write HOST:PORT"),
        (["nginx", "--dns", "a:1"], "--resolver"),
        (["haproxy", "--replica", "a:1", "--load", "90"], "is no bound"),
        (["nginx", "--replica", "a:1", "--load", "150"], "nginx has no bound"),
        (["kubernetes", "--name", "No Name"], "is no name"),
        (["kubernetes", "--replicas", "9", "--most", "3"], "in this order"),
        (["kubernetes", "--models", 's3://acme/x"y/'], "cannot be written"),
        (["kubernetes", "--models", "./models"], "no pod has it"),
        (["kubernetes", "--models", "/srv/models"], "no pod has it"),
        (["kubernetes", "--models", "s3://b/x/"], "is no bucket name"),
        (["kubernetes", "--models", "s3://acme-models/"], "nothing is beside it"),
        (["local", "--models", ".", "--replicas", "0"], "cannot be run"),
        (["local", "--models", ".", "--balancer-program", "/nowhere"], "is no program"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fleet", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
def test_it_is_printed_for_the_replicas_given(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--replica", "10.0.0.1:8080/8081", "--replica", "10.0.0.2:8080/8081", "--listen", "0.0.0.0:80"]
    assert main(["fleet", kind, *arguments]) == 0
    text = capsys.readouterr().out
    assert "10.0.0.1:8080" in text
    assert "0.0.0.0:80" in text


# -- Kubernetes --------------------------------------------------------------------------------------------------------


def objects(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text)}


def test_the_manifest_beside_the_others_is_what_is_printed() -> None:
    path = Path(kubernetes.__file__).parents[2] / "manifests" / "kubernetes-fleet.yaml"
    assert path.read_text() == kubernetes.manifests(kubernetes.Wanted())


def test_kubernetes_names_and_labels_match_whatever_they_are() -> None:
    wanted = kubernetes.Wanted(name="cities", namespace="prod", least=2, most=5)
    found = objects(kubernetes.manifests(wanted))
    assert {one["metadata"]["namespace"] for one in found.values()} == {"prod"}
    replicas, balancer = found["StatefulSet", "cities"], found["Deployment", "cities-balancer"]
    replica_labels = replicas["spec"]["template"]["metadata"]["labels"]
    balancer_labels = balancer["spec"]["template"]["metadata"]["labels"]
    assert (
        replicas["spec"]["selector"]["matchLabels"]
        == replica_labels
        == found["Service", "cities-replicas"]["spec"]["selector"]
    )
    assert (
        balancer["spec"]["selector"]["matchLabels"] == balancer_labels == found["Service", "cities"]["spec"]["selector"]
    )
    assert replicas["spec"]["serviceName"] == "cities-replicas"
    scaler = found["HorizontalPodAutoscaler", "cities"]["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "cities"}
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 5)
    for name, labels in (("cities", replica_labels), ("cities-balancer", balancer_labels)):
        assert found["PodDisruptionBudget", name]["spec"]["selector"]["matchLabels"] == labels
        assert found["NetworkPolicy", name]["spec"]["podSelector"]["matchLabels"] == labels
    assert found["ServiceMonitor", "cities"]["spec"]["selector"]["matchLabels"] == replica_labels
    text = found["ConfigMap", "cities-balancer"]["data"]["haproxy.cfg"]
    assert "server replica-5 cities-4.cities-replicas.prod.svc.cluster.local:8080 id 5" in text
    assert "replica-6" not in text


def test_kubernetes_locks_both_kinds_down_and_waits_for_calls_to_end() -> None:
    found = objects(kubernetes.manifests(kubernetes.Wanted()))
    drain_s = next(one.default for one in every_setting() if one.name == "drain_s")
    variables = {variable for one in every_setting() for variable in one.metadata["variables"]}
    for one in (found["StatefulSet", "multi-model-endpoint"], found["Deployment", "multi-model-endpoint-balancer"]):
        pod = one["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert pod["terminationGracePeriodSeconds"] > drain_s + 5
        assert {variable["name"] for variable in container.get("env", [])} <= variables


def test_the_metric_it_scales_by_is_one_that_is_told() -> None:
    from container.metrics.prometheus import series_name
    from handler.telemetry.recorder import RELOADS_WITHIN_MINUTES

    text = kubernetes.manifests(kubernetes.Wanted())
    assert f"seriesQuery: {series_name(RELOADS_WITHIN_MINUTES)}_total" in text


@pytest.mark.parametrize("text", ["a:0", ":80", "a:b", "[::1]8080", "a:1/2/3", "a b:80"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Misused):
        parse_address(text)


def test_an_address_may_be_of_either_kind() -> None:
    assert parse_address("[::1]:8080/8081") == Address("[::1]", 8080, 8081)
    assert json.loads(envoy.configuration(Fleet(LISTEN, (parse_address("[::1]:8080"),))))


# -- the other manifests -----------------------------------------------------------------------------------------------

MANIFESTS = Path(kubernetes.__file__).parents[2] / "manifests"


def test_compose_has_the_configuration_that_is_printed() -> None:
    compose = yaml.safe_load((MANIFESTS / "compose-fleet.yaml").read_text())
    fleet = Fleet(Address("0.0.0.0", 8080), name=Address("endpoint", 8080, 8081))
    assert compose["configs"]["haproxy"]["content"].replace("$$", "$") == haproxy.configuration(fleet)
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    variables = {variable for one in every_setting() for variable in one.metadata["variables"]}
    assert set(compose["services"]["endpoint"]["environment"]) <= variables


def test_ecs_has_the_configuration_that_is_printed() -> None:
    import botocore.session
    import botocore.validate

    task = json.loads((MANIFESTS / "ecs-fleet-balancer.json").read_text())
    fleet = Fleet(Address("0.0.0.0", 8080), name=Address("endpoint.fleet.internal", 8080, 8081))
    (one,) = task["containerDefinitions"]
    assert one["environment"] == [{"name": "FLEET_HAPROXY", "value": haproxy.configuration(fleet)}]
    model = botocore.session.get_session().get_service_model("ecs")
    shape = model.operation_model("RegisterTaskDefinition").input_shape
    report = botocore.validate.ParamValidator().validate(task, shape)
    assert not report.has_errors(), report.generate_report()
