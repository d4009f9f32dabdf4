"""The ledger's tables under the service's own role, written by hand. Used by contract tests."""

from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from services.ledger.domain.accounts import AccountKey, AccountKind
from tests.support.location_values import TENANT, new_id

Row = tuple[str, str, int]


class Books:
    """Writes rows by hand, as a careless service would."""

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self.connection = connection
        self.user = new_id()
        self.wallet = self.id_of(AccountKind.WALLET, self.user)
        self.revenue = self.id_of(AccountKind.REVENUE)
        self.clearing = self.id_of(AccountKind.GATEWAY_CLEARING, "PAYHERE")

    def id_of(self, kind: AccountKind, subject: str = "", code: str = "EGP") -> str:
        return AccountKey(kind, subject, code).account_id(TENANT)

    async def act(self, *, tenant: str = TENANT, role: str = "SERVICE", user: str = "") -> None:
        for name, value in (("tenant_id", tenant), ("role", role), ("user_id", user)):
            await self.connection.execute("SELECT set_config($1, $2, false)", f"app.{name}", value)

    async def open(self) -> None:
        await self.act()
        accounts = [
            (self.wallet, "WALLET", self.user, self.user, 0),
            (self.revenue, "REVENUE", None, "", None),
            (self.clearing, "GATEWAY_CLEARING", None, "PAYHERE", None),
        ]
        for account_id, kind, owner, subject, limit in accounts:
            await self.connection.execute(
                "INSERT INTO ledger.accounts (account_id, tenant_id, kind, owner_id, subject,"
                " currency_code, limit_minor, create_time, update_time)"
                " VALUES ($1, $2, $3, $4, $5, 'EGP', $6, now(), now())",
                *(account_id, TENANT, kind, owner, subject, limit),
            )

    async def record(
        self,
        rows: Sequence[Row],
        *,
        phase: str = "POSTED",
        amount: int | None = None,
        **values: Any,
    ) -> str:
        """Insert a transfer and its entries (layer, account, amount) in one transaction."""
        transfer_id = new_id()
        posted = [row for row in rows if row[0] != "RELEASED"] or rows
        async with self.connection.transaction():
            await self.connection.execute(
                "INSERT INTO ledger.transfers (transfer_id, tenant_id, phase, kind, currency_code,"
                " amount_minor, posting_count, pending_id, refund_of, reference, body_hash,"
                " expire_time, create_time)"
                " VALUES ($1, $2, $3, 'TEST', 'EGP', $4, $5, $6, $7, '', $8, NULL, now())",
                transfer_id,
                TENANT,
                phase,
                amount or sum(max(0, row[2]) for row in posted),
                len(posted),
                values.get("pending_id"),
                values.get("refund_of"),
                bytes(16),
            )
            await self.add(transfer_id, rows)
        return transfer_id

    async def add(self, transfer_id: str, rows: Sequence[Row], *, first: int = 0) -> None:
        await self.connection.execute(
            "INSERT INTO ledger.entries (transfer_id, posting_index, account_id, tenant_id,"
            " layer, currency_code, amount_minor)"
            " SELECT $1, i, a, $2, l, 'EGP', m"
            " FROM unnest($3::smallint[], $4::uuid[], $5::text[], $6::bigint[]) AS n (i, a, l, m)",
            transfer_id,
            TENANT,
            [first + index for index in range(len(rows))],
            [row[1] for row in rows],
            [row[0] for row in rows],
            [row[2] for row in rows],
        )

    async def deposit(self, amount: int) -> str:
        return await self.record(
            [("POSTED", self.clearing, -amount), ("POSTED", self.wallet, amount)]
        )

    async def hold(self, amount: int) -> str:
        rows = [("PENDING", self.wallet, -amount), ("PENDING", self.revenue, amount)]
        return await self.record(rows, phase="PENDING")

    def released(self, amount: int) -> list[Row]:
        return [("RELEASED", self.wallet, amount), ("RELEASED", self.revenue, -amount)]

    def paid(self, amount: int) -> list[Row]:
        return [("POSTED", self.wallet, -amount), ("POSTED", self.revenue, amount)]

    async def balance(self) -> tuple[int, int]:
        row = await self.connection.fetchrow(
            "SELECT posted_minor, pending_out_minor FROM ledger.accounts WHERE account_id = $1",
            self.wallet,
        )
        assert row is not None
        return row[0], row[1]


def refused(code: str) -> Any:
    """Expect a PostgreSQL error by its code."""
    return pytest.raises(asyncpg.PostgresError, check=lambda error: error.sqlstate == code)
