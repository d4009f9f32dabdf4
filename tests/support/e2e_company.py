"""An operator as the story of a journey needs one: trips, a crew with accounts, a bus, the books.

Used by tests/e2e/test_booking_story.py.
"""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from google.protobuf.field_mask_pb2 import FieldMask

from services.stack.environments import DEMO_TENANT_ID
from services.stack.migrations import role_of
from services.stack.replay.accounts import AccountsAtEdge
from tests.support.booking_process import STOPS, layout, stop, trip
from tests.support.e2e_edge import Edge
from tests.support.e2e_people import Account, log_in_administrator, register
from tests.support.e2e_speakers import Caller, Speaker
from wayfare.booking.v1 import trip_pb2
from wayfare.identity.v1 import user_pb2
from wayfare.location.v1 import trip_pb2 as tracked_pb2
from wayfare.policy.v1 import policy_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Who works on a trip."""

    driver: Caller
    conductor: Caller


class Company:
    """Calls with the story's kind of client as the operator's administrator."""

    def __init__(self, edge: Edge, speaker: Speaker, admin: Caller) -> None:
        self.edge = edge
        self.admin = admin
        self._speaker = speaker
        self.mark = uuid.uuid4().hex[:8]

    @classmethod
    async def open(cls, edge: Edge, speaker: Speaker) -> "Company":
        """Log the administrator in."""
        session = await log_in_administrator(edge)
        admin = Caller(speaker=speaker, token=session.access_token, user_id=session.user.user_id)
        return cls(edge, speaker, admin)

    def stop_id(self, letter: str) -> str:
        """Return the id of a stop, which nobody else's trips have."""
        return f"{letter}-{self.mark}"

    async def hire(self) -> Crew:
        """Let a driver and a conductor sign up, approve the one, and appoint the other."""
        driver = await register(self.edge, "DRIVER", approved=False)
        await self.admin.ask("identity", "ApproveDriver", user_id=driver.user_id)
        conductor = await register(self.edge, "PASSENGER")
        appointed = user_pb2.User(user_id=conductor.user_id, role=policy_pb2.ROLE_CONDUCTOR)
        await self.admin.ask(
            "identity", "UpdateUser", user=appointed, update_mask=FieldMask(paths=["role"])
        )
        return Crew(driver=await self._back(driver), conductor=await self._back(conductor))

    async def _back(self, account: Account) -> Caller:
        """Log in again: the new tokens know of the new role."""
        accounts = AccountsAtEdge(self.edge.stack.edge_address, tenant_id=DEMO_TENANT_ID)
        person = account.person
        session = await accounts.log_in(person.phone, person.password, ip_address=person.ip_address)
        return Caller(speaker=self._speaker, token=session.access_token, user_id=account.user_id)

    async def sell(self, crew: Crew | None = None, **values: Any) -> trip_pb2.Trip:
        """Make a layout, and a trip with it."""
        made = await self.admin.ask("booking", "CreateSeatLayout", seat_layout=layout())
        if crew is not None:
            values |= {
                "driver_id": crew.driver.user_id,
                "conductor_ids": [crew.conductor.user_id],
                "vehicle_id": f"bus-{self.mark}",
            }
        wanted = trip(
            made.seat_layout_id, stop_ids=[self.stop_id(letter) for letter in STOPS], **values
        )
        created: trip_pb2.Trip = await self.admin.ask("booking", "CreateTrip", trip=wanted)
        return created

    async def times_pass(self, made: trip_pb2.Trip, *, departed: timedelta) -> None:
        """Move the trip's times, so that it left so long ago; each leg takes half an hour."""
        departs = datetime.now(UTC) - departed
        stops = [
            stop(index, one.stop_id, departs + index * timedelta(minutes=30))
            for index, one in enumerate(made.stops)
        ]
        await self.admin.ask(
            "booking",
            "UpdateTrip",
            trip=trip_pb2.Trip(trip_id=made.trip_id, stops=stops),
            update_mask=FieldMask(paths=["stops"]),
        )

    async def expected_of(self, trip_id: str) -> list[tuple[str, str, int]]:
        """Wait until the ledger heard that the trip ended; return who is to have paid what for it.

        Passenger, reference, amount in minor units.
        """
        connection = await asyncpg.connect(self.edge.stack.postgres.dsn_for(role_of("ledger")))
        try:
            settings = {"tenant_id": DEMO_TENANT_ID, "role": "SERVICE", "user_id": ""}
            for name, value in settings.items():
                await connection.execute("SELECT set_config($1, $2, false)", f"app.{name}", value)
            async with asyncio.timeout(20):
                while True:
                    rows: Sequence[Any] = await connection.fetch(
                        "SELECT passenger_id::text, payment_reference, amount_minor"
                        " FROM ledger.expected_payments WHERE trip_id = $1",
                        trip_id,
                    )
                    if rows:
                        return [tuple(row) for row in rows]
                    await asyncio.sleep(0.05)
        finally:
            await connection.close()


async def drive_to_the_end(edge: Edge, driver: Caller, made: trip_pb2.Trip, vehicle: str) -> None:
    """Drive a trip with the Python client from its first stop on, and end it."""
    location = made.stops[0].location
    async with (
        edge.client(driver.token) as client,
        client.drive(vehicle, made.trip_id) as bus,
    ):
        await bus.send_status(tracked_pb2.TRIP_STATUS_STARTED)
        await bus.send_position(location.latitude, location.longitude)
        await bus.wait_acknowledged(20)
        await bus.send_status(tracked_pb2.TRIP_STATUS_ENDED)
        await bus.wait_acknowledged(20)


def with_session(caller: Caller, session: Any) -> Caller:
    """Return the caller logged in."""
    return replace(caller, token=session.access_token, user_id=session.user.user_id)
