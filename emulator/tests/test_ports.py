"""The ports that the emulator chooses for what binds them later."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from vertex_ray_emulator import ports
from vertex_ray_emulator.ports import free_ports
from vertex_ray_emulator.settings import LOOPBACK


def test_linux_gives_none_of_them_to_a_connection() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(1024 <= port < first for port in free_ports(20))


def test_no_port_is_chosen_twice_in_a_row() -> None:
    chosen = [port for _ in range(5) for port in free_ports(4)]
    assert len(set(chosen)) == 20


def test_ports_in_use_are_passed_over() -> None:
    with ExitStack() as held:
        (before,) = free_ports(1)
        taken = [(before + k - 10_000) % 10_000 + 10_000 for k in range(1, 4)]
        for port in taken:
            each = held.enter_context(socket.socket())
            # Somebody else may have it.
            with suppress(OSError):
                each.bind((LOOPBACK, port))
        assert not set(free_ports(6)) & set(taken)


def test_too_many_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # Some of them may be taken.
    monkeypatch.setattr(ports, "_COUNT", 30)
    assert free_ports(1)
    with pytest.raises(OSError, match="no 31 free ports from 10000 to 10029"):
        free_ports(31)
