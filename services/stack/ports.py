"""Choose TCP ports: the friendly one when it is free, any free one otherwise."""

import socket
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"

EDGE_PORT = 8080
MESH_PORT = 8081
_FIRST_METRICS_PORT = 9101

# Ports that this process has promised, and the open file that keeps each of them.
_kept: dict[int, int] = {}


@dataclass(frozen=True, slots=True)
class ChosenPort:
    """A port, and the friendly one that was taken when it is another."""

    port: int
    taken: int | None = None


def choose_port(preferred: int | None, *, chosen: set[int], host: str = LOOPBACK) -> ChosenPort:
    """Return the preferred port when nobody listens on it; else, or without one, a free one.

    `chosen` are ports that were promised to others but may not be bound yet; the choice is added to
    it.
    """
    if preferred is not None and preferred not in chosen and _is_free(host, preferred):
        chosen.add(preferred)
        return ChosenPort(preferred)
    port = _free_port(host)
    while port in chosen or not _keep(host, port):
        port = _free_port(host)
    chosen.add(port)
    return ChosenPort(port, preferred)


def metrics_port(index: int) -> int:
    """Return the friendly metrics port of the n-th service process, counted from zero."""
    return _FIRST_METRICS_PORT + index


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _keep(host: str, port: int) -> bool:
    """Promise the port until this process ends; return False when another process has done so.

    Between the choice and the bind of the server another stack that starts on this machine would
    find the same port free. What both can see is a socket, and nothing here uses UDP.
    """
    if port in _kept:
        return False
    with socket.socket(type=socket.SOCK_DGRAM) as claim:
        try:
            claim.bind((host, port))
        except OSError:
            return False
        _kept[port] = claim.detach()
    return True
