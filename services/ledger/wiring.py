"""Puts the areas of LedgerService together, one function each. Called by app.py."""

from contextlib import AsyncExitStack

import structlog

from services.ledger import deposit_messages, fraud_messages, withdrawal_messages
from services.ledger.domain.deposits import Deposit
from services.ledger.domain.fraud import Flag
from services.ledger.domain.withdrawals import Withdrawal
from services.ledger.gateways import ConfiguredGateways
from services.ledger.operations.deposits import Deposits
from services.ledger.operations.fraud import FraudWatch
from services.ledger.operations.payouts import Payouts
from services.ledger.operations.posting import Poster
from services.ledger.operations.webhook_audit import WebhookAudit
from services.ledger.operations.webhooks import Webhooks
from services.ledger.operations.withdrawals import Withdrawals
from services.ledger.payout_gateway import DemoPayoutProvider, HttpPayoutProvider
from services.ledger.ports import NewEvent
from services.ledger.settings import LedgerSettings
from services.ledger.store import PostgresDepositStore, PostgresLedgerStore
from services.ledger.store.fraud import PostgresFraudStore
from services.ledger.store.withdrawals import PostgresWithdrawalStore
from services.ledger.withdrawal_ports import PayoutProvider
from services.shared.clock import Clock
from services.shared.ids import IdSource
from services.shared.postgres import Database

_log = structlog.get_logger()


def deposit_rooms(
    settings: LedgerSettings,
    database: Database,
    poster: Poster,
    clock: Clock,
    ids: IdSource,
) -> tuple[Deposits, Webhooks, WebhookAudit]:
    """Return the parts that deposits and webhooks need."""

    def event_of(deposit: Deposit) -> NewEvent:
        return deposit_messages.event_of(deposit, event_id=ids.new_id())

    store = PostgresDepositStore(database, clock)
    gateways = ConfiguredGateways(settings.ledger_payment_gateways)
    deposits = Deposits(
        store=store,
        poster=poster,
        gateways=gateways,
        event_of=event_of,
        clock=clock,
        public_url=settings.ledger_public_url,
        usual_seconds=settings.ledger_deposit_seconds,
        work_seconds=settings.ledger_deposit_work_seconds,
    )
    audit = WebhookAudit(
        store=store,
        clock=clock,
        stranger_lines_per_minute=settings.ledger_webhook_stranger_lines,
        gateway_lines_per_minute=settings.ledger_webhook_gateway_lines,
        sum_seconds=settings.ledger_webhook_sum_seconds,
    )
    webhooks = Webhooks(
        store=store,
        deposits=deposits,
        gateways=gateways,
        audit=audit,
        event_of=event_of,
        clock=clock,
        ids=ids,
    )
    return deposits, webhooks, audit


async def withdrawal_rooms(
    stack: AsyncExitStack,
    settings: LedgerSettings,
    *,
    database: Database,
    ledger: PostgresLedgerStore,
    poster: Poster,
    clock: Clock,
    ids: IdSource,
) -> tuple[Withdrawals, Payouts]:
    """Return the parts that withdrawals need: what people ask for, and who pays it out."""

    def event_of(withdrawal: Withdrawal) -> NewEvent:
        return withdrawal_messages.event_of(withdrawal, event_id=ids.new_id())

    store = PostgresWithdrawalStore(database, event_of)
    withdrawals = Withdrawals(
        store=store,
        ledger=ledger,
        poster=poster,
        clock=clock,
        minimum_minor=settings.ledger_withdrawal_min_minor,
    )
    payouts = Payouts(
        withdrawals=withdrawals,
        store=store,
        provider=await _payout_provider(stack, settings),
        clock=clock,
        idle_seconds=settings.ledger_payout_idle_seconds,
        first_retry_seconds=settings.ledger_payout_retry_seconds,
        lease_seconds=settings.ledger_payout_lease_seconds,
    )
    return withdrawals, payouts


async def _payout_provider(
    stack: AsyncExitStack, settings: LedgerSettings
) -> PayoutProvider | None:
    if settings.ledger_payout_provider == "http":
        return await stack.enter_async_context(
            HttpPayoutProvider(
                url=settings.ledger_payout_url,
                secret=settings.ledger_payout_secret.get_secret_value(),
                timeout_seconds=settings.ledger_payout_timeout_seconds,
            )
        )
    if settings.ledger_payout_provider == "demo":
        _log.warning("payouts_are_a_demonstration", effect="PAID is said and nothing is paid")
        return DemoPayoutProvider()
    _log.warning("payouts_are_not_configured", effect="approved withdrawals stay APPROVED")
    return None


def fraud_watch(settings: LedgerSettings, database: Database, ids: IdSource) -> FraudWatch:
    """Return what reads the events and raises flags."""

    def event_of(flag: Flag) -> NewEvent:
        return fraud_messages.event_of(flag, event_id=ids.new_id())

    return FraudWatch(
        store=PostgresFraudStore(database),
        movements_of=fraud_messages.movements_of,
        event_of=event_of,
        rest_seconds=settings.ledger_fraud_seconds,
    )
