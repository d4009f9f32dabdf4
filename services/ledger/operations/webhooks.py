"""Takes the gateways' notifications: reads, verifies, compares, records, and moves what is due."""

import hashlib
from dataclasses import dataclass

import structlog
from prometheus_client import Counter

from services.ledger.deposit_errors import (
    AmountMismatchError,
    DepositCurrencyError,
    DepositUnknownError,
    GatewayNotConfiguredError,
    SignatureInvalidError,
    WebhookMalformedError,
)
from services.ledger.deposit_ports import (
    AuditLine,
    DepositStore,
    Gateways,
    PaymentTakenError,
    ReadWebhook,
    WebhookPost,
)
from services.ledger.domain.deposits import (
    Decision,
    Deposit,
    GatewayName,
    Notification,
    WebhookOutcome,
    decide_notification,
)
from services.ledger.operations.deposits import Deposits, EventOf, count_state
from services.ledger.operations.webhook_audit import WebhookAudit
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError, DomainError
from services.shared.ids import IdSource, is_uuid

_log = structlog.get_logger()
_WEBHOOKS = Counter(
    "wayfare_ledger_webhooks_total",
    "Webhooks of payment gateways by what became of them",
    ["gateway", "outcome", "reason"],
)
BODY_BYTES_MAX = 64 * 1024
_DECISIONS_MOST = 5


@dataclass(slots=True)
class _Arrival:
    """Is one webhook and what is known of it so far."""

    gateway: GatewayName
    post: WebhookPost
    notification: Notification | None = None
    deposit: Deposit | None = None
    is_verified: bool = False


class Webhooks:
    """Takes notifications, and keeps what came of each."""

    def __init__(
        self,
        *,
        store: DepositStore,
        deposits: Deposits,
        gateways: Gateways,
        audit: WebhookAudit,
        event_of: EventOf,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        """Take the parts."""
        self._store = store
        self._deposits = deposits
        self._gateways = gateways
        self._audit = audit
        self._event_of = event_of
        self._clock = clock
        self._ids = ids

    async def receive(self, name: GatewayName, post: WebhookPost) -> WebhookOutcome:
        """Take a notification and return what became of it, when all of it is done.

        Raises SignatureInvalidError, WebhookMalformedError, DepositUnknownError,
        AmountMismatchError, DepositCurrencyError, GatewayNotConfiguredError; each is kept first.
        """
        arrival = _Arrival(name, post)
        try:
            webhook = self._read(arrival)
            deposit = await self._verify(arrival, webhook)
            _compare(deposit, webhook.notification)
        except DependencyUnavailableError:
            raise
        except DomainError as error:
            await self._note(arrival, WebhookOutcome.REFUSED, error.reason)
            raise
        return await self._apply(arrival, deposit, webhook.notification)

    def _read(self, arrival: _Arrival) -> ReadWebhook:
        size = len(arrival.post.body)
        if size > BODY_BYTES_MAX:
            raise WebhookMalformedError(arrival.gateway, f"it has more than {BODY_BYTES_MAX} bytes")
        webhook = self._gateways.gateway(arrival.gateway).read(arrival.post)
        arrival.notification = webhook.notification
        return webhook

    async def _verify(self, arrival: _Arrival, webhook: ReadWebhook) -> Deposit:
        """Return the deposit of a notification that its tenant's account signed.

        Whether there is such a deposit is told to nobody but the gateway.
        """
        name, order_id = arrival.gateway, webhook.notification.order_id.lower()
        gateway = self._gateways.gateway(name)
        deposit = await self._store.find_order(order_id) if is_uuid(order_id) else None
        if deposit is None or deposit.gateway is not name:
            accounts = self._gateways.accounts(name)
            if not accounts:
                raise GatewayNotConfiguredError(name)
            if not any(gateway.is_from(webhook, account) for account in accounts):
                raise SignatureInvalidError(name)
            arrival.is_verified = True
            raise DepositUnknownError(order_id)
        account = self._gateways.account(name, deposit.tenant_id)
        if account is None:
            raise GatewayNotConfiguredError(name)
        if not gateway.is_from(webhook, account):
            raise SignatureInvalidError(name)
        arrival.is_verified, arrival.deposit = True, deposit
        return deposit

    async def _apply(
        self, arrival: _Arrival, deposit: Deposit, notification: Notification
    ) -> WebhookOutcome:
        decision = await self._decide(arrival, deposit, notification)
        attempts = 1
        while decision.finish_first and attempts < _DECISIONS_MOST:
            await self._deposits.finish(decision.deposit)
            decision = await self._decide(arrival, deposit, notification)
            attempts += 1
        if decision.finish_first:
            raise DependencyUnavailableError("ledger")
        if decision.outcome is not WebhookOutcome.APPLIED:
            if decision.reason in ("PAID_AGAIN", "AFTER_CHARGE_BACK", "PAYMENT_TAKEN"):
                # Money is at the gateway that is in no wallet: people have to look.
                _log.warning(
                    "payment_not_counted", deposit_id=deposit.deposit_id, reason=decision.reason
                )
            await self._note(arrival, decision.outcome, decision.reason)
            return decision.outcome
        _count(arrival, decision.outcome, decision.reason)
        await self._deposits.finish(decision.deposit)
        return decision.outcome

    async def _decide(
        self, arrival: _Arrival, deposit: Deposit, notification: Notification
    ) -> Decision:
        """Decide on the locked deposit; what is decided is recorded in the same transaction."""
        moved = False
        try:
            async with self._store.held(deposit.tenant_id, deposit.deposit_id) as held:
                if held is None:
                    raise DepositUnknownError(deposit.deposit_id)
                decision = decide_notification(held.deposit, notification, self._clock.now())
                if decision.outcome is WebhookOutcome.APPLIED:
                    changed = decision.deposit
                    moved = changed.version != held.deposit.version
                    await held.change(
                        changed,
                        event=self._event_of(changed) if moved else None,
                        line=self._line(arrival, decision.outcome, decision.reason),
                    )
        except PaymentTakenError:
            return Decision(
                deposit=deposit, outcome=WebhookOutcome.DUPLICATE, reason="PAYMENT_TAKEN"
            )
        if moved:
            count_state(decision.deposit)
        return decision

    async def _note(self, arrival: _Arrival, outcome: WebhookOutcome, reason: str) -> None:
        _count(arrival, outcome, reason)
        await self._audit.note(self._line(arrival, outcome, reason))

    def _line(self, arrival: _Arrival, outcome: WebhookOutcome, reason: str) -> AuditLine:
        told, deposit = arrival.notification, arrival.deposit
        order_id = told.order_id if told else ""
        return AuditLine(
            line_id=self._ids.new_id(),
            tenant_id=deposit.tenant_id if deposit else "",
            gateway=arrival.gateway,
            outcome=outcome,
            reason=reason,
            is_verified=arrival.is_verified,
            deposit_id=deposit.deposit_id if deposit else "",
            order_id=order_id if arrival.is_verified or is_uuid(order_id) else "",
            payment_id=told.payment_id if told and arrival.is_verified else "",
            status=told.status if told else None,
            amount_minor=told.amount_minor if told else None,
            currency_code=told.currency_code if told else "",
            body_hash=hashlib.sha256(arrival.post.body).digest(),
            body_bytes=len(arrival.post.body),
            webhook_count=1,
            receive_time=self._clock.now(),
        )


def _compare(deposit: Deposit, notification: Notification) -> None:
    if notification.currency_code != deposit.currency_code:
        raise DepositCurrencyError(
            deposit.gateway,
            expected=deposit.currency_code,
            received=notification.currency_code,
        )
    if notification.amount_minor != deposit.amount_minor:
        raise AmountMismatchError(
            deposit.deposit_id,
            expected_minor=deposit.amount_minor,
            received_minor=notification.amount_minor,
        )


def _count(arrival: _Arrival, outcome: WebhookOutcome, reason: str) -> None:
    _WEBHOOKS.labels(arrival.gateway, outcome, reason).inc()
