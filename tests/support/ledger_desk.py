"""People and ADMINs who ask for withdrawals and decide them, at one process or several."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg

from tests.support.ledger_process import LedgerProcess, money, pb, running_ledger
from tests.support.location_tokens import TokenMint
from tests.support.location_values import new_id
from tests.support.payout_bridge import Behaviour
from tests.support.stack_fixtures import TestDatabase
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.ledger.v1 import events_pb2, withdrawal_pb2

State = withdrawal_pb2.WithdrawalState


class Desk:
    """People and ADMINs of one or more processes that share a database."""

    def __init__(self, processes: list[LedgerProcess], admin_dsn: str) -> None:
        self.processes = processes
        self.ledger = processes[0]
        self.admin_dsn = admin_dsn
        self.admin = self.ledger.bearer("ADMIN", new_id())

    async def request(
        self, user: str, amount: int, destination: str = Behaviour.PAYS, **values: Any
    ) -> withdrawal_pb2.Withdrawal:
        answer: withdrawal_pb2.Withdrawal = await self.ledger.call(
            "RequestWithdrawal", wanted(amount, destination, **values), self.person(user)
        )
        return answer

    def person(self, user: str) -> Any:
        return self.ledger.bearer("PASSENGER", user)

    async def approve(self, withdrawal_id: str, **values: Any) -> withdrawal_pb2.Withdrawal:
        request = approval(withdrawal_id, **values)
        answer: withdrawal_pb2.Withdrawal = await self.ledger.call(
            "ApproveWithdrawal", request, self.admin
        )
        return answer

    async def reject(self, withdrawal_id: str, **values: Any) -> withdrawal_pb2.Withdrawal:
        request = rejection(withdrawal_id, **values)
        answer: withdrawal_pb2.Withdrawal = await self.ledger.call(
            "RejectWithdrawal", request, self.admin
        )
        return answer

    async def listed(self, **values: Any) -> list[withdrawal_pb2.Withdrawal]:
        answer = await self.ledger.call(
            "ListWithdrawals", pb.ListWithdrawalsRequest(**values), self.admin
        )
        return list(answer.withdrawals)

    async def becomes(
        self, user: str, state: "State.ValueType", *, seconds: float = 20
    ) -> withdrawal_pb2.Withdrawal:
        """Wait until the only withdrawal of a person is so far."""
        async with asyncio.timeout(seconds):
            while True:
                (found,) = await self.listed(user_id=user)
                if found.state == state:
                    return found
                await asyncio.sleep(0.02)

    async def told(self, withdrawal_id: str) -> list[tuple[int, str]]:
        """Return version and state of the events of a withdrawal."""
        connection = await asyncpg.connect(self.admin_dsn)
        try:
            rows = await connection.fetch(
                "SELECT envelope FROM ledger.events WHERE aggregate_type = 'withdrawal'"
                " AND aggregate_id = $1 ORDER BY aggregate_version",
                withdrawal_id,
            )
        finally:
            await connection.close()
        told = []
        for row in rows:
            envelope = Envelope.FromString(row[0])
            changed = events_pb2.WithdrawalChanged()
            assert envelope.payload.Unpack(changed)
            state = State.Name(changed.withdrawal.state).removeprefix("WITHDRAWAL_STATE_")
            told.append((envelope.aggregate_version, state))
        return told

    async def execute(self, statement: str, *values: Any) -> None:
        """Do what no code does, as the superuser and past the triggers."""
        connection = await asyncpg.connect(self.admin_dsn)
        try:
            await connection.execute("SET session_replication_role = replica")
            await connection.execute(statement, *values)
        finally:
            await connection.close()

    async def block(self, user: str) -> None:
        account = await self.ledger.account(user)
        account.blocked = True
        request = pb.UpdateAccountRequest(account=account)
        request.update_mask.paths.append("blocked")
        await self.ledger.call("UpdateAccount", request, self.admin)


def wanted(
    amount: int, destination: str = Behaviour.PAYS, currency_code: str = "EGP", **values: Any
) -> Any:
    return pb.RequestWithdrawalRequest(
        **{
            "amount": money(amount, currency_code),
            "payout_destination": destination,
            "request_id": new_id(),
            **values,
        }
    )


def approval(withdrawal_id: str, **values: Any) -> Any:
    return pb.ApproveWithdrawalRequest(
        **{"withdrawal_id": withdrawal_id, "request_id": new_id(), **values}
    )


def rejection(withdrawal_id: str, **values: Any) -> Any:
    return pb.RejectWithdrawalRequest(
        **{
            "withdrawal_id": withdrawal_id,
            "reason": "no papers",
            "request_id": new_id(),
            **values,
        }
    )


async def desk_of(
    stack: AsyncExitStack,
    database: TestDatabase,
    valkey_url: str,
    folder: Path,
    count: int,
    **values: Any,
) -> Desk:
    mint = TokenMint()
    processes = [
        await stack.enter_async_context(
            running_ledger(
                folder, dsn=database.dsn_for("ledger"), valkey_url=valkey_url, mint=mint, **values
            )
        )
        for _ in range(count)
    ]
    return Desk(processes, database.admin_dsn)
