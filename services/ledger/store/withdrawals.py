"""Keeps withdrawals in PostgreSQL. Implements withdrawal_ports.WithdrawalStore."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg

from services.ledger.domain.accounts import AccountKey, AccountKind
from services.ledger.domain.withdrawals import State, Withdrawal
from services.ledger.ports import NewEvent, Reader
from services.ledger.withdrawal_errors import WithdrawalUnknownError
from services.ledger.withdrawal_ports import Change, Place
from services.shared.errors import RequestIdReusedError
from services.shared.postgres import Database, Session

if TYPE_CHECKING:
    from services.shared.postgres import Connection

EventOf = Callable[[Withdrawal], NewEvent]

_SWEEPER = Session(role="SWEEPER")
_COLUMNS = """withdrawal_id, tenant_id, user_id, currency_code, amount_minor, payout_destination,
  transfer_id, body_hash, state, outcome, reason, decided_by, decide_request_id, decide_hash,
  payout_id, submit_time, attempt_count, next_time, version, create_time, update_time"""

_BEGIN = """
INSERT INTO ledger.withdrawals (withdrawal_id, tenant_id, user_id, currency_code, amount_minor,
  payout_destination, transfer_id, body_hash, state, next_time, create_time, update_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'HOLDING', $9, $10, $10)
ON CONFLICT (withdrawal_id) DO NOTHING
"""

# Whoever comes back to a request that is not held yet keeps it from being forgotten.
_COME_BACK = """
UPDATE ledger.withdrawals SET next_time = $2, update_time = $3
WHERE withdrawal_id = $1 AND state = 'HOLDING'
"""

_FIND = f"""
SELECT {_COLUMNS} FROM ledger.withdrawals WHERE withdrawal_id = $1
"""  # noqa: S608 - the columns are ours

_DECIDED = f"""
SELECT {_COLUMNS} FROM ledger.withdrawals WHERE tenant_id = $1 AND decide_request_id = $2
"""  # noqa: S608 - the columns are ours

# Nobody blocks the wallet while this decides.
_BLOCKED = "SELECT is_blocked FROM ledger.accounts WHERE account_id = $1 FOR SHARE"

_UPDATE = """
UPDATE ledger.withdrawals
SET state = $2, outcome = $3, reason = $4, decided_by = $5, decide_request_id = $6,
  decide_hash = $7, payout_id = $8, submit_time = $9, attempt_count = $10, next_time = $11,
  version = $12, update_time = $13
WHERE withdrawal_id = $1
"""

_EVENT = """
INSERT INTO ledger.events
  (aggregate_type, aggregate_id, aggregate_version, tenant_id, envelope)
VALUES ($1, $2, $3, $4, $5)
"""

_PAGE = f"""
SELECT {_COLUMNS} FROM ledger.withdrawals
WHERE tenant_id = $1 AND state <> 'HOLDING' AND ($2::uuid IS NULL OR user_id = $2)
  AND ($3::text IS NULL OR state = $3)
  AND ($4::timestamptz IS NULL OR (create_time, withdrawal_id) < ($4, $5::uuid))
ORDER BY create_time DESC, withdrawal_id DESC LIMIT $6
"""  # noqa: S608 - the columns are ours

# Without a provider nothing is done with what is approved; it stays so.
_CLAIM = f"""
UPDATE ledger.withdrawals SET next_time = $2, attempt_count = attempt_count + 1
WHERE withdrawal_id IN (
  SELECT withdrawal_id FROM ledger.withdrawals
  WHERE next_time <= $1 AND ($4 OR state <> 'APPROVED' OR outcome IS NOT NULL)
  ORDER BY next_time LIMIT $3 FOR UPDATE SKIP LOCKED)
RETURNING {_COLUMNS}
"""  # noqa: S608 - the columns are ours

_IS_HELD = "SELECT EXISTS (SELECT 1 FROM ledger.transfers WHERE transfer_id = $1)"
_IS_RESOLVED = "SELECT EXISTS (SELECT 1 FROM ledger.transfers WHERE pending_id = $1)"

_FORGET = """
DELETE FROM ledger.withdrawals WHERE withdrawal_id = $1 AND state = 'HOLDING' AND update_time < $2
"""


class PostgresWithdrawalStore:
    """Works on ledger.withdrawals and the events of withdrawals."""

    def __init__(self, database: Database, event_of: EventOf) -> None:
        """Take the database of role wayfare_ledger; `event_of` tells of a new state."""
        self._database = database
        self._event_of = event_of

    async def begin(self, withdrawal: Withdrawal) -> Withdrawal:
        """Write a request before its amount is held, or return the one that was there."""
        async with self._database.transaction(_service(withdrawal.tenant_id)) as connection:
            status = await connection.execute(
                _BEGIN,
                withdrawal.withdrawal_id,
                withdrawal.tenant_id,
                withdrawal.user_id,
                withdrawal.currency_code,
                withdrawal.amount_minor,
                withdrawal.payout_destination,
                withdrawal.transfer_id,
                withdrawal.body_hash,
                withdrawal.next_time,
                withdrawal.create_time,
            )
            if status.endswith(" 1"):
                return withdrawal
            await connection.execute(
                _COME_BACK, withdrawal.withdrawal_id, withdrawal.next_time, withdrawal.update_time
            )
            return await _locked(connection, withdrawal.withdrawal_id)

    async def find(self, tenant_id: str, withdrawal_id: str) -> Withdrawal | None:
        """Return a withdrawal, HOLDING ones too, or None."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            row = await connection.fetchrow(_FIND, withdrawal_id)
        return None if row is None else _withdrawal_of(row)

    async def find_decided_by(self, tenant_id: str, request_id: str) -> Withdrawal | None:
        """Return the withdrawal that this request decided, or None."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            row = await connection.fetchrow(_DECIDED, tenant_id, request_id)
        return None if row is None else _withdrawal_of(row)

    async def change(self, tenant_id: str, withdrawal_id: str, change: Change) -> Withdrawal:
        """Let a withdrawal go on under its lock; a new state is told in the same transaction."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            before = await _locked(connection, withdrawal_id)
            key = AccountKey(AccountKind.WALLET, before.user_id, before.currency_code)
            blocked = await connection.fetchval(_BLOCKED, key.account_id(tenant_id))
            after = change(before, bool(blocked))
            if after == before:
                return after
            try:
                await connection.execute(_UPDATE, *_values(after))
            except asyncpg.UniqueViolationError:
                # Another withdrawal was decided by the same request meanwhile.
                raise RequestIdReusedError(after.decide_request_id) from None
            if after.version != before.version:
                event = self._event_of(after)
                await connection.execute(
                    _EVENT,
                    event.aggregate_type,
                    event.aggregate_id,
                    event.aggregate_version,
                    tenant_id,
                    event.envelope,
                )
        return after

    async def page(
        self, reader: Reader, *, user_id: str, state: State | None, after: Place | None, most: int
    ) -> list[Withdrawal]:
        """Return withdrawals that the reader may see, newest first."""
        role = "SERVICE" if reader.sees_all else "PERSON"
        session = Session(tenant_id=reader.tenant_id, user_id=reader.user_id, role=role)
        async with self._database.transaction(session) as connection:
            rows = await connection.fetch(
                _PAGE,
                reader.tenant_id,
                user_id or None,
                state,
                after.create_time if after else None,
                after.withdrawal_id if after else None,
                most,
            )
        return [_withdrawal_of(row) for row in rows]

    async def claim(
        self, *, now: datetime, lease: timedelta, most: int, pays_out: bool
    ) -> Sequence[Withdrawal]:
        """Take what is due for `lease`; others pass over what one of them locks."""
        async with self._database.transaction(_SWEEPER) as connection:
            rows = await connection.fetch(_CLAIM, now, now + lease, most, pays_out)
        return [_withdrawal_of(row) for row in rows]

    async def is_held(self, withdrawal: Withdrawal) -> bool:
        """Say whether the pending transfer of a withdrawal was made."""
        async with self._database.transaction(_service(withdrawal.tenant_id)) as connection:
            return bool(await connection.fetchval(_IS_HELD, withdrawal.transfer_id))

    async def hold_is_open(self, withdrawal: Withdrawal) -> bool:
        """Say whether the pending transfer of a withdrawal was made and is unresolved."""
        async with self._database.transaction(_service(withdrawal.tenant_id)) as connection:
            held = await connection.fetchval(_IS_HELD, withdrawal.transfer_id)
            return held and not await connection.fetchval(_IS_RESOLVED, withdrawal.transfer_id)

    async def forget(self, withdrawal: Withdrawal, *, before: datetime) -> None:
        """Remove a request that held nothing, if nobody came back to it since `before`."""
        async with self._database.transaction(_SWEEPER) as connection:
            await connection.execute(_FORGET, withdrawal.withdrawal_id, before)


def _service(tenant_id: str) -> Session:
    return Session(tenant_id=tenant_id, role="SERVICE")


async def _locked(connection: "Connection", withdrawal_id: str) -> Withdrawal:
    row = await connection.fetchrow(f"{_FIND} FOR UPDATE", withdrawal_id)
    if row is None:
        raise WithdrawalUnknownError(withdrawal_id)
    return _withdrawal_of(row)


def _values(withdrawal: Withdrawal) -> Sequence[object]:
    """Return what may change of a withdrawal, in the order of _UPDATE."""
    return (
        withdrawal.withdrawal_id,
        withdrawal.state,
        withdrawal.outcome,
        withdrawal.reason,
        withdrawal.decided_by or None,
        withdrawal.decide_request_id or None,
        withdrawal.decide_hash or None,
        withdrawal.payout_id,
        withdrawal.submit_time,
        withdrawal.attempt_count,
        withdrawal.next_time,
        withdrawal.version,
        withdrawal.update_time,
    )


def _withdrawal_of(row: "asyncpg.Record") -> Withdrawal:
    return Withdrawal(
        withdrawal_id=str(row["withdrawal_id"]),
        tenant_id=str(row["tenant_id"]),
        user_id=str(row["user_id"]),
        currency_code=row["currency_code"],
        amount_minor=row["amount_minor"],
        payout_destination=row["payout_destination"],
        transfer_id=str(row["transfer_id"]),
        body_hash=row["body_hash"],
        state=State(row["state"]),
        outcome=State(row["outcome"]) if row["outcome"] else None,
        reason=row["reason"],
        decided_by=str(row["decided_by"] or ""),
        decide_request_id=str(row["decide_request_id"] or ""),
        decide_hash=row["decide_hash"] or b"",
        payout_id=row["payout_id"],
        submit_time=row["submit_time"],
        attempt_count=row["attempt_count"],
        next_time=row["next_time"],
        version=row["version"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )
