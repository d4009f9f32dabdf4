"""Holds every proto of Wayfare to the rules that buf's linter does not know."""

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from tests.style.contract import Method, elements, fields, messages, methods
from wayfare.policy.v1 import policy_pb2

SERVICES = {"booking", "identity", "ledger", "location", "matching", "pricing"}

UNITS = {
    "basis_points",
    "bytes",
    "degrees",
    "kilometers",
    "meters",
    "meters_per_second",
    "milliseconds",
    "minor",
    "minutes",
    "per_minute",
    "seconds",
}
# Numbers without a unit say what they count, or are one of these words.
COUNTS = {"count", "index", "number", "requests", "results", "seq", "size", "version"}
PURE_NUMBERS = {"ratio", "multiplier", "confidence", "percent"}

WHOLE_NUMBERS = {
    FieldDescriptorProto.TYPE_INT32,
    FieldDescriptorProto.TYPE_INT64,
    FieldDescriptorProto.TYPE_SINT32,
    FieldDescriptorProto.TYPE_SINT64,
    FieldDescriptorProto.TYPE_SFIXED32,
    FieldDescriptorProto.TYPE_SFIXED64,
}
BROKEN_NUMBERS = {FieldDescriptorProto.TYPE_DOUBLE, FieldDescriptorProto.TYPE_FLOAT}
UNSIGNED_NUMBERS = {
    FieldDescriptorProto.TYPE_UINT32,
    FieldDescriptorProto.TYPE_UINT64,
    FieldDescriptorProto.TYPE_FIXED32,
    FieldDescriptorProto.TYPE_FIXED64,
}

every_method = pytest.mark.parametrize("method", methods(), ids=lambda method: method.name)


def test_everything_has_a_comment_that_is_a_sentence() -> None:
    bare = [element.name for element in elements() if not _is_sentence(element.comment)]

    assert not bare


@every_method
def test_a_method_states_who_may_call_it(method: Method) -> None:
    access = method.policy.access

    assert method.has_policy, "no wayfare.policy.v1.method option"
    assert access.public or access.HasField("user") or access.HasField("internal")
    if access.HasField("user"):
        assert access.user.roles, "user access without roles"
        assert policy_pb2.ROLE_UNSPECIFIED not in access.user.roles
        assert len(set(access.user.roles)) == len(access.user.roles), "a role is named twice"
    if access.user.allow_api_key:
        assert policy_pb2.ROLE_BUSINESS in access.user.roles, "an API key acts as BUSINESS"
    if access.HasField("internal"):
        assert access.internal.services, "internal access without services"
        assert set(access.internal.services) <= SERVICES


@every_method
def test_a_method_states_what_repeating_it_does(method: Method) -> None:
    assert method.policy.idempotency != policy_pb2.IDEMPOTENCY_UNSPECIFIED


@every_method
def test_a_unary_method_has_a_longest_duration_and_a_stream_has_none(method: Method) -> None:
    assert method.policy.HasField("max_duration") != method.streaming
    if not method.streaming:
        assert 0 < method.policy.max_duration.ToTimedelta().total_seconds() <= 60


@every_method
def test_a_rate_limit_is_complete(method: Method) -> None:
    for limit in method.policy.rate_limits:
        assert limit.max_requests >= 1
        assert limit.window.ToTimedelta().total_seconds() >= 1
        assert limit.subject != policy_pb2.RATE_LIMIT_SUBJECT_UNSPECIFIED


@every_method
def test_a_method_that_costs_work_without_a_person_behind_it_is_limited(method: Method) -> None:
    if method.policy.access.public and not method.has_http:
        pytest.fail("a public method needs a JSON binding")
    if method.policy.access.public and method.policy.idempotency != policy_pb2.IDEMPOTENCY_READ:
        assert method.policy.rate_limits, "a public write needs a rate limit"


@every_method
def test_a_method_has_a_json_binding_unless_its_client_streams(method: Method) -> None:
    assert method.has_http != method.descriptor.client_streaming


@every_method
def test_a_list_is_paged(method: Method) -> None:
    if not method.descriptor.name.startswith("List"):
        return
    request = {field.name for field in messages()[method.descriptor.input_type[1:]].field}
    response = {field.name for field in messages()[method.descriptor.output_type[1:]].field}

    assert {"page_size", "page_token"} <= request
    assert "next_page_token" in response


@every_method
def test_a_method_that_creates_takes_a_request_id(method: Method) -> None:
    if not method.descriptor.name.startswith("Create"):
        return
    request = {field.name for field in messages()[method.descriptor.input_type[1:]].field}

    assert method.policy.idempotency == policy_pb2.IDEMPOTENCY_IDEMPOTENT
    assert "request_id" in request


def test_a_number_names_its_unit_last() -> None:
    broken = [field.name for field in fields() if field.descriptor.type in BROKEN_NUMBERS]
    whole = [field.name for field in fields() if field.descriptor.type in WHOLE_NUMBERS]

    assert not [name for name in broken if not _ends_with(name, UNITS | PURE_NUMBERS)]
    assert not [name for name in whole if not _ends_with(name, UNITS | PURE_NUMBERS | COUNTS)]


def test_a_number_is_signed() -> None:
    assert not [field.name for field in fields() if field.descriptor.type in UNSIGNED_NUMBERS]


def test_a_moment_ends_with_time() -> None:
    moments = _fields_of_type("google.protobuf.Timestamp")

    assert not [name for name in moments if not name.endswith("_time")]


def test_a_span_needs_no_unit() -> None:
    spans = _fields_of_type("google.protobuf.Duration")

    assert not [name for name in spans if _ends_with(name, UNITS | {"time"})]


def test_a_place_is_a_lat_lng() -> None:
    parts = {"lat", "lng", "lon", "latitude", "longitude"}

    assert not [field.name for field in fields() if field.descriptor.name in parts]


def _is_sentence(comment: str) -> bool:
    return comment[:1].isupper() and comment.endswith((".", ":", ")", "`"))


def _ends_with(name: str, words: set[str]) -> bool:
    last = name.rpartition(".")[2]
    return any(last == word or last.endswith(f"_{word}") for word in words)


def _fields_of_type(type_name: str) -> list[str]:
    return [field.name for field in fields() if field.descriptor.type_name == f".{type_name}"]
