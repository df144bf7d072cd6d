"""What Kubernetes' Pod Security Standards ask of a pod, at their strictest level, "restricted".

Rule: one line for each control, in the order of the page, and what is not said is taken as the standard takes it.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/, as of 1.34: baseline and restricted. Windows'
controls are left out; no pod here is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SECCOMP = {"RuntimeDefault", "Localhost"}
_HANDLERS = ("livenessProbe", "readinessProbe", "startupProbe")


def faults(pod: Mapping[str, Any], annotations: Mapping[str, str] | None = None) -> list[str]:
    """What the standard forbids of a pod's spec; empty where it takes it.

    annotations   of the pod's template: AppArmor's were there before there was a field
    """
    return [*_of_pod(pod, annotations or {}), *(fault for one in containers(pod) for fault in _of_container(one, pod))]


def containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    kinds = ("initContainers", "containers", "ephemeralContainers")
    return [one for kind in kinds for one in pod.get(kind, ())]


def _of_pod(pod: Mapping[str, Any], annotations: Mapping[str, str]) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield name
    for volume in pod.get("volumes", ()):
        if set(volume) - {"name"} - VOLUMES:
            yield f"volume {volume['name']}"
    context = pod.get("securityContext", {})
    yield from _of_context(context, "the pod")
    for one in context.get("sysctls", ()):
        if one["name"] not in SYSCTLS:
            yield f"sysctl {one['name']}"
    for name, value in annotations.items():
        if name.startswith("container.apparmor.security.beta.kubernetes.io/") and not value.startswith(
            ("runtime/default", "localhost/")
        ):
            yield f"AppArmor {value}"


def _of_context(context: Mapping[str, Any], where: str) -> Iterator[str]:
    """What may stand at a pod and at a container."""
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in SECCOMP:
        yield f"AppArmor of {where}"
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type", "") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield f"SELinux of {where}"
    if context.get("seccompProfile", {}).get("type", "RuntimeDefault") not in SECCOMP:
        yield f"seccomp of {where}"
    if context.get("runAsNonRoot") is False:
        yield f"runAsNonRoot of {where}"
    if context.get("runAsUser") == 0:
        yield f"runAsUser of {where}"


def _of_container(one: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    name, context, around = one["name"], one.get("securityContext", {}), pod.get("securityContext", {})
    yield from _of_context(context, name)
    if context.get("privileged"):
        yield f"privileged of {name}"
    if context.get("procMount", "Default") != "Default":
        yield f"procMount of {name}"
    if any(port.get("hostPort") for port in one.get("ports", ())):
        yield f"hostPort of {name}"
    hooks = [one.get("lifecycle", {}).get(when, {}) for when in ("postStart", "preStop")]
    for handler in [*hooks, *(one.get(kind, {}) for kind in _HANDLERS)]:
        if any(handler.get(how, {}).get("host") for how in ("httpGet", "tcpSocket")):
            yield f"a handler's host of {name}"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"allowPrivilegeEscalation of {name}"
    if "runAsNonRoot" not in context and around.get("runAsNonRoot") is not True:
        yield f"runAsNonRoot of {name}"
    if "seccompProfile" not in context and "seccompProfile" not in around:
        yield f"seccomp of {name}"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield f"capabilities of {name}"
