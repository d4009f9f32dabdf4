"""Gives Envoy's own refusals the form of every Wayfare error: a canonical code and one ErrorInfo.

Envoy answers by itself when a token is bad, a path unknown, a caller too fast or a service away.
Each such answer is recognised by its `response.code_details` and rewritten: for gRPC (and gRPC-Web)
by the headers
`grpc-status` and `grpc-status-details-bin`, for JSON by a body in the form of google.rpc.Status.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any

from google.protobuf import any_pb2, duration_pb2, json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2

from wayfare.policy.v1 import error_reason_pb2

DOMAIN = "edge.wayfare"
_CEL_FILTER = "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """State one refusal: when it applies (CEL on Envoy's attributes) and what the caller reads."""

    when: str
    http_status: int
    code: int
    reason: str
    message: str
    retry_seconds: int | None = None


def _details(*fragments: str) -> str:
    return " || ".join(f"response.code_details.contains('{fragment}')" for fragment in fragments)


# The first that applies is taken; the last takes what is left.
REFUSALS = (
    Refusal(
        when=_details("jwt_authn_access_denied{Jwt_is_missing}"),
        http_status=401,
        code=code_pb2.UNAUTHENTICATED,
        reason="CREDENTIALS_MISSING",
        message="Send an access token as `authorization: Bearer <token>`.",
    ),
    Refusal(
        when=_details("jwt_authn_access_denied{Jwt_is_expired}"),
        http_status=401,
        code=code_pb2.UNAUTHENTICATED,
        reason="TOKEN_EXPIRED",
        message="The access token has expired. Refresh the session and call again.",
    ),
    Refusal(
        when=_details("jwt_authn_access_denied"),
        http_status=401,
        code=code_pb2.UNAUTHENTICATED,
        reason="TOKEN_INVALID",
        message="The access token is not one of ours. Log in again.",
    ),
    Refusal(
        when=_details("rbac_access_denied"),
        http_status=403,
        code=code_pb2.PERMISSION_DENIED,
        reason="SERVICE_NOT_ALLOWED",
        message="The calling service is not on the method's list.",
    ),
    Refusal(
        when="response.code_details == 'direct_response' && response.code == 403",
        http_status=403,
        code=code_pb2.PERMISSION_DENIED,
        reason="SERVICE_NOT_ALLOWED",
        message="The method is for other services and has no route at the edge.",
    ),
    Refusal(
        when=_details("cluster_not_found", "route_not_found"),
        http_status=404,
        code=code_pb2.UNIMPLEMENTED,
        reason="METHOD_UNKNOWN",
        message="No method has this name, or this HTTP verb and path.",
    ),
    Refusal(
        when="response.code == 429 || " + _details("rate_limited"),
        http_status=429,
        code=code_pb2.RESOURCE_EXHAUSTED,
        reason="RATE_LIMITED",
        message="Too many calls from this address. Wait and call again.",
        retry_seconds=1,
    ),
    Refusal(
        when="response.code == 413 || response.code == 431 || "
        + _details("request_payload_too_large", "request_headers_too_large"),
        http_status=413,
        code=code_pb2.RESOURCE_EXHAUSTED,
        reason="MESSAGE_TOO_LARGE",
        message="The request is larger than the edge reads.",
    ),
    Refusal(
        when=_details("overload"),
        http_status=503,
        code=code_pb2.RESOURCE_EXHAUSTED,
        reason="OVERLOADED",
        message="The edge has as much work as it can do. Wait and call again.",
        retry_seconds=2,
    ),
    Refusal(
        when=_details("response_timeout", "max_duration_timeout", "per_try_timeout")
        + " || response.code == 504 || response.code == 408",
        http_status=504,
        code=code_pb2.DEADLINE_EXCEEDED,
        reason="DEADLINE_PASSED",
        message="The call took longer than the method, or its caller, allows.",
    ),
    Refusal(
        when="response.code >= 500",
        http_status=503,
        code=code_pb2.UNAVAILABLE,
        reason="DEPENDENCY_UNAVAILABLE",
        message="The service cannot be reached for now. Wait and call again.",
        retry_seconds=1,
    ),
    Refusal(
        when="response.code >= 400",
        http_status=400,
        code=code_pb2.INVALID_ARGUMENT,
        reason="MESSAGE_MALFORMED",
        message="The request does not fit the method's request message.",
    ),
)


def local_reply_config() -> dict[str, Any]:
    """Return the `local_reply_config` of a connection manager."""
    return {"mappers": [mapper for refusal in REFUSALS for mapper in _mappers(refusal)]}


def status_of(refusal: Refusal) -> status_pb2.Status:
    """Return the refusal as google.rpc.Status: ErrorInfo and, where waiting helps, RetryInfo."""
    # A reason that the contract does not know must not leave the house.
    error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{refusal.reason}")
    status = status_pb2.Status(code=refusal.code, message=refusal.message)
    status.details.append(
        _packed(error_details_pb2.ErrorInfo(reason=refusal.reason, domain=DOMAIN))
    )
    if refusal.retry_seconds is not None:
        delay = duration_pb2.Duration(seconds=refusal.retry_seconds)
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _mappers(refusal: Refusal) -> list[dict[str, Any]]:
    status = status_of(refusal)
    details = base64.b64encode(status.SerializeToString()).rstrip(b"=").decode()
    grpc_call = "request.headers['content-type'].startsWith('application/grpc')"
    for_grpc = {
        "filter": _cel(
            f"({refusal.when}) && {grpc_call} && !('x-envoy-original-path' in request.headers)"
        ),
        # A gRPC answer is a good HTTP answer; clients of gRPC-Web look at the status first.
        "status_code": 200,
        # Without a body it is an answer of trailers only; with one, gRPC-Web would get its code
        # from the HTTP status.
        "body": {"inline_string": ""},
        "headers_to_add": [
            _header("grpc-status", str(refusal.code)),
            _header("grpc-message", refusal.message),
            _header("grpc-status-details-bin", details),
        ],
    }
    for_json = {
        "filter": _cel(refusal.when),
        "status_code": refusal.http_status,
        "body": {"inline_string": json.dumps(json_format.MessageToDict(status))},
        "body_format_override": {
            "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
            "content_type": "application/json",
        },
    }
    return [for_grpc, for_json]


def _cel(expression: str) -> dict[str, Any]:
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {
                "@type": f"type.googleapis.com/{_CEL_FILTER}",
                "expression": expression,
            },
        }
    }


def _header(key: str, value: str) -> dict[str, Any]:
    return {
        "header": {"key": key, "value": value},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
