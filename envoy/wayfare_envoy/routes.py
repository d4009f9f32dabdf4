"""Renders the routes of both listeners from the policies: one exact path per method."""

from collections.abc import Iterable
from typing import Any

from wayfare_envoy.policies import Method

_FILTER_TYPES = "type.googleapis.com/envoy.extensions.filters.http"
TOKEN_REQUIRED = "token_required"  # noqa: S105 - the name of a rule, not a secret
TOKEN_OR_KEY = "token_or_key"  # noqa: S105 - the name of a rule, not a secret

# Above the heartbeat of 15 seconds, so that only a stream that lost its other end is idle for as
# long.
STREAM_IDLE_TIMEOUT = "60s"
# The service ends the call at the policy's duration and says why; Envoy's own end is the net below
# it.
_SLACK_SECONDS = 1.0
# What a slow phone may take to send a whole unary request.
_UPLOAD_SECONDS = 30.0

# gRPC and gRPC-Web; JSON has become gRPC where it is routed.
_GRPC = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}

# Reflection and health have no policy: every service serves them, and one answers for all at the
# edge.
_OPEN_SERVICES = (
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.health.v1.Health",
)
_NOT_MODIFIED = """
function envoy_on_response(response)
  local headers = response:headers()
  local said = headers:get("x-wayfare-not-modified")
  headers:remove("x-wayfare-not-modified")
  local kind = headers:get("content-type") or ""
  if said and string.sub(kind, 1, 16) ~= "application/grpc" then
    headers:replace(":status", "304")
    headers:remove("content-type")
    headers:remove("content-length")
  end
end
"""
EDGE_HEALTH_PATH = "/healthz"
WEB_PATH = "/app/"


def edge_routes(
    methods: Iterable[Method], *, open_services_cluster: str, with_web: bool
) -> list[dict[str, Any]]:
    """Return the routes of the edge listener; the last one refuses what no other took."""
    routes = [_to_web(path) for path in ("/", WEB_PATH.rstrip("/")) if with_web]
    for method in methods:
        routes += _edge_routes_of(method)
    routes += _open_routes(open_services_cluster)
    routes.append(_unknown())
    return routes


def mesh_routes(methods: Iterable[Method], *, open_services_cluster: str) -> list[dict[str, Any]]:
    """Return the routes of the mesh listener: methods that some service may call, and health."""
    routes = [_proxy(method) for method in methods if method.calling_services]
    routes += _open_routes(open_services_cluster)
    routes.append(_unknown())
    return routes


def _edge_routes_of(method: Method) -> list[dict[str, Any]]:
    if not method.at_edge:
        return [_internal(method)]
    if method.public:
        return [_proxy(method)]
    routes = []
    if method.allow_api_key:
        with_key = _proxy(method)
        with_key["match"]["headers"].append({"name": "x-api-key", "present_match": True})
        routes.append(_with_token(with_key, TOKEN_OR_KEY))
    routes.append(_with_token(_proxy(method), TOKEN_REQUIRED))
    return routes


def _with_token(route: dict[str, Any], requirement: str) -> dict[str, Any]:
    config = {
        "@type": f"{_FILTER_TYPES}.jwt_authn.v3.PerRouteConfig",
        "requirement_name": requirement,
    }
    route["typed_per_filter_config"]["envoy.filters.http.jwt_authn"] = config
    return route


def _proxy(method: Method) -> dict[str, Any]:
    action: dict[str, Any] = {"cluster": method.service, "retry_policy": _retry_policy(method)}
    filters: dict[str, Any] = _not_modified() if method.document else {}
    if method.streaming or method.seconds_max is None:
        filters = _unbuffered()
        action["timeout"] = "0s"
        action["idle_timeout"] = STREAM_IDLE_TIMEOUT
        action["max_stream_duration"] = {"grpc_timeout_header_max": "0s"}
    else:
        seconds = method.seconds_max + _SLACK_SECONDS
        timeout = duration(seconds)
        action["timeout"] = timeout
        action["idle_timeout"] = timeout
        action["max_stream_duration"] = {
            # A caller's own deadline is honoured when it is shorter.
            "grpc_timeout_header_max": timeout,
            "max_stream_duration": duration(seconds + _UPLOAD_SECONDS),
        }
    return {
        "name": method.full_name,
        "match": {"path": method.path, "headers": [_GRPC]},
        "route": action,
        "typed_per_filter_config": filters,
    }


def _not_modified() -> dict[str, Any]:
    # gRPC has no status for it, so the service says it in a header.
    config = {
        "@type": f"{_FILTER_TYPES}.lua.v3.LuaPerRoute",
        "source_code": {"inline_string": _NOT_MODIFIED},
    }
    return {"envoy.filters.http.lua": config}


def _unbuffered() -> dict[str, Any]:
    # A stream's messages go on as they come, and the service bounds each of them. A refusal does
    # not wait for the rest of a request.
    config = {"@type": f"{_FILTER_TYPES}.buffer.v3.BufferPerRoute", "disabled": True}
    return {"envoy.filters.http.buffer": config}


def _retry_policy(method: Method) -> dict[str, Any]:
    # What never reached a process is repeated for every method; what a process refused, for reads
    # only.
    never_arrived = ["connect-failure", "refused-stream", "reset-before-request"]
    conditions = [*never_arrived, "unavailable"] if method.read else never_arrived
    return {
        "retry_on": ",".join(conditions),
        "num_retries": 2,
        "retry_back_off": {"base_interval": "0.02s", "max_interval": "0.2s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": "type.googleapis.com/"
                    "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": 3,
    }


def _to_web(path: str) -> dict[str, Any]:
    return {
        "name": "web",
        "match": {"path": path},
        "redirect": {"path_redirect": WEB_PATH, "response_code": "FOUND"},
        "typed_per_filter_config": _unbuffered(),
    }


def _open_routes(cluster: str) -> list[dict[str, Any]]:
    return [
        _open_route(service, {"prefix": f"/{service}/", "headers": [_GRPC]}, cluster)
        for service in _OPEN_SERVICES
    ]


def _open_route(name: str, match: dict[str, Any], cluster: str) -> dict[str, Any]:
    action = {"cluster": cluster, "timeout": "0s", "idle_timeout": STREAM_IDLE_TIMEOUT}
    return {
        "name": name,
        "match": match,
        "route": action,
        "typed_per_filter_config": _unbuffered(),
    }


def _internal(method: Method) -> dict[str, Any]:
    # The local replies turn it into PERMISSION_DENIED with its reason.
    return {
        "name": method.full_name,
        "match": {"path": method.path},
        "direct_response": {"status": 403},
        "typed_per_filter_config": _unbuffered(),
    }


def _unknown() -> dict[str, Any]:
    # A route to nowhere, because the CORS filter ignores direct responses: a browser's preflight,
    # and its JSON call before the transcoder has named the method, match this route.
    action = {"cluster": "none", "cluster_not_found_response_code": "NOT_FOUND"}
    return {
        "name": "unknown",
        "match": {"prefix": "/"},
        "route": action,
        "typed_per_filter_config": _unbuffered(),
    }


def duration(seconds: float) -> str:
    """Return seconds in the form of protobuf's JSON."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
