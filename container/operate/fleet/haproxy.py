"""HAProxy's configuration for a fleet, 2.6 or later.

Rule: what HAProxy does by default and would surprise is written out, with why.
"""

from __future__ import annotations

from collections.abc import Iterator

from container.operate.fleet.replicas import (
    ANSWER_S,
    ATTRIBUTES_HEADER,
    CHECK_S,
    FAILS,
    HOT_LOAD_PERCENT,
    IDLE_S,
    KEPT_BYTES,
    PASSES,
    SLOW_START_S,
    TARGET_HEADER,
    TRIES,
    Address,
    Fleet,
    is_number,
)

# A model called more often than this is hot. One replica answers some thousands a second.
HOT_PER_S = 50
WINDOW_S = 10

_TEMPLATE = """\
# A fleet of multi-model endpoints: each model's calls go to the replica that has it in memory.
#   haproxy -f THIS
global
    # A call is sent again only while its body is still here; a larger one fails with its replica.
    tune.bufsize {kept_bytes}

defaults
    mode http
    timeout connect 1s
    timeout client {client_s}s
    timeout http-keep-alive {client_s}s
    timeout server {answer_s}s
    timeout queue 10s
    option http-keep-alive
    http-reuse aggressive
    # Scoring changes nothing, so a call may be made twice: when nobody was reached, nothing came back, or the replica
    # said 503 (stopping, restarting, its queue full). Each time of another replica.
    retries {retries}
    option redispatch 1
    retry-on conn-failure empty-response 503
    # A call whose body came behind its head would be sent before it is whole, and then not a second time.
    option http-buffer-request
    # The weight is how many places a server has on the ring: with the default, 1, some have twice as many models as others.
    default-server weight 100 slowstart {slow_start_s}s pool-purge-delay {idle_s}s

frontend endpoint
    bind {listen}
    # For whoever asks whether this balancer is of use.
    monitor-uri /fleet-readyz
    monitor fail if {{ nbsrv(replicas) lt 1 }}
    # The key is the target, wherever it is named. Without one the replicas take turns.
    http-request set-var(txn.target) req.fhdr({target})
    http-request set-var(txn.target) {from_attributes} if !{{ var(txn.target) -m found }} {{ {has_target} }}
{hot_rules}    default_backend replicas

backend replicas
    balance hash var(txn.target)
    # A replica that comes or goes moves its own share of the models and no other's.
    hash-type consistent sdbm avalanche
{checks}{servers}{hot}"""

_HOT_RULES = """\
    # A model is hot that is called more than {hot_per_s} times a second: these spill to other replicas, and only these. A
    # bound for all would send away any call that meets another on a quiet fleet, and what is sent away is loaded there anew.
    http-request track-sc0 var(txn.target),xxh32 table hot if {{ var(txn.target) -m found }}
    use_backend hot if {{ sc0_http_req_rate(hot) gt {hot_calls} }}
"""

_HOT = """
backend hot
    stick-table type integer size 200k expire 30s store http_req_rate({window_s}s)
    balance hash var(txn.target)
    hash-type consistent sdbm avalanche
    # Of the hot calls under way a replica has at most so much of the mean, in percent; the next on the ring has the rest.
    hash-balance-factor {percent}
{checks}{servers}"""

# As handler/attributes.py reads it: pairs apart by commas or semicolons, spaces around them.
_HAS_TARGET = f"req.fhdr({ATTRIBUTES_HEADER}) -m reg '(^|[,;])[ ]*TargetModel[ ]*='"
_FROM_ATTRIBUTES = (
    f"'req.fhdr({ATTRIBUTES_HEADER}),"
    """regsub("^(.*[,;])?[ ]*TargetModel[ ]*=[ ]*",""),regsub("[ ]*([,;].*)?$","")'"""
)

_CHECKS = """\
    option httpchk
    http-check send meth GET uri {check_path} ver HTTP/1.1 hdr Host localhost
    http-check expect status 200
"""

_RESOLVERS = """
resolvers dns
    parse-resolv-conf
    hold valid 5s
    accepted_payload_size 8192
"""


def configuration(fleet: Fleet) -> str:
    """The whole file."""
    percent = HOT_LOAD_PERCENT if fleet.load_percent is None else fleet.load_percent
    text = _TEMPLATE.format(
        kept_bytes=KEPT_BYTES,
        client_s=IDLE_S,
        answer_s=ANSWER_S,
        retries=TRIES - 1,
        listen=fleet.listen,
        target=TARGET_HEADER,
        from_attributes=_FROM_ATTRIBUTES,
        has_target=_HAS_TARGET,
        hot_rules=_HOT_RULES.format(hot_per_s=HOT_PER_S, hot_calls=HOT_PER_S * WINDOW_S) if percent else "",
        slow_start_s=SLOW_START_S,
        idle_s=IDLE_S,
        checks=_checks(fleet),
        servers="".join(_servers(fleet)),
        hot=_hot(fleet, percent) if percent else "",
    )
    return text if fleet.name is None and all(map(is_number, fleet.replicas)) else text + _RESOLVERS


def _checks(fleet: Fleet) -> str:
    return _CHECKS.format(check_path=fleet.checked.check_path)


def _hot(fleet: Fleet, percent: int) -> str:
    return _HOT.format(
        window_s=WINDOW_S,
        percent=percent,
        checks="" if fleet.name is None else _checks(fleet),
        servers="".join(_servers(fleet, is_tracked=fleet.name is None)),
    )


def _servers(fleet: Fleet, *, is_tracked: bool = False) -> Iterator[str]:
    """is_tracked: they are up when those of the same names in the first backend are, which are asked."""
    looked_up = "resolvers dns init-addr none"
    if fleet.name is not None:
        # Places on the ring belong to slots, and which replica has which slot each HAProxy finds out by itself: run one, or
        # name the replicas. (HAProxy 3.0 has hash-key addr for it.)
        yield f"    server-template replica- 1-{fleet.n_places} {fleet.name} {_check(fleet.name)} {looked_up}\n"
        return
    # The ids are a server's places on the ring, so that several HAProxys agree.
    for number, one in enumerate(fleet.replicas, 1):
        state = f"track replicas/replica-{number}" if is_tracked else _check(one)
        words = [f"server replica-{number} {one} id {number}", state, *([] if is_number(one) else [looked_up])]
        yield f"    {' '.join(words)}\n"


def _check(one: Address) -> str:
    return f"check inter {CHECK_S}s fastinter 250ms fall {FAILS} rise {PASSES} port {one.check_port}"
