"""Renders the clusters: where a service's processes are, and which may get the next call."""

from collections.abc import Sequence
from typing import Any

from wayfare_envoy.topology import Endpoint, TopologyError, needs_dns, socket_address

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# An open stream counts as one request, and Envoy's default refuses the 1,025th.
_REQUESTS_MAX = 100_000
_STREAM_WINDOW_BYTES = 64 * 1024
# One connection carries every stream between Envoy and a process. A follower that does not read
# holds a stream's window; the connection's must not run out because a few thousand of them do.
_CONNECTION_WINDOW_BYTES = 2**31 - 1


def service_cluster(
    name: str, endpoints: Sequence[Endpoint], *, allow_instance_choice: bool
) -> dict[str, Any]:
    """Return the cluster of one service.

    Raises:
        TopologyError: There is no endpoint, or sockets and host names are mixed.
    """
    if not endpoints:
        raise TopologyError(f"The service {name} has no endpoint.")
    cluster = {
        "name": name,
        "type": _discovery(name, endpoints),
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": 1024 * 1024,
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {
            # A draining half of the processes must not get calls again because the other half is
            # few: all count as well only when none is.
            "healthy_panic_threshold": {"value": 1},
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [_endpoint(endpoint) for endpoint in endpoints]}],
        },
        "typed_extension_protocol_options": {HTTP_OPTIONS: _http2_options()},
        "circuit_breakers": {"thresholds": [_thresholds()]},
        "health_checks": [_health_check()],
        "outlier_detection": _outlier_detection(),
    }
    if allow_instance_choice:
        cluster["lb_subset_config"] = {
            "fallback_policy": "ANY_ENDPOINT",
            "subset_selectors": [{"keys": ["instance"], "fallback_policy": "ANY_ENDPOINT"}],
        }
    return cluster


def _discovery(name: str, endpoints: Sequence[Endpoint]) -> str:
    by_name = [needs_dns(endpoint.address) for endpoint in endpoints]
    if any(by_name) and any(endpoint.address.startswith("unix:") for endpoint in endpoints):
        raise TopologyError(f"The endpoints of {name} mix Unix sockets and host names.")
    return "STRICT_DNS" if any(by_name) else "STATIC"


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    address = socket_address(endpoint.address)
    if "pipe" in address:
        address = {"pipe": {"path": address["pipe"]["path"]}}  # the service set the mode
    return {
        "endpoint": {"address": address},
        "metadata": {"filter_metadata": {"envoy.lb": {"instance": endpoint.instance}}},
    }


def _http2_options() -> dict[str, Any]:
    return {
        "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
        "explicit_http_config": {
            "http2_protocol_options": {
                "initial_stream_window_size": _STREAM_WINDOW_BYTES,
                "initial_connection_window_size": _CONNECTION_WINDOW_BYTES,
                # A process that hangs is noticed by its streams, not only by health checks.
                "connection_keepalive": {"interval": "20s", "timeout": "10s"},
            }
        },
    }


def _thresholds() -> dict[str, Any]:
    return {
        "priority": "DEFAULT",
        "max_connections": _REQUESTS_MAX,
        "max_pending_requests": _REQUESTS_MAX,
        "max_requests": _REQUESTS_MAX,
        # Retries may add a fifth to the load, no more: repeating what fails must not keep it
        # failing.
        "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 20},
    }


def _health_check() -> dict[str, Any]:
    return {
        "grpc_health_check": {},
        "timeout": "2s",
        "interval": "0.5s",
        "unhealthy_interval": "0.25s",
        # Without calls Envoy would ask once a minute, and a stopped process would look well for as
        # long.
        "no_traffic_interval": "0.5s",
        "no_traffic_healthy_interval": "0.5s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "always_log_health_check_failures": False,
    }


def _outlier_detection() -> dict[str, Any]:
    return {
        # Counts only connections that fail or break. A process that answers UNAVAILABLE because
        # Valkey is away is as good as the others, and ejecting it would outlast the fault.
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 3,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "enforcing_failure_percentage": 0,
        "interval": "1s",
        "base_ejection_time": "2s",
        "max_ejection_time": "30s",
        "max_ejection_percent": 50,
    }
