"""Everybody else: JSON over HTTP, with curl as the client."""

import json
import uuid
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from google.transit import gtfs_realtime_pb2

from services.stack.environments import DEMO_TENANT_ID
from tests.support.e2e_edge import Edge, now, reasons_of
from tests.support.e2e_people import own_address, register
from tests.support.e2e_programs import headers_of, run_program, running_program
from tests.support.e2e_streams import bare_driver, hello_for, position_message, status_message
from wayfare.location.v1 import trip_pb2

pytestmark = pytest.mark.e2e

WEB_APP = "http://localhost:5173"
JSON = ("-H", "content-type: application/json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What curl got."""

    status: int
    headers: dict[str, str]
    body: Any


async def curl(edge: Edge, path: str, *words: str) -> Answer:
    """Ask the edge with curl, from an address of its own."""
    result = await run_program(
        *("curl", "--silent", "--show-error", "--include", "--max-time", "20"),
        *("--noproxy", "*", "--interface", own_address(), *words, edge.url + path),
    )
    assert result.exit_code == 0, result.errors
    output = result.output
    if "--output" in words:
        # Bytes that are no text went there, with the headers before them.
        raw = Path(words[words.index("--output") + 1]).read_bytes()
        output = raw.partition(b"\r\n\r\n")[0].decode()
    head, _, body = output.replace("\r\n", "\n").partition("\n\n")
    first, *rest = head.splitlines()
    pairs = (line.partition(":") for line in rest)
    return Answer(
        status=int(first.split()[1]),
        headers={name.lower(): value.strip() for name, _, value in pairs},
        body=json.loads(body) if body.strip() else None,
    )


async def test_it_logs_in_and_asks_who_it_is(edge: Edge) -> None:
    account = await register(edge, "PASSENGER")
    body = {
        "tenantId": DEMO_TENANT_ID,
        "phone": account.person.phone,
        "password": account.person.password,
    }
    logged_in = await curl(edge, "/v1/sessions:logIn", *JSON, "--data", json.dumps(body))
    me = await curl(edge, "/v1/me", *headers_of(logged_in.body["accessToken"]))

    assert (logged_in.status, me.status) == (200, 200)
    assert me.body["userId"] == account.user_id
    assert me.body["role"] == "ROLE_PASSENGER"


async def test_a_followed_trip_comes_as_a_line_of_json_per_update(edge: Edge) -> None:
    trip = await edge.track()
    async with (
        running_program(
            *("curl", "--silent", "--no-buffer", "--noproxy", "*"),
            *headers_of(trip.passenger_token),
            f"{edge.url}/v1/trips/{trip.trip_id}:follow",
        ) as follower,
        bare_driver(edge, trip.driver_token) as driver,
    ):
        # The snapshot comes at once, not with the end of the stream.
        await follower.until_printed("\n")
        await driver.write(hello_for(trip))
        await driver.write(position_message(1, step=3))
        await follower.until_printed("\n", count=2)
        await driver.write(status_message(2, trip_pb2.TRIP_STATUS_ENDED))
        assert (await follower.end()).exit_code == 0

    updates = [json.loads(line) for line in follower.output.splitlines()]
    assert [next(name for name in update if name != "resumeToken") for update in updates] == [
        "snapshot",
        "position",
        "status",
    ]
    assert updates[0]["snapshot"]["tripId"] == trip.trip_id
    assert all(update["resumeToken"] for update in updates)


async def test_it_reports_positions_and_asks_where_the_vehicle_is(edge: Edge) -> None:
    trip = await edge.track()
    location = {"latitude": 53.4, "longitude": -2.9}
    body = {
        "vehicleId": trip.vehicle_id,
        "tripId": trip.trip_id,
        "requestId": str(uuid.uuid4()),
        "positions": [{"location": location, "captureTime": now().isoformat()}],
    }
    data = ("--data", json.dumps(body))
    first = await curl(edge, "/v1/positions:report", *headers_of(trip.driver_token), *JSON, *data)
    again = await curl(edge, "/v1/positions:report", *headers_of(trip.driver_token), *JSON, *data)
    where = await curl(
        edge, f"/v1/vehicles/{trip.vehicle_id}/position", *headers_of(trip.driver_token)
    )

    assert (first.status, first.body["acceptedCount"]) == (200, 1)
    assert again.body == first.body
    assert where.body["position"]["location"] == location


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/v1/me", 401, ("CREDENTIALS_MISSING", "edge.wayfare")),
        ("/v1/nothing", 404, ("METHOD_UNKNOWN", "edge.wayfare")),
        ("/v1/me?pageSise=3", 400, ("MESSAGE_MALFORMED", "edge.wayfare")),
    ],
)
async def test_what_the_edge_refuses_has_one_error_info(
    edge: Edge, path: str, status: int, reason: tuple[str, str]
) -> None:
    token = edge.mint.token("PASSENGER")
    words = headers_of(token) if "?" in path else ()
    refused = await curl(edge, path, *words)

    assert refused.status == status
    assert reasons_of(refused.body["details"]) == [reason]


async def test_what_a_service_refuses_has_reason_metadata_and_fields(edge: Edge) -> None:
    token = edge.mint.token("PASSENGER")
    trip_id = str(uuid.uuid4())
    unknown = await curl(edge, f"/v1/trips/{trip_id}:follow", *headers_of(token))
    invalid = await curl(edge, "/v1/trips/not-a-uuid:follow", *headers_of(token))
    staff_only = await curl(edge, "/v1/users", *headers_of(token))

    assert (unknown.status, unknown.body["code"]) == (403, 7)
    assert reasons_of(unknown.body["details"]) == [("NOT_A_FOLLOWER", "location.wayfare")]
    assert unknown.body["details"][0]["metadata"] == {"trip_id": trip_id}
    assert (invalid.status, invalid.body["code"]) == (400, 3)
    assert reasons_of(invalid.body["details"]) == [("REQUEST_INVALID", "location.wayfare")]
    fields = [d["fieldViolations"] for d in invalid.body["details"] if "fieldViolations" in d]
    assert [violation["field"] for violation in fields[0]] == ["trip_id"]
    assert reasons_of(staff_only.body["details"]) == [("ROLE_NOT_ALLOWED", "identity.wayfare")]


@pytest.mark.parametrize("latitude", [91, '"NaN"', '"Infinity"'])
async def test_a_place_that_is_nowhere_on_earth_is_refused(edge: Edge, latitude: object) -> None:
    body = (
        '{"vehicleId": "bus", "positions": [{"captureTime": "2026-01-01T00:00:00Z",'
        f' "location": {{"latitude": {latitude}, "longitude": 0}}}}]}}'
    )
    refused = await curl(
        edge,
        "/v1/positions:report",
        *(*headers_of(edge.mint.token("DRIVER")), *JSON, "--data", body),
    )

    assert refused.status == 400
    assert reasons_of(refused.body["details"]) == [("REQUEST_INVALID", "location.wayfare")]
    fields = [d["fieldViolations"] for d in refused.body["details"] if "fieldViolations" in d]
    assert [violation["field"] for violation in fields[0]] == ["positions[0].location"]


async def test_every_answer_names_its_request_and_only_the_edge_chooses_the_name(
    edge: Edge,
) -> None:
    token = edge.mint.token("PASSENGER")
    chosen = ("-H", "x-request-id: mine")
    answers = [
        await curl(edge, "/v1/me", *chosen),
        await curl(edge, "/v1/nothing", *chosen),
        await curl(edge, "/v1/users", *headers_of(token), *chosen),
        await curl(edge, "/.well-known/jwks.json", *chosen),
    ]
    names = [answer.headers["x-request-id"] for answer in answers]

    assert len({str(uuid.UUID(name)) for name in names}) == 4


async def test_the_public_keys_verify_the_tokens(edge: Edge) -> None:
    account = await register(edge, "PASSENGER")
    answer = await curl(edge, "/.well-known/jwks.json")
    keys = {key["kid"]: jwt.PyJWK(key) for key in answer.body["keys"]}
    token = account.session.access_token
    claims = jwt.decode(
        token,
        keys[jwt.get_unverified_header(token)["kid"]].key,
        algorithms=["EdDSA"],
        audience="wayfare",
        issuer="wayfare-identity",
    )

    assert answer.headers["content-type"].startswith("application/json")
    assert claims["sub"] == account.user_id
    assert not any("d" in key for key in answer.body["keys"])
    assert claims["exp"] - claims["iat"] == 900


@pytest.mark.parametrize(
    ("path", "verb"),
    [("/v1/me", "GET"), ("/wayfare.location.v1.LocationService/FollowTrip", "POST")],
)
async def test_browsers_may_ask_from_the_web_app_and_from_nowhere_else(
    edge: Edge, path: str, verb: str
) -> None:
    ours, theirs = [
        await curl(
            edge,
            path,
            *("--request", "OPTIONS", "-H", f"origin: {origin}"),
            *("-H", f"access-control-request-method: {verb}"),
            *("-H", "access-control-request-headers: authorization,x-grpc-web"),
        )
        for origin in (WEB_APP, "https://evil.example")
    ]

    assert ours.status == 200
    assert ours.headers["access-control-allow-origin"] == WEB_APP
    assert verb in ours.headers["access-control-allow-methods"]
    allowed = ours.headers["access-control-allow-headers"]
    assert {"authorization", "x-grpc-web"} <= {name.strip() for name in allowed.split(",")}
    assert "access-control-allow-origin" not in theirs.headers


async def test_a_web_app_may_read_why_it_was_refused(edge: Edge) -> None:
    refused = await curl(edge, "/v1/me", "-H", f"origin: {WEB_APP}")

    assert refused.status == 401
    assert refused.headers["access-control-allow-origin"] == WEB_APP
    assert "grpc-status-details-bin" in refused.headers["access-control-expose-headers"]


async def test_a_feed_comes_as_protobuf_and_not_again_before_it_changes(
    edge: Edge, tmp_path: Path
) -> None:
    token = edge.mint.token("ADMIN")
    path = f"/v1/feeds/{DEMO_TENANT_ID}/alerts"
    body = tmp_path / "feed"
    first = await curl(edge, path, *headers_of(token), "--output", str(body))

    assert first.status == 200
    assert first.headers["content-type"] == "application/x-protobuf"
    raw = body.read_bytes().partition(b"\r\n\r\n")[2]
    feed = gtfs_realtime_pb2.FeedMessage.FromString(raw)
    modified = first.headers["last-modified"]
    assert int(parsedate_to_datetime(modified).timestamp()) == feed.header.timestamp

    condition = ("-H", f"if-modified-since: {modified}")
    second = await curl(edge, path, *headers_of(token), *condition)
    assert (second.status, second.body) == (304, None)
    assert second.headers["last-modified"] == modified
    assert not {"x-wayfare-not-modified", "content-type"} & second.headers.keys()

    older = ("-H", "if-modified-since: Thu, 01 Jan 2026 00:00:00 GMT")
    third = await curl(edge, path, *headers_of(token), *older, "--output", str(body))
    assert third.status == 200
