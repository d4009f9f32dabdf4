"""`wayfare dlq` at a running stack: a dead letter is seen, put back in line, and handled."""

import asyncio
import uuid

import asyncpg
import pytest
from typer.testing import CliRunner

from services.stack.command import application
from tests.support.e2e_edge import Edge
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.event.v1.trip_completed_pb2 import TripCompleted

pytestmark = pytest.mark.e2e

# Who the ledger takes completed trips as.
CONSUMER = "expected-payments"
_GIVE_UP = """
INSERT INTO ledger.event_failures (consumer, event_id, aggregate, envelope, attempt_count, error,
  next_time, dead_time)
VALUES ($1, $2, $3, $4, 6, 'ValueError in reconciliation.py:1', now(), now())
"""


class Letters:
    """Works with the dead letters of the running stack, as its operator at a terminal."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._home = str(edge.stack.home.path)

    async def dlq(self, *arguments: str) -> tuple[int, str]:
        """Run `wayfare dlq`; return its exit code and what it prints."""
        terminal = CliRunner(env={"WAYFARE_HOME": self._home, "COLUMNS": "250"})
        answer = await asyncio.to_thread(terminal.invoke, application, ["dlq", *arguments])
        return answer.exit_code, answer.output

    async def fetch(self, query: str, *values: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self._edge.stack.postgres.dsn_for("postgres"))
        try:
            return list(await connection.fetch(query, *values))
        finally:
            await connection.close()

    async def give_up(self) -> tuple[str, str]:
        """Keep a completed trip as one that could not be handled; return event and trip."""
        trip_id = str(uuid.uuid4())
        event = Envelope(
            event_id=str(uuid.uuid4()),
            tenant_id=str(uuid.uuid4()),
            aggregate_type="trip",
            aggregate_id=trip_id,
            aggregate_version=1,
        )
        event.occur_time.GetCurrentTime()
        completed = TripCompleted(
            trip_id=trip_id,
            passenger_user_id=str(uuid.uuid4()),
            payment_reference=f"trip/{trip_id}",
            complete_time=event.occur_time,
        )
        event.payload.Pack(completed)
        values = (CONSUMER, event.event_id, f"trip/{trip_id}", event.SerializeToString())
        await self.fetch(_GIVE_UP, *values)
        return event.event_id, trip_id

    async def until_handled(self, trip_id: str) -> None:
        query = "SELECT 1 FROM ledger.expected_payments WHERE trip_id = $1"
        async with asyncio.timeout(20):
            while not await self.fetch(query, trip_id):
                await asyncio.sleep(0.05)


async def test_a_dead_letter_of_a_running_stack_is_seen_retried_and_handled(edge: Edge) -> None:
    letters = Letters(edge)
    event_id, trip_id = await letters.give_up()

    listed = await letters.dlq("list", "--consumer", CONSUMER)
    shown = await letters.dlq("show", event_id)
    retried = await letters.dlq("retry", event_id)
    await letters.until_handled(trip_id)
    gone = await letters.dlq("list", "--consumer", CONSUMER, "--check")

    assert listed[0] == shown[0] == retried[0] == gone[0] == 0, (listed, shown, retried, gone)
    assert event_id in listed[1]
    assert f"ledger/{CONSUMER}" in shown[1]
    assert trip_id in shown[1]
    assert event_id not in gone[1]


async def test_a_dead_letter_of_a_running_stack_is_dropped_and_never_handled(edge: Edge) -> None:
    letters = Letters(edge)
    event_id, trip_id = await letters.give_up()

    dropped = await letters.dlq("drop", event_id, "--reason", "made by a test")
    kept = await letters.fetch(
        "SELECT reason FROM ledger.dead_letter_audit WHERE event_id = $1", event_id
    )
    left = await letters.fetch("SELECT 1 FROM ledger.event_failures WHERE event_id = $1", event_id)
    handled = await letters.fetch(
        "SELECT 1 FROM ledger.expected_payments WHERE trip_id = $1", trip_id
    )

    assert dropped[0] == 0, dropped
    assert [row[0] for row in kept] == ["made by a test"]
    assert (left, handled) == ([], [])
