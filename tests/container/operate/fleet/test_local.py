"""A fleet on this machine, where it needs no replica to be shown."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from container.operate.fleet.balancer import Balancer, BalancerFailed
from container.operate.fleet.replicas import Address, Fleet
from container.operate.main import main
from tests.rig.endpoint import free_port

PATIENCE_S = 60.0


def test_who_is_told_to_stop_does_not_wait_for_a_balancer(tmp_path: Path) -> None:
    fleet = Fleet(Address("127.0.0.1", free_port()), (Address("127.0.0.1", free_port()),))
    program = tmp_path / "balancer"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o700)
    with Balancer("haproxy", str(program), fleet, tmp_path) as balancer:
        assert not balancer.wait_ready(PATIENCE_S, lambda: True)
        assert balancer.is_running


@pytest.mark.parametrize("flag", ["--port", "--page-port"])
def test_of_a_port_that_cannot_be_had_the_flag_is_named(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    other = "--page-port" if flag == "--port" else "--port"
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = str(server.getsockname()[1])
        assert main(["fleet", "local", "--models", ".", flag, taken, other, str(free_port())]) == 1
        assert capsys.readouterr().err.endswith(f"choose another with {flag}\n")
    assert main(["fleet", "local", "--models", ".", flag, "99999", other, str(free_port())]) == 2
    assert capsys.readouterr().err == f"mme fleet: {flag} 99999: there is no such port\n"
    if flag == "--port":  # the page takes any then
        assert main(["fleet", "local", "--models", ".", flag, "0"]) == 2
        assert capsys.readouterr().err == "mme fleet: --port 0: there is no such port\n"


def test_what_a_balancer_cannot_do_is_said_before_anything_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    ports = ("--port", str(free_port()), "--page-port", "0")
    program = ("--balancer", "nginx", "--balancer-program", sys.executable)
    assert main(["fleet", "local", "--models", ".", *program, *ports, "--load", "150"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nginx has no bound" in line


def test_a_balancer_that_cannot_be_started_is_said_in_its_own_words(tmp_path: Path) -> None:
    program = tmp_path / "balancer"
    program.write_bytes(b"\x7fELF of another machine")
    program.chmod(0o700)
    fleet = Fleet(Address("127.0.0.1", free_port()), (Address("127.0.0.1", free_port()),))
    with pytest.raises(BalancerFailed, match="Exec format error"):
        Balancer("haproxy", str(program), fleet, tmp_path)
