"""Renders the HTTP filters of both listeners, in the order in which a request meets them."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wayfare_envoy.policies import Method
from wayfare_envoy.routes import EDGE_HEALTH_PATH, TOKEN_OR_KEY, TOKEN_REQUIRED, WEB_PATH
from wayfare_envoy.topology import Topology

_PACKAGE = "type.googleapis.com/envoy.extensions.filters.http"
_PROVIDER = "wayfare"
ISSUER = "wayfare-identity"
AUDIENCE = "wayfare"
# Clocks of one deployment agree within this; Envoy's default would honour a token for a minute
# after its end.
_CLOCK_SKEW_SECONDS = 5


def edge_filters(topology: Topology, methods: Iterable[Method]) -> list[dict[str, Any]]:
    """Return the filters of the edge listener."""
    methods = list(methods)
    return [
        _health(sorted(topology.services)),
        *([_instance_choice()] if topology.allow_instance_choice else []),
        _own_headers_stripped(),
        _filter("cors", "cors.v3.Cors", {}),
        _filter("grpc_web", "grpc_web.v3.GrpcWeb", {}),
        _address_limit(topology),
        *([_web_files(topology.web_folder)] if topology.web_folder else []),
        # Answers pass from the last filter to the first: this one sees what the transcoder made.
        _filter("lua", "lua.v3.Lua", {}),
        # The transcoder comes before everything that decides by method: after it a JSON call is a
        # gRPC call.
        _transcoder(topology, methods),
        _tokens(topology),
        # Counts the bytes of a whole request before a service sees any; streams are exempt.
        _filter("buffer", "buffer.v3.Buffer", {"max_request_bytes": _request_bytes_max(topology)}),
        router(),
    ]


def mesh_filters(methods: Iterable[Method]) -> list[dict[str, Any]]:
    """Return the filters of the mesh listener."""
    return [_callers(methods), router()]


def router() -> dict[str, Any]:
    """Return the filter that forwards what the others let through."""
    return _filter("router", "router.v3.Router", {"suppress_envoy_headers": True})


def _filter(name: str, message: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": f"envoy.filters.http.{name}",
        "typed_config": {"@type": f"{_PACKAGE}.{message}", **config},
    }


def _health(services: list[str]) -> dict[str, Any]:
    # For load balancers: well while every service has at least one process that answers.
    config = {
        "pass_through_mode": False,
        "headers": [{"name": ":path", "string_match": {"exact": EDGE_HEALTH_PATH}}],
        "cluster_min_healthy_percentages": {name: {"value": 1} for name in services},
    }
    return _filter("health_check", "health_check.v3.HealthCheck", config)


def _instance_choice() -> dict[str, Any]:
    rule = {
        "header": "x-wayfare-instance",
        "on_header_present": {"metadata_namespace": "envoy.lb", "key": "instance"},
        "remove": True,
    }
    return _filter("header_to_metadata", "header_to_metadata.v3.Config", {"request_rules": [rule]})


def _own_headers_stripped() -> dict[str, Any]:
    # Headers by which parts of Wayfare speak to each other mean nothing from outside.
    mutation = {"remove_on_match": {"key_matcher": {"prefix": "x-wayfare-", "ignore_case": True}}}
    config = {"mutations": {"request_mutations": [mutation]}}
    return _filter("header_mutation", "header_mutation.v3.HeaderMutation", config)


def _address_limit(topology: Topology) -> dict[str, Any]:
    limits = topology.limits
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    every_call = {
        "max_tokens": 1_000_000,
        "tokens_per_fill": 1_000_000,
        "fill_interval": "1s",
    }
    per_address = {
        "max_tokens": limits.requests_per_address_burst,
        "tokens_per_fill": limits.requests_per_address_per_second,
        "fill_interval": "1s",
    }
    config = {
        "stat_prefix": "edge_address_limit",
        "token_bucket": every_call,
        "filter_enabled": always,
        "filter_enforced": always,
        "rate_limits": [{"actions": [{"remote_address": {}}]}],
        # An entry without a value stands for each address that comes.
        "descriptors": [{"entries": [{"key": "remote_address"}], "token_bucket": per_address}],
        "max_dynamic_descriptors": 20_000,
        "rate_limited_as_resource_exhausted": True,
    }
    return _filter("local_ratelimit", "local_ratelimit.v3.LocalRateLimit", config)


def _web_files(folder: Path) -> dict[str, Any]:
    mapping = {"request_path_prefix": WEB_PATH, "file_path_prefix": f"{folder}/"}
    config = {
        "manager_config": {"thread_pool": {"thread_count": 1}},
        "path_mappings": [mapping],
        "content_types": {
            "html": "text/html; charset=utf-8",
            "js": "text/javascript; charset=utf-8",
            "css": "text/css; charset=utf-8",
            "json": "application/json",
        },
        "default_content_type": "application/octet-stream",
        "directory_behaviors": [{"default_file": "index.html"}],
    }
    return _filter("file_server", "file_server.v3.FileServerConfig", config)


def _request_bytes_max(topology: Topology) -> int:
    # The service itself refuses a message over the limit, and says how much it was over. Envoy's
    # limit is a little higher, for the frame around the message.
    return topology.limits.message_bytes_max + 1024


def _transcoder(topology: Topology, methods: list[Method]) -> dict[str, Any]:
    config = {
        "proto_descriptor": str(topology.descriptor_set),
        "services": sorted({method.full_service for method in methods if method.has_json}),
        "convert_grpc_status": True,
        "case_insensitive_enum_parsing": True,
        "max_request_body_size": _request_bytes_max(topology),
        "max_response_body_size": topology.limits.answer_bytes_max,
        # A misspelt parameter is an error, not a filter that silently does nothing.
        "request_validation_options": {"reject_unknown_query_parameters": True},
        "print_options": {
            # A reader of JSON sees 0, false and [] instead of having to know what absence means.
            "always_print_primitive_fields": True,
            "stream_newline_delimited": True,
        },
    }
    name = "grpc_json_transcoder"
    return _filter(name, f"{name}.v3.GrpcJsonTranscoder", config)


def _tokens(topology: Topology) -> dict[str, Any]:
    provider = {
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        # Read once, at start: a new key is published here and Envoy restarted before it signs.
        "local_jwks": {"filename": str(topology.jwks_file)},
        # Services verify the token again and need it whole.
        "forward": True,
        # Named, because the default also takes tokens from the query, which ends up in logs.
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "require_expiration": True,
        "clock_skew_seconds": _CLOCK_SKEW_SECONDS,
    }
    required = {"provider_name": _PROVIDER}
    config = {
        "providers": {_PROVIDER: provider},
        "requirement_map": {
            TOKEN_REQUIRED: required,
            TOKEN_OR_KEY: {
                "requires_any": {"requirements": [required, {"allow_missing": {}}]},
            },
        },
        "bypass_cors_preflight": True,
    }
    return _filter("jwt_authn", "jwt_authn.v3.JwtAuthentication", config)


def _callers(methods: Iterable[Method]) -> dict[str, Any]:
    paths_by_callers: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for method in methods:
        if method.calling_services:
            paths_by_callers[tuple(sorted(method.calling_services))].append(method.path)
    policies = {
        f"callable by {', '.join(callers)}": {
            "permissions": [_path({"exact": path}) for path in paths],
            "principals": [_spiffe(service) for service in callers],
        }
        for callers, paths in sorted(paths_by_callers.items())
    }
    policies["health"] = {
        "permissions": [_path({"prefix": "/grpc.health.v1.Health/"})],
        "principals": [{"authenticated": {}}],
    }
    rules = {"action": "ALLOW", "policies": policies}
    return _filter("rbac", "rbac.v3.RBAC", {"rules": rules})


def _path(match: dict[str, str]) -> dict[str, Any]:
    return {"url_path": {"path": match}}


def _spiffe(service: str) -> dict[str, Any]:
    return {"authenticated": {"principal_name": {"exact": f"spiffe://wayfare/{service}"}}}
