"""Keeps fraud flags and profiles in PostgreSQL. Implements fraud_ports.FraudStore."""

import json
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from services.ledger.domain.fraud import Flag, Profile, Rule
from services.ledger.fraud_ports import FraudTurn, Person
from services.ledger.ports import NewEvent
from services.shared.events.log import IN_ORDER, EventLog
from services.shared.postgres import Database, Session

if TYPE_CHECKING:
    from services.shared.postgres import Connection

_SWEEPER = Session(role="SWEEPER")
_PART = 200
_PEOPLE_REMEMBERED = 20_000
_MOMENTS_KEPT = 4_096
Item = TypeVar("Item")
Cursor = tuple[int, int]

_TURN = f"SELECT pg_try_advisory_xact_lock(hashtextextended('ledger.fraud', 0)), {IN_ORDER}"
_CURSOR = "SELECT transaction_id::text::bigint, event_number FROM ledger.fraud_cursor"
_ADVANCE = "UPDATE ledger.fraud_cursor SET transaction_id = $1::text::xid8, event_number = $2"

_PROFILES = """
SELECT p.tenant_id, p.user_id, p.profile
FROM unnest($1::uuid[], $2::uuid[]) AS wanted (tenant_id, user_id)
CROSS JOIN LATERAL (
  SELECT tenant_id, user_id, profile FROM ledger.fraud_profiles
  WHERE tenant_id = wanted.tenant_id AND user_id = wanted.user_id OFFSET 0) AS p
"""

_KEEP = """
INSERT INTO ledger.fraud_profiles (tenant_id, user_id, profile)
SELECT tenant_id, user_id, profile::jsonb
FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS new (tenant_id, user_id, profile)
ON CONFLICT (tenant_id, user_id) DO UPDATE SET profile = excluded.profile
"""

_FLAG = """
INSERT INTO ledger.fraud_flags
  (tenant_id, user_id, rule, window_start, transfer_id, description, flag_time)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

_EVENT = """
INSERT INTO ledger.events
  (aggregate_type, aggregate_id, aggregate_version, tenant_id, envelope)
VALUES ($1, $2, $3, $4, $5)
"""


class PostgresFraudStore:
    """Works on ledger.fraud_profiles, fraud_flags and fraud_cursor.

    The process that had the last turn too needs not read again what it wrote: the cursor, which
    every turn with events moves, is where it left it.
    """

    def __init__(self, database: Database) -> None:
        """Take the database of role wayfare_ledger."""
        self._database = database
        self._read = EventLog(database, "ledger").read
        self._left_at: Cursor | None = None
        self._remembered: dict[Person, Profile] = {}

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[FraudTurn | None]:
        """Take the turn, which one process has at a time; None if another has it."""
        async with self._database.transaction(_SWEEPER) as connection:
            if not await connection.fetchval(_TURN):
                yield None
                return
            row = await connection.fetchrow(_CURSOR)
            if row is None:
                raise LookupError("ledger.fraud_cursor has no row")
            cursor = (row[0], row[1])
            if cursor != self._left_at:
                self._remembered.clear()
                self._left_at = cursor
            turn = PostgresFraudTurn(connection, cursor, self._read, self._remembered)
            yield turn
        # It is committed.
        self._left_at = turn.left_at
        self._remember(turn.kept)

    def _remember(self, profiles: Mapping[Person, Profile]) -> None:
        for person, profile in profiles.items():
            # Those who moved something last come last.
            self._remembered.pop(person, None)
            self._remembered[person] = profile
        while len(self._remembered) > _PEOPLE_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]


class PostgresFraudTurn:
    """One open transaction, which writes at its end: until then it holds up nobody."""

    def __init__(
        self,
        connection: "Connection",
        cursor: Cursor,
        read: str,
        remembered: Mapping[Person, Profile],
    ) -> None:
        """Go on after `cursor`; `remembered` are profiles as they are."""
        self._connection = connection
        self._cursor = cursor
        self.left_at = cursor
        self.kept: Mapping[Person, Profile] = {}
        self._read = read
        self._remembered = remembered

    async def next_envelopes(self, most: int) -> Sequence[bytes]:
        """Return the envelopes of the events that come next, in the order of commits."""
        transaction_id, number = self._cursor
        rows = await self._connection.fetch(self._read, str(transaction_id), number, most)
        if rows:
            self._cursor = (rows[-1][0], rows[-1][1])
        return [row[3] for row in rows]

    async def profiles(self, people: Collection[Person]) -> Mapping[Person, Profile]:
        """Return what is remembered of these people."""
        known = self._remembered
        found = {person: known[person] for person in people if person in known}
        for part in _parts([person for person in people if person not in known]):
            tenants, users = [one[0] for one in part], [one[1] for one in part]
            rows = await self._connection.fetch(_PROFILES, tenants, users)
            for row in rows:
                found[str(row[0]), str(row[1])] = _profile_of(json.loads(row[2]))
        return found

    async def keep(
        self,
        profiles: Mapping[Person, Profile],
        flags: Sequence[tuple[Flag, NewEvent]],
    ) -> None:
        """Remember people, write flags with their events; what was read does not come again."""
        for part in _parts(list(profiles.items())):
            await self._connection.execute(
                _KEEP,
                [person[0] for person, _ in part],
                [person[1] for person, _ in part],
                [json.dumps(_json_of(profile)) for _, profile in part],
            )
        for flag, event in flags:
            await self._connection.execute(
                _FLAG,
                flag.tenant_id,
                flag.user_id,
                flag.rule,
                flag.window_start,
                flag.transfer_id,
                flag.description,
                flag.time,
            )
            await self._connection.execute(
                _EVENT,
                event.aggregate_type,
                event.aggregate_id,
                event.aggregate_version,
                flag.tenant_id,
                event.envelope,
            )
        await self._connection.execute(_ADVANCE, str(self._cursor[0]), self._cursor[1])
        self.left_at, self.kept = self._cursor, profiles


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Cut what is much into parts, between which others have their turn."""
    for start in range(0, len(items), _PART):
        yield items[start : start + _PART]


def _json_of(profile: Profile) -> dict[str, Any]:
    return {
        "times": list(map(_written, profile.times)),
        # A list, because jsonb orders the keys of objects by itself.
        "amounts": [[code, amounts] for code, amounts in profile.amounts.items()],
        "deposit_time": _text(profile.deposit_time),
        "withdrawal_time": _text(profile.withdrawal_time),
        "windows": {rule: start.isoformat() for rule, start in profile.windows.items()},
        "flag_count": profile.flag_count,
    }


def _profile_of(value: dict[str, Any]) -> Profile:
    return Profile(
        times=tuple(map(_moment, value["times"])),
        amounts={code: tuple(amounts) for code, amounts in value["amounts"]},
        deposit_time=_moment(value["deposit_time"]) if value["deposit_time"] else None,
        withdrawal_time=_moment(value["withdrawal_time"]) if value["withdrawal_time"] else None,
        windows={Rule(rule): _moment(start) for rule, start in value["windows"].items()},
        flag_count=value["flag_count"],
    )


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else _written(moment)


# A batch has one moment for all of its transfers, so the same ones come again and again.
@lru_cache(_MOMENTS_KEPT)
def _written(moment: datetime) -> str:
    return moment.isoformat()


@lru_cache(_MOMENTS_KEPT)
def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
