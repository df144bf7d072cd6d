"""Envoy's configuration for a fleet, as JSON, which Envoy reads as YAML's own subset.

Rule: what Envoy does by default and would surprise is written out.
"""

from __future__ import annotations

import json
from typing import Any

from container.operate.fleet.replicas import (
    ALL_LOAD_PERCENT,
    ANSWER_S,
    ATTRIBUTES_HEADER,
    CHECK_S,
    FAILS,
    IDLE_S,
    PASSES,
    TARGET_HEADER,
    TRIES,
    Address,
    Fleet,
    is_number,
)

_TYPES = "type.googleapis.com/envoy.extensions"
# As handler/attributes.py reads it: pairs apart by commas or semicolons, spaces around them.
_TARGET_OF_ATTRIBUTES = r"^(?:.*[,;])? *TargetModel *= *([^,;]*[^,; ]).*$"
# Envoy's own limits for a cluster, 1,024 each, are below what one listener takes.
_MANY = 20_000
# Places on Maglev's table: prime, and a hundred times as many as the replicas a fleet may have.
_TABLE = 65_537


def configuration(fleet: Fleet) -> str:
    """The whole file."""
    return json.dumps(document(fleet), indent=2) + "\n"


def document(fleet: Fleet) -> dict[str, Any]:
    return {"static_resources": {"listeners": [_listener(fleet.listen)], "clusters": [_cluster(fleet)]}}


def _listener(listen: Address) -> dict[str, Any]:
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "endpoint",
        "codec_type": "AUTO",
        "common_http_protocol_options": {"idle_timeout": f"{IDLE_S}s"},
        "stream_idle_timeout": f"{ANSWER_S}s",
        "route_config": {"virtual_hosts": [{"name": "endpoint", "domains": ["*"], "routes": [_route()]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
            }
        ],
    }
    return {
        "name": "endpoint",
        "address": _socket(listen.host, listen.port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _route() -> dict[str, Any]:
    return {
        "match": {"prefix": "/"},
        "route": {
            "cluster": "replicas",
            "timeout": f"{ANSWER_S}s",
            "hash_policy": [
                {"header": {"header_name": TARGET_HEADER.lower()}, "terminal": True},
                {
                    "header": {
                        "header_name": ATTRIBUTES_HEADER.lower(),
                        "regex_rewrite": {"pattern": {"regex": _TARGET_OF_ATTRIBUTES}, "substitution": r"\1"},
                    }
                },
            ],
            # Scoring changes nothing, so a call may be made twice, each time of another replica.
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream,reset,retriable-status-codes",
                "retriable_status_codes": [503],
                "num_retries": TRIES - 1,
                "retry_host_predicate": [
                    {
                        "name": "envoy.retry_host_predicates.previous_hosts",
                        "typed_config": {"@type": f"{_TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
                    }
                ],
                "host_selection_retry_max_attempts": 20,  # each chooses anew by a hash of its own: one in two meets the same
                "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
            },
        },
    }


def _cluster(fleet: Fleet) -> dict[str, Any]:
    # Panic: Envoy would send calls to replicas that fail their checks once half of them do.
    common: dict[str, Any] = {"healthy_panic_threshold": {"value": 0}}
    percent = ALL_LOAD_PERCENT if fleet.load_percent is None else fleet.load_percent
    if percent:
        common["consistent_hashing_lb_config"] = {"hash_balance_factor": percent}
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), _MANY)
    http = {
        "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": {"idle_timeout": f"{IDLE_S}s"},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    checked = fleet.checked
    endpoints = [_endpoint(one) for one in fleet.replicas] if fleet.name is None else [_endpoint(fleet.name)]
    return {
        "name": "replicas",
        "type": "STATIC" if fleet.name is None and all(map(is_number, fleet.replicas)) else "STRICT_DNS",
        "connect_timeout": "1s",
        "lb_policy": "MAGLEV",
        "maglev_lb_config": {"table_size": _TABLE},
        "common_lb_config": common,
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http},
        "health_checks": [
            {
                "timeout": "2s",
                "interval": f"{CHECK_S}s",
                "no_traffic_interval": f"{CHECK_S}s",
                "unhealthy_threshold": FAILS,
                "healthy_threshold": PASSES,
                "http_health_check": {"host": "localhost", "path": checked.check_path},
            }
        ],
        "load_assignment": {"cluster_name": "replicas", "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _endpoint(one: Address) -> dict[str, Any]:
    return {
        "endpoint": {
            "address": _socket(one.host, one.port),
            "health_check_config": {"port_value": one.check_port},
        }
    }


def _socket(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host.strip("[]"), "port_value": port}}
