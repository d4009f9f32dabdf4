"""Processes that end between any two steps of a deposit, and the books afterwards."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
from pydantic import SecretStr

from services.ledger import convert, deposit_messages
from services.ledger.deposit_ports import AuditLine, WebhookPost
from services.ledger.domain.accounts import AccountKey, AccountKind
from services.ledger.domain.deposits import (
    Deposit,
    GatewayName,
)
from services.ledger.domain.transfers import Transfer
from services.ledger.gateways import ConfiguredGateways
from services.ledger.operations.deposits import Deposits, NewDeposit
from services.ledger.operations.posting import Poster
from services.ledger.operations.webhook_audit import WebhookAudit
from services.ledger.operations.webhooks import Webhooks
from services.ledger.ports import NewEvent
from services.ledger.store import PostgresDepositStore, PostgresLedgerStore
from services.shared.postgres import Database
from services.stack.payment_gateways import News, Payment, PaymentAccounts, payhere_post
from tests.support.location_values import TENANT, SettableClock, new_id

ACCOUNTS = PaymentAccounts(payhere_secret="payhere-test-secret", kashier_secret="kashier-test-key")
# What happens in one life of a deposit, in the order in which it comes.
STORY = (Payment.PAID, Payment.PAID, Payment.FAILED, Payment.CHARGED_BACK, Payment.CHARGED_BACK)


class CutError(BaseException):
    """Is the end of a process: nothing catches it."""


class Cut:
    """Ends the process at the step with this number; what PostgreSQL has, it keeps."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.came = False

    def step(self) -> None:
        if self.left == 0:
            self.came = True
            raise CutError
        self.left -= 1


class CutParts:
    """Stands before a part, and cuts before and after each of its calls."""

    def __init__(self, part: Any, cut: Cut) -> None:
        self._part = part
        self._cut = cut

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._part, name)

        async def call(*arguments: Any, **values: Any) -> Any:
            self._cut.step()
            answer = await method(*arguments, **values)
            self._cut.step()
            return answer

        return call

    @asynccontextmanager
    async def held(self, tenant_id: str, deposit_id: str) -> AsyncIterator[Any]:
        self._cut.step()
        async with self._part.held(tenant_id, deposit_id) as held:
            yield _CutHeld(held, self._cut)
            # Cut before the commit: all of it is undone.
            self._cut.step()
        self._cut.step()


class _CutHeld:
    def __init__(self, held: Any, cut: Cut) -> None:
        self.deposit = held.deposit
        self._held = held
        self._cut = cut

    async def change(
        self, changed: Deposit, *, event: NewEvent | None, line: AuditLine | None
    ) -> None:
        self._cut.step()
        await self._held.change(changed, event=event, line=line)
        self._cut.step()


class Bench:
    """Holds the parts that outlive a process: the database, the poster's turn, the clock."""

    def __init__(self, database: Database, admin_dsn: str) -> None:
        self.database = database
        self.admin_dsn = admin_dsn
        self.clock = SettableClock()
        self.clock.time = datetime.now(UTC)
        self.ledger_store = PostgresLedgerStore(database, self.clock)
        self.poster = Poster(
            store=self.ledger_store,
            event_of=self._transfer_event,
            clock=self.clock,
            batch_max=100,
            waiting_max=1_000,
            committers=2,
            gather_seconds=0.0,
        )

    def process(self, cut: Cut | None = None) -> tuple[Deposits, Webhooks]:
        """Return the operations of a new process, which is cut if it is told to be."""
        store: Any = PostgresDepositStore(self.database, self.clock)
        poster: Any = self.poster
        if cut is not None:
            store, poster = CutParts(store, cut), CutParts(poster, cut)
        gateways = ConfiguredGateways(SecretStr(ACCOUNTS.setting()))
        deposits = Deposits(
            store=store,
            poster=poster,
            gateways=gateways,
            event_of=self._event,
            clock=self.clock,
            public_url="http://edge",
            usual_seconds=3_600,
            work_seconds=1.0,
        )
        audit = WebhookAudit(
            store=store,
            clock=self.clock,
            stranger_lines_per_minute=10,
            gateway_lines_per_minute=100,
            sum_seconds=10.0,
        )
        webhooks = Webhooks(
            store=store,
            deposits=deposits,
            gateways=gateways,
            audit=audit,
            event_of=self._event,
            clock=self.clock,
            ids=self,
        )
        return deposits, webhooks

    def new_id(self) -> str:
        return new_id()

    async def rows(self, query: str, *values: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.admin_dsn)
        try:
            return list(await connection.fetch(query, *values))
        finally:
            await connection.close()

    def _event(self, deposit: Deposit) -> NewEvent:
        return deposit_messages.event_of(deposit, event_id=new_id())

    def _transfer_event(self, tenant_id: str, transfer: Transfer) -> NewEvent:
        return convert.event_of(tenant_id, transfer, event_id=new_id())


def wanted(user_id: str, request_id: str) -> NewDeposit:
    return NewDeposit(
        tenant_id=TENANT,
        user_id=user_id,
        caller=f"user:{user_id}",
        gateway=GatewayName.PAYHERE,
        amount_minor=10_000,
        currency_code="LKR",
        reference="",
        return_url="",
        expire_time=None,
        request_id=request_id,
    )


def told(deposit_id: str, payment: Payment) -> WebhookPost:
    news = News(
        order_id=deposit_id,
        payment_id=f"TX-{deposit_id[:8]}",
        payment=payment,
        amount="100.00",
        currency_code="LKR",
    )
    post = payhere_post(ACCOUNTS, news)
    return WebhookPost(body=post.body, content_type=post.headers["content-type"], headers={})


async def check_books(bench: Bench, deposit_id: str, user_id: str, wallet_minor: int) -> None:
    """Check that the money is where the state says, once, and that every change was told."""
    rows = await bench.rows(
        "SELECT a.kind, sum(e.amount_minor)::bigint AS amount, count(*) AS entries"
        " FROM ledger.entries e JOIN ledger.accounts a USING (account_id)"
        " JOIN ledger.transfers t USING (transfer_id) WHERE t.reference = $1 GROUP BY 1",
        f"deposit/{deposit_id}",
    )
    moved = {row["kind"]: row["amount"] for row in rows}
    assert moved.get("WALLET", 0) == wallet_minor, moved
    assert sum(moved.values()) == 0, moved
    key = AccountKey(AccountKind.WALLET, user_id, "LKR")
    kept = await bench.rows(
        "SELECT posted_minor FROM ledger.accounts WHERE account_id = $1", key.account_id(TENANT)
    )
    assert sum(row[0] for row in kept) == wallet_minor
    events = await bench.rows(
        "SELECT aggregate_version FROM ledger.events WHERE aggregate_type = 'deposit'"
        " AND aggregate_id = $1 ORDER BY 1",
        deposit_id,
    )
    (row,) = await bench.rows("SELECT * FROM ledger.deposits WHERE deposit_id = $1", deposit_id)
    assert [one[0] for one in events] == list(range(1, row["version"] + 1))
    applied = await bench.rows(
        "SELECT status FROM ledger.payment_webhooks WHERE deposit_id = $1 AND outcome = 'APPLIED'",
        deposit_id,
    )
    assert len({one[0] for one in applied}) == len(applied), "a notification took effect twice"
