"""Ports for servers that bind them only after they were chosen, as those that Ray starts do, seconds later."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket

from vertex_ray_emulator.settings import LOOPBACK

# Linux takes the ports of outgoing connections from 32768 on: it never takes one of these between the choice and its
# use. Ray keeps an agent alive that lost its port, without the metrics or the environments of its node.
_FIRST, _COUNT = 10_000, 10_000
# Each process begins somewhere else, so that two emulators do not choose the same port at the same time.
_APART = 40
_chosen = itertools.count()


def free_ports(count: int) -> list[int]:
    """Return different free ports of 127.0.0.1, none of which this process has returned lately.

    :raises OSError: if there are not enough free ports from 10000 to 19999.
    """
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for _ in range(_COUNT):
            port = _FIRST + (os.getpid() * _APART + next(_chosen)) % _COUNT
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind((LOOPBACK, port))
                ports.append(port)
            if len(ports) == count:
                return ports
    raise OSError(f"There are no {count} free ports from {_FIRST} to {_FIRST + _COUNT - 1}.")
