"""Renders a listener from which Prometheus reads, and nothing else of the admin page is reached."""

from typing import Any

from wayfare_envoy.filters import router
from wayfare_envoy.topology import socket_address

_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_CLUSTER = "admin"


def metrics_listener(address: str) -> dict[str, Any]:
    """Return a listener that answers GET /metrics in Prometheus' form."""
    route = {
        "match": {"path": "/metrics"},
        "route": {"cluster": _CLUSTER, "prefix_rewrite": "/stats/prometheus", "timeout": "10s"},
    }
    manager = {
        "@type": f"type.googleapis.com/{_MANAGER}",
        "stat_prefix": "metrics",
        "route_config": {
            "name": "metrics",
            "virtual_hosts": [{"name": "metrics", "domains": ["*"], "routes": [route]}],
        },
        "http_filters": [router()],
    }
    name = "envoy.filters.network.http_connection_manager"
    return {
        "name": "metrics",
        "address": socket_address(address),
        "filter_chains": [{"filters": [{"name": name, "typed_config": manager}]}],
        # Measured also when everybody else is refused.
        "ignore_global_conn_limit": True,
    }


def admin_cluster(admin_address: str) -> dict[str, Any]:
    """Return the cluster that is Envoy's own admin page."""
    address = socket_address(admin_address)
    if "pipe" in address:
        address = {"pipe": {"path": address["pipe"]["path"]}}  # the admin page set the mode
    return {
        "name": _CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": _CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
