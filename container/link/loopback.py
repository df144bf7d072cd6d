"""Where a server of ours is asked from this machine."""

from __future__ import annotations


def asked_at(host: str) -> str:
    """The address at which a server that listens on `host` is reached from here."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
