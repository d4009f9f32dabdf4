"""What a deployment tells the renderer: addresses, files and limits."""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The kernel's limit for the path of a Unix socket, its closing zero included.
_UNIX_PATH_BYTES_MAX = 107


class TopologyError(ValueError):
    """Say which part of a topology cannot work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Name one process of a service and where it listens.

    `address` is `unix:/path` or `host:port`, as in WAYFARE_LISTEN.
    """

    instance: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Name the certificate chain and private key (PEM) with which the edge listener serves TLS."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bound what callers may take from Envoy.

    Requests per address count opened streams and unary calls together, before anybody is
    authenticated. Phones behind one carrier's NAT share an address: the bound stops a flood, it
    does not meter a person.
    """

    connections_max: int = 50_000
    streams_per_connection_max: int = 2_048
    requests_per_address_burst: int = 10_000
    requests_per_address_per_second: int = 1_000
    message_bytes_max: int = 1024 * 1024
    answer_bytes_max: int = 8 * 1024 * 1024
    header_kilobytes_max: int = 16
    memory_bytes_max: int = 2 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Describe one Envoy and what stands behind it.

    `services` maps a service's name (`location` for `wayfare.location.v1`) to its processes.
    `admin_address` is `unix:/path` or a loopback `host:port`: the admin page can stop Envoy.
    `metrics_address` is where Prometheus reads `/metrics`; None opens no such listener.
    `access_log` is a file; None writes to standard output.
    `trusted_proxies` counts the proxies in front of the edge whose x-forwarded-for is believed.
    `allow_instance_choice` lets a caller name a process with the header `x-wayfare-instance`, for
    tests and demonstrations only.
    `web_folder` holds the web map, which is served under /app/; None serves none.
    """

    edge_address: str
    mesh_address: str
    admin_address: str
    services: Mapping[str, Sequence[Endpoint]]
    certificate_dir: Path
    jwks_file: Path
    descriptor_set: Path
    cors_origins: Sequence[str] = ()
    metrics_address: str | None = None
    access_log: Path | None = None
    edge_tls: TlsFiles | None = None
    trusted_proxies: int = 0
    allow_instance_choice: bool = False
    web_folder: Path | None = None
    limits: Limits = field(default_factory=Limits)


def socket_address(address: str) -> dict[str, Any]:
    """Return Envoy's form of `unix:/path` or `host:port`.

    Raises:
        TopologyError: The address has neither form, or the path is too long for the kernel.
    """
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if len(path.encode()) > _UNIX_PATH_BYTES_MAX:
            raise TopologyError(
                f"The socket path {path} is longer than {_UNIX_PATH_BYTES_MAX} bytes."
            )
        return {"pipe": {"path": path, "mode": 0o600}}
    host, port = split_host_port(address)
    return {"socket_address": {"address": host, "port_value": port}}


def split_host_port(address: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`.

    Raises:
        TopologyError: The address has another form.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise TopologyError(f"The address {address!r} is neither unix:/path nor host:port.")
    return host.strip("[]"), int(port)


def needs_dns(address: str) -> bool:
    """Tell whether the address names a host that DNS has to resolve."""
    if address.startswith("unix:"):
        return False
    try:
        ipaddress.ip_address(split_host_port(address)[0])
    except ValueError as error:
        if isinstance(error, TopologyError):
            raise
        return True
    return False
