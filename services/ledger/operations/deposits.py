"""Creates deposits, and moves their money: what webhooks made due, and what ran out of time."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter, Gauge

from services.ledger.deposit_errors import (
    DepositAmountError,
    DepositCurrencyError,
    DepositUnknownError,
    GatewayNotConfiguredError,
)
from services.ledger.deposit_ports import (
    Checkout,
    DepositStore,
    GatewayAccount,
    Gateways,
    Order,
    PaymentGateway,
)
from services.ledger.domain.accounts import derived_id
from services.ledger.domain.deposits import Deposit, DepositState, GatewayName, Step
from services.ledger.domain.transfers import Phase, Posting, WantedTransfer
from services.ledger.errors import FundsInsufficientError
from services.ledger.operations.posting import Poster
from services.ledger.ports import NewEvent, Reader
from services.shared.clock import Clock
from services.shared.errors import (
    DependencyUnavailableError,
    FieldViolation,
    OverloadedError,
    RequestIdReusedError,
    RequestInvalidError,
)

_log = structlog.get_logger()
_STATES = Counter("wayfare_ledger_deposits_total", "Deposits by state", ["gateway", "state"])
_UNFINISHED = Gauge("wayfare_ledger_deposits_unfinished", "Deposits whose money is due to move")
_SPLITS_MOST = 5
_WORK_MOST = 200
_HASH_BYTES = 16
_EXPIRE_DAYS_MOST = 30
# The call that made a step due is given this long before a worker takes it over.
_PATIENCE = timedelta(seconds=2)

EventOf = Callable[[Deposit], NewEvent]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDeposit:
    """Is what somebody asks for. `caller` names who asks, `expire_time` None is the usual time."""

    tenant_id: str
    user_id: str
    caller: str
    gateway: GatewayName
    amount_minor: int
    currency_code: str
    reference: str
    return_url: str
    expire_time: datetime | None
    request_id: str

    def body_hash(self) -> bytes:
        """Return the hash of what a repeated request must have in common with the first."""
        parts = (
            self.user_id,
            self.gateway,
            str(self.amount_minor),
            self.currency_code,
            self.reference,
            self.return_url,
            self.expire_time.isoformat() if self.expire_time else "",
        )
        return hashlib.sha256("\n".join(parts).encode()).digest()[:_HASH_BYTES]


class Deposits:
    """Keeps deposits; money moves by the poster alone."""

    def __init__(
        self,
        *,
        store: DepositStore,
        poster: Poster,
        gateways: Gateways,
        event_of: EventOf,
        clock: Clock,
        public_url: str,
        usual_seconds: int,
        work_seconds: float,
    ) -> None:
        """Take the parts.

        `public_url` is where gateways and people reach the edge. A deposit is waited for during
        `usual_seconds` unless somebody says otherwise. Work that was left is looked for every
        `work_seconds`.
        """
        self._store = store
        self._poster = poster
        self._gateways = gateways
        self._event_of = event_of
        self._clock = clock
        self._public_url = public_url.rstrip("/")
        self._usual_time = timedelta(seconds=usual_seconds)
        self._work_seconds = work_seconds

    async def create(self, wanted: NewDeposit) -> tuple[Deposit, Checkout]:
        """Create a deposit, or find the one of the same request; return how to pay it.

        Raises GatewayNotConfiguredError, DepositCurrencyError, DepositAmountError,
        RequestInvalidError, RequestIdReusedError.
        """
        account = self._gateways.account(wanted.gateway, wanted.tenant_id)
        if account is None:
            raise GatewayNotConfiguredError(wanted.gateway)
        gateway = self._gateways.gateway(wanted.gateway)
        new = self._new(wanted)
        kept = await self._store.find(_everything(new.tenant_id), new.deposit_id)
        if kept is None:
            _check(wanted, gateway, account)
            _check_expiry(wanted.expire_time, new.create_time)
            kept = await self._store.create(new, self._event_of(new))
        if kept.body_hash != new.body_hash:
            raise RequestIdReusedError(wanted.request_id)
        return kept, gateway.checkout(self._order(kept, account), account)

    async def find(self, reader: Reader, deposit_id: str) -> Deposit:
        """Return a deposit that the reader may see. Raises DepositUnknownError."""
        found = await self._store.find(reader, deposit_id)
        if found is None:
            raise DepositUnknownError(deposit_id)
        return found

    async def finish(self, deposit: Deposit) -> None:
        """Move the money that is due, and say so; whoever else does it too does it once."""
        if deposit.step is Step.CREDIT:
            await self._credit(deposit)
        elif deposit.step is Step.CHARGE_BACK:
            await self._charge_back(deposit)
        else:
            return
        await self._finished(deposit)

    async def work_forever(self) -> None:
        """Finish what was cut off, and let deposits expire, until cancelled."""
        while True:
            await asyncio.sleep(self._work_seconds)
            try:
                await self.finish_left()
                await self.expire()
            except (DependencyUnavailableError, OverloadedError) as error:
                _log.warning("deposits_wait", error=error.reason)

    async def finish_left(self) -> int:
        """Finish what was due for longer than a call takes; return how many were found."""
        before = self._clock.now() - _PATIENCE
        left = await self._store.unfinished(before=before, most=_WORK_MOST)
        _UNFINISHED.set(len(left))
        for deposit in left:
            try:
                await self.finish(deposit)
            except (DependencyUnavailableError, OverloadedError):
                raise
            except Exception as error:  # noqa: BLE001 - must not hold up the others
                _log.error("deposit_not_finished", deposit_id=deposit.deposit_id, exc_info=error)
        return len(left)

    async def expire(self) -> int:
        """Let deposits expire that were not paid in time; return how many were found."""
        found = await self._store.overdue(now=self._clock.now(), most=_WORK_MOST)
        for tenant_id, deposit_id in found:
            async with self._store.held(tenant_id, deposit_id) as held:
                if held is None or not _may_expire(held.deposit):
                    continue
                expired = held.deposit.moved(DepositState.EXPIRED, now=self._clock.now())
                await held.change(expired, event=self._event_of(expired), line=None)
                count_state(expired)
        return len(found)

    def _new(self, wanted: NewDeposit) -> Deposit:
        now = self._clock.now()
        return Deposit(
            deposit_id=derived_id(
                "CreateDeposit", wanted.tenant_id, wanted.caller, wanted.request_id
            ),
            tenant_id=wanted.tenant_id,
            user_id=wanted.user_id,
            gateway=wanted.gateway,
            amount_minor=wanted.amount_minor,
            currency_code=wanted.currency_code,
            state=DepositState.PENDING,
            step=Step.NONE,
            reference=wanted.reference,
            return_url=wanted.return_url,
            body_hash=wanted.body_hash(),
            payment_id="",
            transfer_id="",
            charge_back_transfer_id="",
            version=1,
            expire_time=wanted.expire_time or now + self._usual_time,
            create_time=now,
            update_time=now,
        )

    def _order(self, deposit: Deposit, account: GatewayAccount) -> Order:
        return Order(
            order_id=deposit.deposit_id,
            amount_minor=deposit.amount_minor,
            currency_code=deposit.currency_code,
            return_url=deposit.return_url or account.return_url or f"{self._public_url}/app/",
            webhook_url=f"{self._public_url}/v1/webhooks/{deposit.gateway.lower()}",
        )

    async def _credit(self, deposit: Deposit) -> None:
        await self._post(
            deposit, deposit.credit_transfer_id(), "DEPOSIT", deposit.credit_postings()
        )

    async def _charge_back(self, deposit: Deposit) -> None:
        """Take from the wallet what it has; what it does not have the operator bears.

        However the amount is split, it is the same transfer: it is made once.
        """
        wallet_minor = deposit.amount_minor
        for _ in range(_SPLITS_MOST):
            try:
                return await self._post_back(deposit, wallet_minor)
            except FundsInsufficientError as error:
                # Somebody may spend meanwhile; then there is less the next time.
                wallet_minor = min(max(0, error.available_minor), wallet_minor - 1)
        return await self._post_back(deposit, 0)

    async def _post_back(self, deposit: Deposit, wallet_minor: int) -> None:
        postings = deposit.charge_back_postings(wallet_minor)
        await self._post(deposit, deposit.charge_back_id(), "CHARGE_BACK", postings)

    async def _post(
        self, deposit: Deposit, transfer_id: str, kind: str, postings: list[Posting]
    ) -> None:
        wanted = WantedTransfer(
            transfer_id=transfer_id,
            phase=Phase.POSTED,
            kind=kind,
            currency_code=deposit.currency_code,
            postings=postings,
            body_hash=hashlib.sha256(transfer_id.encode()).digest()[:_HASH_BYTES],
            reference=f"deposit/{deposit.deposit_id}",
            takes_blocked=True,
        )
        (outcome,) = await self._poster.post(deposit.tenant_id, [wanted])
        if outcome.error is not None:
            raise outcome.error

    async def _finished(self, deposit: Deposit) -> None:
        async with self._store.held(deposit.tenant_id, deposit.deposit_id) as held:
            if held is None or held.deposit.step is not deposit.step:
                return
            now = self._clock.now()
            if deposit.step is Step.CREDIT:
                changed = replace(
                    held.deposit.moved(DepositState.SUCCEEDED, now=now),
                    transfer_id=deposit.credit_transfer_id(),
                )
            else:
                changed = replace(
                    held.deposit.moved(DepositState.CHARGED_BACK, now=now),
                    charge_back_transfer_id=deposit.charge_back_id(),
                )
            await held.change(changed, event=self._event_of(changed), line=None)
        count_state(changed)


def count_state(deposit: Deposit) -> None:
    """Count a change of state for operators."""
    _STATES.labels(deposit.gateway, deposit.state).inc()


def _may_expire(deposit: Deposit) -> bool:
    return deposit.state is DepositState.PENDING and deposit.step is Step.NONE


def _check(wanted: NewDeposit, gateway: PaymentGateway, account: GatewayAccount) -> None:
    if wanted.currency_code != gateway.currency_code:
        raise DepositCurrencyError(
            gateway.name, expected=gateway.currency_code, received=wanted.currency_code
        )
    if not account.minimum_minor <= wanted.amount_minor <= account.maximum_minor:
        raise DepositAmountError(
            wanted.amount_minor,
            minimum_minor=account.minimum_minor,
            maximum_minor=account.maximum_minor,
        )


def _check_expiry(expire_time: datetime | None, now: datetime) -> None:
    if expire_time is None or now < expire_time <= now + timedelta(days=_EXPIRE_DAYS_MOST):
        return
    message = f"expire_time is not within the next {_EXPIRE_DAYS_MOST} days"
    raise RequestInvalidError(
        message, fields=[FieldViolation(field="expire_time", description=message)]
    )


def _everything(tenant_id: str) -> Reader:
    return Reader(tenant_id=tenant_id, sees_all=True)
