"""nginx's configuration for a fleet, 1.27.3 or later where the replicas are behind a name.

Rule: what nginx cannot do is said in the file: it has no bound on a hot model's replica and asks nobody how he is.
"""

from __future__ import annotations

from container.operate.fleet.replicas import ANSWER_S, IDLE_S, KEPT_BYTES, TRIES, Fleet
from container.operate.troubles import Misused

_TEMPLATE = """\
# A fleet of multi-model endpoints: each model's calls go to the replica that has it in memory.
#   nginx -c THIS
# nginx has no bound on how many calls a hot model's replica gets (HAProxy and Envoy have), and does not ask /readyz: a
# replica is out for {fail_s} s when a call of it failed.
worker_processes auto;
error_log stderr warn;
daemon off;
{files}
events {{
    worker_connections 8192;
}}

http {{
    access_log off;
    client_max_body_size 25m;
    client_body_buffer_size {kept_bytes};
    keepalive_timeout {idle_s}s;
    keepalive_requests 1000000;
{resolver}
    # The target, wherever it is named: pairs of the attributes are apart by commas or semicolons. Without one, any replica.
    map $http_x_amzn_sagemaker_custom_attributes $target_of_attributes {{
        default "";
        "~(?:^|[,;]) *TargetModel *= *(?<named>[^,;]*[^,; ])" $named;
    }}
    map $http_x_amzn_sagemaker_target_model $target {{
        default $http_x_amzn_sagemaker_target_model;
        "" $target_of_attributes;
    }}
    map $target $ring_key {{
        default $target;
        "" $request_id;
    }}

    upstream replicas {{
{zone}        hash $ring_key consistent;
{servers}        keepalive 256;
        keepalive_timeout {idle_s}s;
        keepalive_requests 1000000;
    }}

    server {{
        listen {listen};
        location / {{
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_connect_timeout 1s;
            proxy_read_timeout {answer_s}s;
            # Scoring changes nothing, so a call may be made twice.
            proxy_next_upstream error timeout http_503 non_idempotent;
            proxy_next_upstream_tries {tries};
            proxy_next_upstream_timeout {answer_s}s;
        }}
    }}
}}
"""

FAIL_S = 2


def configuration(fleet: Fleet, scratch: str | None = None) -> str:
    """The whole file. scratch: where it keeps its own files; else where it was built for."""
    if fleet.load_percent:
        raise Misused("nginx has no bound on a replica's load: leave --load out, or take another balancer")
    if fleet.name is not None and fleet.resolver is None:
        raise Misused("nginx asks no resolver of the system's: name one with --resolver")
    resolver = "" if fleet.name is None else f"    resolver {fleet.resolver} valid=5s;\n"
    return _TEMPLATE.format(
        files=_files(scratch),
        fail_s=FAIL_S,
        kept_bytes=KEPT_BYTES,
        idle_s=IDLE_S,
        resolver=resolver,
        zone="" if fleet.name is None else "        zone replicas 256k;\n",
        servers=_servers(fleet),
        listen=fleet.listen,
        answer_s=ANSWER_S,
        tries=TRIES,
    )


def _servers(fleet: Fleet) -> str:
    if fleet.name is not None:
        return f"        server {fleet.name} resolve max_fails=1 fail_timeout={FAIL_S}s;\n"
    return "".join(f"        server {one} max_fails=1 fail_timeout={FAIL_S}s;\n" for one in fleet.replicas)


def _files(scratch: str | None) -> str:
    return "" if scratch is None else f"pid {scratch}/nginx.pid;\n"
