"""Renders the listeners: the edge for callers from outside, the mesh for calls between services."""

from collections.abc import Iterable, Sequence
from typing import Any

from wayfare_envoy.filters import edge_filters, mesh_filters
from wayfare_envoy.local_replies import local_reply_config
from wayfare_envoy.policies import Method
from wayfare_envoy.routes import edge_routes, mesh_routes
from wayfare_envoy.topology import Topology, socket_address

_TYPE = "type.googleapis.com"
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_TLS = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
_BUFFER_BYTES = 64 * 1024
# Answers reflection and health for all: its process knows the whole descriptor set.
_OPEN_SERVICES_CLUSTER = "identity"
_RESPONSE_HEADERS_FOR_BROWSERS = "grpc-status,grpc-message,grpc-status-details-bin,x-request-id"
_REQUEST_HEADERS_FROM_BROWSERS = (
    "authorization,content-type,grpc-timeout,x-api-key,x-grpc-web,x-user-agent"
)


def edge_listener(topology: Topology, methods: Sequence[Method]) -> dict[str, Any]:
    """Return the listener for gRPC, gRPC-Web and JSON from outside."""
    manager = {
        **_manager("edge", topology),
        # Who calls is who connected; what a caller says about earlier hops is kept, not believed.
        "use_remote_address": True,
        "forward_client_cert_details": "SANITIZE",
        "xff_num_trusted_hops": topology.trusted_proxies,
        "route_config": {
            "name": "edge",
            "virtual_hosts": [_edge_host(topology, methods)],
            "validate_clusters": False,
            # One address, the one that limits go by: Envoy itself would append its own for
            # 127.0.0.1.
            "request_headers_to_add": [_caller_address()],
        },
        "http_filters": edge_filters(topology, methods),
    }
    listener = _listener("edge", topology.edge_address, manager)
    if topology.edge_tls is not None:
        files = topology.edge_tls
        context = {
            "tls_certificates": [_certificate(str(files.certificate), str(files.key))],
            "alpn_protocols": ["h2", "http/1.1"],
        }
        listener["filter_chains"][0]["transport_socket"] = _tls({"common_tls_context": context})
    return listener


def mesh_listener(topology: Topology, methods: Sequence[Method]) -> dict[str, Any]:
    """Return the listener for calls between services, who show certificates of our authority."""
    manager = {
        **_manager("mesh", topology),
        "use_remote_address": True,
        # A call that another one causes keeps its id, so that logs of both are found together.
        "preserve_external_request_id": True,
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"uri": True},
        "route_config": {
            "name": "mesh",
            "validate_clusters": False,
            "virtual_hosts": [
                {
                    "name": "mesh",
                    "domains": ["*"],
                    "routes": mesh_routes(methods, open_services_cluster=_OPEN_SERVICES_CLUSTER),
                }
            ],
        },
        "http_filters": mesh_filters(methods),
    }
    listener = _listener("mesh", topology.mesh_address, manager)
    folder = topology.certificate_dir
    context = {
        "tls_certificates": [_certificate(str(folder / "envoy.pem"), str(folder / "envoy.key"))],
        "validation_context": {
            "trusted_ca": {"filename": str(folder / "ca.pem")},
            "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"prefix": "spiffe://wayfare/"}}
            ],
        },
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
    }
    tls = {"require_client_certificate": True, "common_tls_context": context}
    listener["filter_chains"][0]["transport_socket"] = _tls(tls)
    return listener


def _listener(name: str, address: str, manager: dict[str, Any]) -> dict[str, Any]:
    network_filter = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {"@type": f"{_TYPE}/{_MANAGER}", **manager},
    }
    return {
        "name": name,
        "address": socket_address(address),
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "filter_chains": [{"filters": [network_filter]}],
        # A storm of reconnecting phones waits here instead of being reset by the kernel.
        "tcp_backlog_size": 4096,
    }


def _manager(name: str, topology: Topology) -> dict[str, Any]:
    limits = topology.limits
    return {
        "stat_prefix": name,
        "codec_type": "AUTO",
        "server_name": "wayfare",
        "generate_request_id": True,
        "always_set_request_id_in_response": True,
        "request_id_extension": {"typed_config": _request_ids()},
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "max_request_headers_kb": limits.header_kilobytes_max,
        "request_headers_timeout": "10s",
        "stream_idle_timeout": "60s",
        "delayed_close_timeout": "1s",
        "common_http_protocol_options": {
            "idle_timeout": "600s",
            "max_headers_count": 64,
            "headers_with_underscores_action": "DROP_HEADER",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": limits.streams_per_connection_max,
            "initial_stream_window_size": _BUFFER_BYTES,
            "initial_connection_window_size": 16 * 1024 * 1024,
            # A phone that left without a word is noticed within 40 seconds.
            "connection_keepalive": {"interval": "30s", "timeout": "10s"},
        },
        "local_reply_config": local_reply_config(),
        "access_log": [_access_log(name, topology)],
    }


def _request_ids() -> dict[str, Any]:
    # By default Envoy writes whether it traces a request into the request's id, and changes it.
    config = "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"
    return {"@type": f"{_TYPE}/{config}", "pack_trace_reason": False}


def _edge_host(topology: Topology, methods: Iterable[Method]) -> dict[str, Any]:
    host: dict[str, Any] = {
        "name": "edge",
        "domains": ["*"],
        "routes": edge_routes(
            methods,
            open_services_cluster=_OPEN_SERVICES_CLUSTER,
            with_web=topology.web_folder is not None,
        ),
    }
    if topology.cors_origins:
        host["typed_per_filter_config"] = {"envoy.filters.http.cors": _cors(topology.cors_origins)}
    return host


def _caller_address() -> dict[str, Any]:
    header = {"key": "x-forwarded-for", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}
    return {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _cors(origins: Sequence[str]) -> dict[str, Any]:
    any_origin = {"safe_regex": {"regex": ".*"}}
    return {
        "@type": f"{_TYPE}/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [
            any_origin if origin == "*" else {"exact": origin} for origin in origins
        ],
        "allow_methods": "GET,POST,PATCH,PUT,DELETE,OPTIONS",
        "allow_headers": _REQUEST_HEADERS_FROM_BROWSERS,
        "expose_headers": _RESPONSE_HEADERS_FOR_BROWSERS,
        "max_age": "86400",
        # Tokens travel in a header, never in a cookie.
        "allow_credentials": False,
        "forward_not_matching_preflights": False,
    }


def _access_log(listener: str, topology: Topology) -> dict[str, Any]:
    # Neither path nor query: a JSON call's may hold a position, a phone number or a secret. The
    # route names the method, and the request id finds the service's own line.
    fields = {
        "time": "%START_TIME%",
        "listener": listener,
        "method": "%ROUTE_NAME%",
        "verb": "%REQ(:METHOD)%",
        "protocol": "%PROTOCOL%",
        "status": "%RESPONSE_CODE%",
        "grpc_status": "%GRPC_STATUS%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "milliseconds": "%DURATION%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "address": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "caller": "%DOWNSTREAM_PEER_URI_SAN%",
        "service": "%UPSTREAM_CLUSTER%",
        "process": "%UPSTREAM_HOST%",
        "user_agent": "%REQ(USER-AGENT):120%",
    }
    log_format = {"log_format": {"json_format": fields}}
    package = f"{_TYPE}/envoy.extensions.access_loggers"
    if topology.access_log is None:
        config = {"@type": f"{package}.stream.v3.StdoutAccessLog", **log_format}
        return {"name": "envoy.access_loggers.stdout", "typed_config": config}
    config = {
        "@type": f"{package}.file.v3.FileAccessLog",
        "path": str(topology.access_log),
        **log_format,
    }
    return {"name": "envoy.access_loggers.file", "typed_config": config}


def _certificate(chain: str, key: str) -> dict[str, Any]:
    return {"certificate_chain": {"filename": chain}, "private_key": {"filename": key}}


def _tls(context: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": f"{_TYPE}/{_TLS}", **context},
    }
