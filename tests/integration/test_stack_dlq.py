"""`wayfare dlq` over a real database: what people see of dead letters and do with them."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from services.stack.command import application
from services.stack.dead_letters import envelope_words
from services.stack.errors import StackError
from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.event.v1.trip_completed_pb2 import TripCompleted

pytestmark = pytest.mark.integration


class Operator:
    """Uses the command on a database of its own."""

    def __init__(self, database: TestDatabase, home: Path) -> None:
        self._dsn = database.admin_dsn
        self._home = home

    def run(self, *arguments: str) -> Result:
        environment = {
            "DATABASE_URL": self._dsn,
            "WAYFARE_HOME": str(self._home),
            "COLUMNS": "250",
        }
        return CliRunner(env=environment).invoke(application, ["dlq", *arguments])

    def refused(self, *arguments: str) -> str:
        answer = self.run(*arguments)
        assert isinstance(answer.exception, StackError)
        return str(answer.exception)

    def fetch(self, query: str, *values: Any) -> list[Any]:
        async def ask() -> list[Any]:
            connection = await asyncpg.connect(self._dsn)
            try:
                return [tuple(row) for row in await connection.fetch(query, *values)]
            finally:
                await connection.close()

        return asyncio.run(ask())

    def give_up(self, consumer: str, *, event_id: str = "", dead: bool = True) -> str:
        """Keep an event as a consumer does that gave it up, or still tries; return its id."""
        event = Envelope(
            event_id=event_id or new_id(),
            tenant_id=TENANT,
            aggregate_type="trip",
            aggregate_id="trip-7",
            aggregate_version=3,
        )
        event.occur_time.GetCurrentTime()
        event.payload.Pack(TripCompleted(trip_id="trip-7"))
        self.fetch(
            "INSERT INTO ledger.event_failures (consumer, event_id, aggregate, envelope,"
            " attempt_count, error, next_time, dead_time) VALUES ($1, $2, 'trip/trip-7', $3, 6,"
            " 'ValueError in settling.py:12', now(), CASE WHEN $4 THEN now() END)",
            *(consumer, event.event_id, event.SerializeToString(), dead),
        )
        return event.event_id

    def audit(self) -> list[tuple[str, str, str, str]]:
        return self.fetch(
            "SELECT action, consumer, event_id::text, reason FROM ledger.dead_letter_audit"
            " ORDER BY audit_id"
        )

    def states(self) -> Sequence[tuple[str, bool, int]]:
        return self.fetch(
            "SELECT event_id::text, dead_time IS NULL AND next_time <= now(), attempt_count"
            " FROM ledger.event_failures ORDER BY failure_id"
        )


@pytest.fixture
def operator(migrated_database: TestDatabase, tmp_path: Path) -> Operator:
    return Operator(migrated_database, tmp_path)


def test_nothing_given_up_is_said_so(operator: Operator) -> None:
    answer = operator.run("list", "--check")

    assert answer.exit_code == 0
    assert "no dead letters" in answer.output


def test_the_list_shows_who_gave_up_what_and_what_waits(operator: Operator) -> None:
    event_id = operator.give_up("fraud")
    waiting = operator.give_up("fraud", dead=False)

    answer = operator.run("list")

    assert answer.exit_code == 0
    (row,) = [line for line in answer.output.splitlines() if event_id in line]
    for word in ("ledger/fraud", "trip/trip-7", "6", "ValueError in settling.py:12"):
        assert word in row
    assert waiting not in answer.output
    assert "ledger/fraud: 1 dead, 1 waiting" in answer.output
    assert operator.run("list", "--check").exit_code == 1
    assert event_id not in operator.run("list", "--consumer", "other").output


def test_a_long_list_says_that_there_is_more(operator: Operator) -> None:
    for _ in range(3):
        operator.give_up("fraud")

    assert "The newest 2 of 3 are shown" in operator.run("list", "--limit", "2").output


def test_show_gives_the_payload_as_json(operator: Operator) -> None:
    event_id = operator.give_up("fraud")

    output = operator.run("show", event_id).output

    words = json.loads(output[output.index("{") :])
    assert words["event_id"] == event_id
    assert words["payload"]["@type"].endswith("wayfare.event.v1.TripCompleted")
    assert words["payload"]["trip_id"] == "trip-7"


def test_a_payload_that_nobody_knows_is_shown_as_it_is() -> None:
    event = Envelope(event_id=new_id())
    event.payload.type_url, event.payload.value = "type.googleapis.com/other.v9.Thing", b"\x01"

    words = envelope_words(event.SerializeToString())

    assert words["event_id"] == event.event_id
    assert words["payload"] == {"@type": event.payload.type_url, "undecodable": "01"}
    assert envelope_words(b"\xff") == {"undecodable": "ff"}


def test_retry_puts_one_or_all_of_a_consumer_back_in_line(operator: Operator) -> None:
    one, two, three = (operator.give_up("fraud") for _ in range(3))
    other = operator.give_up("other")

    assert "1 dead letter is" in operator.run("retry", one).output
    assert operator.states() == [(one, True, 0), *((id_, False, 6) for id_ in (two, three, other))]
    assert "2 dead letters are" in operator.run("retry", "--consumer", "fraud").output
    assert operator.states()[1:3] == [(two, True, 0), (three, True, 0)]
    assert operator.states()[3] == (other, False, 6)
    assert sorted(row[2] for row in operator.audit()) == sorted([one, two, three])
    assert {row[0] for row in operator.audit()} == {"RETRY"}


def test_drop_needs_a_reason_and_leaves_a_trace(operator: Operator) -> None:
    event_id = operator.give_up("fraud")

    assert operator.run("drop", event_id).exit_code == 2
    assert "--reason" in operator.refused("drop", event_id, "--reason", " ")
    assert operator.audit() == []

    assert operator.run("drop", event_id, "--reason", "made by a test").exit_code == 0
    assert operator.states() == []
    assert operator.audit() == [("DROP", "fraud", event_id, "made by a test")]


def test_what_is_still_tried_is_not_dropped(operator: Operator) -> None:
    event_id = operator.give_up("fraud", dead=False)

    assert "no dead letter" in operator.refused("drop", event_id, "--reason", "a test")
    assert len(operator.states()) == 1


def test_an_event_that_several_gave_up_wants_a_consumer(operator: Operator) -> None:
    event_id = operator.give_up("fraud")
    operator.give_up("other", event_id=event_id)

    assert "fraud, other" in operator.refused("retry", event_id)
    assert operator.run("retry", event_id, "--consumer", "other").exit_code == 0
    assert operator.states() == [(event_id, False, 6), (event_id, True, 0)]


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["show", "nonsense"], "no event_id"),
        (["show", new_id()], "wayfare dlq list"),
        (["retry"], "--consumer"),
        (["retry", "--consumer", "nobody"], "wayfare dlq list"),
    ],
)
def test_a_wrong_question_says_what_to_do(
    operator: Operator, arguments: list[str], advice: str
) -> None:
    assert advice in operator.refused(*arguments)


@pytest.mark.parametrize("command", ["list", "show", "retry", "drop"])
def test_the_help_shows_an_example(operator: Operator, command: str) -> None:
    answer = operator.run(command, "--help")

    assert f"wayfare dlq {command}" in answer.output.partition("Example: ")[2]


def test_without_a_stack_or_a_database_it_says_how_to_start_one(tmp_path: Path) -> None:
    environment = {"WAYFARE_HOME": str(tmp_path), "DATABASE_URL": ""}
    answer = CliRunner(env=environment).invoke(application, ["dlq", "list"])

    assert isinstance(answer.exception, StackError)
    assert "wayfare up" in str(answer.exception)
