"""Partners: an API key made at the edge opens what the contract opens to keys, and no more."""

import uuid

import grpc.aio
import pytest

from services.stack.environments import DEMO_TENANT_ID
from tests.support.e2e_edge import Edge, refusal_of
from tests.support.e2e_people import log_in_administrator
from wayfare.identity.v1 import identity_service_pb2
from wayfare.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from wayfare.location.v1 import location_service_pb2
from wayfare.location.v1.location_service_pb2_grpc import LocationServiceStub
from wayfare_client import WayfareClient

pytestmark = pytest.mark.e2e


async def test_a_key_follows_its_tenants_trips_and_cannot_act_as_a_person(edge: Edge) -> None:
    trip = await edge.track()
    key = await _make_key(edge)
    async with (
        WayfareClient(edge.stack.edge_address, tenant_id=DEMO_TENANT_ID, api_key=key) as partner,
        partner.follow_trip(trip.trip_id) as updates,
    ):
        assert (await anext(updates)).snapshot.trip_id == trip.trip_id

    async with edge.channel() as channel:
        as_person = IdentityServiceStub(channel).GetMe(
            identity_service_pb2.GetMeRequest(), metadata=(("x-api-key", key),)
        )
        assert (await refusal_of(as_person)).reason == "CREDENTIALS_MISSING"


async def test_a_key_has_a_limit_of_its_own(edge: Edge) -> None:
    key = await _make_key(edge, requests_per_minute=3)
    async with edge.channel() as channel:
        reasons = [await _ask(channel, key) for _ in range(4)]

    assert reasons == ["VEHICLE_NOT_LIVE"] * 3 + ["RATE_LIMITED"]


async def _ask(channel: grpc.aio.Channel, key: str) -> str:
    request = location_service_pb2.GetVehiclePositionRequest(vehicle_id="none")
    call = LocationServiceStub(channel).GetVehiclePosition(request, metadata=(("x-api-key", key),))
    return (await refusal_of(call)).reason


async def _make_key(edge: Edge, *, requests_per_minute: int = 0) -> str:
    session = await log_in_administrator(edge)
    async with edge.client(session.access_token) as staff:
        made = await staff.identity.CreateApiKey(
            identity_service_pb2.CreateApiKeyRequest(
                display_name="A partner",
                requests_per_minute=requests_per_minute,
                request_id=str(uuid.uuid4()),
            )
        )
    return made.key
