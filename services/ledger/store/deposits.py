"""Keeps deposits and what came of webhooks. Implements deposit_ports.DepositStore."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import asyncpg

from services.ledger.deposit_ports import AuditLine, HeldDeposit, PaymentTakenError
from services.ledger.domain.deposits import Deposit, DepositState, GatewayName, Step
from services.ledger.ports import NewEvent, Reader
from services.shared.clock import Clock
from services.shared.postgres import Database, Session

if TYPE_CHECKING:
    from services.shared.postgres import Connection

_SWEEPER = Session(role="SWEEPER")

_COLUMNS = """
deposit_id, tenant_id, user_id, gateway, amount_minor, currency_code, state, step, reference,
  return_url, body_hash, payment_id, transfer_id, charge_back_transfer_id, version, expire_time,
  create_time, update_time
"""

_CREATE = """
INSERT INTO ledger.deposits (deposit_id, tenant_id, user_id, gateway, amount_minor, currency_code,
  state, step, reference, return_url, body_hash, version, expire_time, create_time, update_time,
  step_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14, $14)
ON CONFLICT (deposit_id) DO NOTHING RETURNING deposit_id
"""

_FIND = f"SELECT {_COLUMNS} FROM ledger.deposits WHERE deposit_id = $1"  # noqa: S608 - ours

_HOLD = f"{_FIND} FOR UPDATE"

_OVERDUE = """
SELECT tenant_id, deposit_id FROM ledger.deposits
WHERE state = 'PENDING' AND step = 'NONE' AND expire_time <= $1
ORDER BY expire_time LIMIT $2
"""

_UNFINISHED = f"""
SELECT {_COLUMNS} FROM ledger.deposits WHERE step <> 'NONE' AND step_time <= $1
ORDER BY step_time LIMIT $2
"""  # noqa: S608 - ours

_CHANGE = """
UPDATE ledger.deposits
SET state = $2, step = $3, payment_id = $4, transfer_id = $5, charge_back_transfer_id = $6,
  version = $7, update_time = $8, step_time = $9
WHERE deposit_id = $1
"""

_EVENT = """
INSERT INTO ledger.events
  (aggregate_type, aggregate_id, aggregate_version, tenant_id, envelope)
VALUES ($1, $2, $3, $4, $5)
"""

_NOTE = """
INSERT INTO ledger.payment_webhooks (line_id, tenant_id, gateway, outcome, reason, is_verified,
  deposit_id, order_id, payment_id, status, amount_minor, currency_code, body_hash, body_bytes,
  webhook_count, receive_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
"""


class PostgresDepositStore:
    """Keeps deposits in the schema `ledger`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Take the database of role wayfare_ledger."""
        self._database = database
        self._clock = clock

    async def create(self, deposit: Deposit, event: NewEvent) -> Deposit:
        """Keep a new deposit, and return it, or the one that has its id already."""
        async with self._database.transaction(_service(deposit.tenant_id)) as connection:
            made = await connection.fetchval(
                _CREATE,
                deposit.deposit_id,
                deposit.tenant_id,
                deposit.user_id,
                deposit.gateway,
                deposit.amount_minor,
                deposit.currency_code,
                deposit.state,
                deposit.step,
                deposit.reference,
                deposit.return_url,
                deposit.body_hash,
                deposit.version,
                deposit.expire_time,
                deposit.create_time,
            )
            if made is not None:
                await _write_event(connection, deposit, event)
                return deposit
            # A statement of its own sees what another transaction committed meanwhile.
            return _deposit_of((await connection.fetch(_FIND, deposit.deposit_id))[0])

    async def find(self, reader: Reader, deposit_id: str) -> Deposit | None:
        """Return a deposit that the reader may see, or None."""
        role = "SERVICE" if reader.sees_all else "PERSON"
        session = Session(tenant_id=reader.tenant_id, user_id=reader.user_id, role=role)
        return await self._find(session, deposit_id)

    async def find_order(self, order_id: str) -> Deposit | None:
        """Return the deposit of any tenant that a gateway knows as this order, or None."""
        return await self._find(_SWEEPER, order_id)

    @asynccontextmanager
    async def held(self, tenant_id: str, deposit_id: str) -> AsyncIterator[HeldDeposit | None]:
        """Open a transaction that locks a deposit; it commits when the block ends."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            row = await connection.fetchrow(_HOLD, deposit_id)
            yield None if row is None else _Held(connection, _deposit_of(row), self._clock)

    async def overdue(self, *, now: datetime, most: int) -> list[tuple[str, str]]:
        """Return tenant and id of deposits that were not paid in time, the oldest first."""
        async with self._database.transaction(_SWEEPER) as connection:
            rows = await connection.fetch(_OVERDUE, now, most)
        return [(str(row[0]), str(row[1])) for row in rows]

    async def unfinished(self, *, before: datetime, most: int) -> list[Deposit]:
        """Return deposits whose money was due to move since before a moment, the oldest first."""
        async with self._database.transaction(_SWEEPER) as connection:
            rows = await connection.fetch(_UNFINISHED, before, most)
        return [_deposit_of(row) for row in rows]

    async def note(self, lines: list[AuditLine]) -> None:
        """Keep what came of webhooks that changed nothing."""
        async with self._database.transaction(_SWEEPER) as connection:
            await connection.executemany(_NOTE, [_line_values(line) for line in lines])

    async def _find(self, session: Session, deposit_id: str) -> Deposit | None:
        async with self._database.transaction(session) as connection:
            row = await connection.fetchrow(_FIND, deposit_id)
        return None if row is None else _deposit_of(row)


class _Held:
    """Is a deposit whose row is locked."""

    def __init__(self, connection: "Connection", deposit: Deposit, clock: Clock) -> None:
        self.deposit = deposit
        self._connection = connection
        self._clock = clock

    async def change(
        self, changed: Deposit, *, event: NewEvent | None, line: AuditLine | None
    ) -> None:
        """Write what changed, with its event and what is kept of the webhook."""
        try:
            await self._connection.execute(
                _CHANGE,
                changed.deposit_id,
                changed.state,
                changed.step,
                changed.payment_id or None,
                changed.transfer_id or None,
                changed.charge_back_transfer_id or None,
                changed.version,
                changed.update_time,
                self._clock.now(),
            )
        except asyncpg.UniqueViolationError as error:
            raise PaymentTakenError(changed.payment_id) from error
        if event is not None:
            await _write_event(self._connection, changed, event)
        if line is not None:
            await self._connection.execute(_NOTE, *_line_values(line))


async def _write_event(connection: "Connection", deposit: Deposit, event: NewEvent) -> None:
    await connection.execute(
        _EVENT,
        event.aggregate_type,
        event.aggregate_id,
        event.aggregate_version,
        deposit.tenant_id,
        event.envelope,
    )


def _service(tenant_id: str) -> Session:
    return Session(tenant_id=tenant_id, role="SERVICE")


def _line_values(line: AuditLine) -> tuple[object, ...]:
    return (
        line.line_id,
        line.tenant_id or None,
        line.gateway,
        line.outcome,
        line.reason,
        line.is_verified,
        line.deposit_id or None,
        line.order_id,
        line.payment_id,
        line.status,
        line.amount_minor,
        line.currency_code,
        line.body_hash,
        line.body_bytes,
        line.webhook_count,
        line.receive_time,
    )


def _deposit_of(row: "asyncpg.Record") -> Deposit:
    return Deposit(
        deposit_id=str(row["deposit_id"]),
        tenant_id=str(row["tenant_id"]),
        user_id=str(row["user_id"]),
        gateway=GatewayName(row["gateway"]),
        amount_minor=row["amount_minor"],
        currency_code=row["currency_code"],
        state=DepositState(row["state"]),
        step=Step(row["step"]),
        reference=row["reference"],
        return_url=row["return_url"],
        body_hash=row["body_hash"],
        payment_id=row["payment_id"] or "",
        transfer_id=str(row["transfer_id"] or ""),
        charge_back_transfer_id=str(row["charge_back_transfer_id"] or ""),
        version=row["version"],
        expire_time=row["expire_time"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )
