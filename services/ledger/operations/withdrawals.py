"""What people and ADMINs do with withdrawals. The worker of payouts.py goes on from there."""

import base64
import binascii
import hashlib
import json
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from prometheus_client import Counter

from services.ledger.domain.accounts import (
    AMOUNT_MINOR_MAX,
    AccountKey,
    AccountKind,
    derived_id,
)
from services.ledger.domain.transfers import Phase, Posting, WantedTransfer
from services.ledger.domain.withdrawals import (
    Decision,
    State,
    Withdrawal,
    decide,
    finished,
    held,
)
from services.ledger.errors import (
    AccountBlockedError,
    AmountInvalidError,
    FundsInsufficientError,
    PageTokenInvalidError,
    PendingAlreadyResolvedError,
)
from services.ledger.operations.posting import Poster
from services.ledger.ports import LedgerStore, Reader
from services.ledger.withdrawal_errors import WithdrawalTooSmallError, WithdrawalUnknownError
from services.ledger.withdrawal_ports import Place, WithdrawalStore
from services.shared.clock import Clock
from services.shared.errors import DomainError, RequestIdReusedError

_log = structlog.get_logger()
_MOVED = Counter("wayfare_ledger_withdrawals_total", "Withdrawals that came so far", ["state"])

KIND = "WITHDRAWAL"
PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 500
# After this a worker looks what became of a request whose process did not end it.
UNFINISHED_SECONDS = 30.0
_HASH_BYTES = 16
# Microseconds since 1970, the withdrawal's id, and the first bytes of the filters' hash.
_TOKEN = struct.Struct(">q16s8s")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalRequest:
    """Is what a person asks for, in minor units of a currency."""

    tenant_id: str
    user_id: str
    currency_code: str
    amount_minor: int
    payout_destination: str
    request_id: str

    @property
    def withdrawal_id(self) -> str:
        """Return the id of the withdrawal that this request makes."""
        return derived_id("RequestWithdrawal", self.tenant_id, self.user_id, self.request_id)

    @property
    def body_hash(self) -> bytes:
        """Return what stands for the request's body."""
        parts = [self.currency_code, str(self.amount_minor), self.payout_destination]
        return hashlib.sha256("\n".join(parts).encode()).digest()[:_HASH_BYTES]


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalPage:
    """Is one page of withdrawals."""

    withdrawals: Sequence[Withdrawal]
    next_page_token: str


class Withdrawals:
    """Moves withdrawals from state to state, and the held amounts with them."""

    def __init__(
        self,
        *,
        store: WithdrawalStore,
        ledger: LedgerStore,
        poster: Poster,
        clock: Clock,
        minimum_minor: int,
    ) -> None:
        """Pay out no less than `minimum_minor` at once."""
        self._store = store
        self._ledger = ledger
        self._poster = poster
        self._clock = clock
        self._minimum_minor = minimum_minor

    async def request(self, request: WithdrawalRequest) -> Withdrawal:
        """Hold the amount until an ADMIN decides. Raises the errors of RequestWithdrawal.

        The request is written before the amount is held: whatever ends between, a worker finds it.
        """
        known = await self._store.find(request.tenant_id, request.withdrawal_id)
        if known is None:
            known = await self._begin(request)
        if known.body_hash != request.body_hash:
            raise RequestIdReusedError(request.request_id)
        if known.state is not State.HOLDING:
            return known
        known = await self._store.begin(self._new(request))
        (outcome,) = await self._poster.post(known.tenant_id, [_hold_of(known)])
        if outcome.error is not None:
            raise outcome.error
        return await self.hold_made(known)

    async def _begin(self, request: WithdrawalRequest) -> Withdrawal:
        try:
            await self._check(request)
        except DomainError:
            # The same request may have come meanwhile: what lacks now is what it holds.
            known = await self._store.find(request.tenant_id, request.withdrawal_id)
            if known is None:
                raise
            return known
        return await self._store.begin(self._new(request))

    async def hold_made(self, withdrawal: Withdrawal) -> Withdrawal:
        """Let a withdrawal be requested, whose amount is held."""
        now = self._clock.now()
        changed = await self._store.change(
            withdrawal.tenant_id, withdrawal.withdrawal_id, lambda row, _: held(row, now)
        )
        if changed.update_time == now:
            _MOVED.labels(changed.state).inc()
        return changed

    async def decide(self, tenant_id: str, decision: Decision) -> Withdrawal:
        """Approve or reject. Raises the errors of ApproveWithdrawal and RejectWithdrawal."""
        before = await self._store.find_decided_by(tenant_id, decision.request_id)
        if before is not None and before.decide_hash != decision.body_hash:
            raise RequestIdReusedError(decision.request_id)
        now = self._clock.now()

        def change(row: Withdrawal, blocked: bool) -> Withdrawal:
            if row.state is State.HOLDING:
                raise WithdrawalUnknownError(row.withdrawal_id)
            return decide(row, decision, wallet_blocked=blocked, now=now)

        changed = await self._store.change(tenant_id, decision.withdrawal_id, change)
        if changed.state is State.APPROVED and changed.update_time == now:
            _MOVED.labels(changed.state).inc()
        return await self.finish(changed)

    async def finish(self, withdrawal: Withdrawal) -> Withdrawal:
        """Let the held amount follow the outcome, if there is one, and the state follow that."""
        outcome = withdrawal.outcome
        if outcome is None or outcome is withdrawal.state:
            return withdrawal
        phase = Phase.POST if outcome is State.PAID else Phase.VOID
        (resolved,) = await self._poster.post(
            withdrawal.tenant_id, [_resolution(withdrawal, phase)]
        )
        error = resolved.error
        if isinstance(error, PendingAlreadyResolvedError) and error.metadata["phase"] == phase:
            error = None
        if error is not None:
            _log.error(
                "withdrawal_is_stuck", withdrawal_id=withdrawal.withdrawal_id, reason=error.reason
            )
            raise error
        now = self._clock.now()
        changed = await self._store.change(
            withdrawal.tenant_id, withdrawal.withdrawal_id, lambda row, _: finished(row, now)
        )
        if changed.update_time == now:
            _MOVED.labels(changed.state).inc()
        return changed

    async def page(
        self,
        reader: Reader,
        *,
        user_id: str,
        state: State | None,
        page_size: int,
        page_token: str,
    ) -> WithdrawalPage:
        """Return a page, newest first. Raises PageTokenInvalidError."""
        size = min(page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
        filters = _filter_hash(reader.tenant_id, user_id, state or "")
        found = await self._store.page(
            reader,
            user_id=user_id,
            state=state,
            after=_read_token(page_token, filters) if page_token else None,
            most=size + 1,
        )
        more = len(found) > size
        token = _write_token(found[size - 1], filters) if more else ""
        return WithdrawalPage(withdrawals=found[:size], next_page_token=token)

    async def _check(self, request: WithdrawalRequest) -> None:
        """Refuse what needs no row: the hold itself decides again, and for certain."""
        if not 0 < request.amount_minor <= AMOUNT_MINOR_MAX:
            raise AmountInvalidError(request.amount_minor)
        if request.amount_minor < self._minimum_minor:
            raise WithdrawalTooSmallError(request.amount_minor, minimum_minor=self._minimum_minor)
        reader = Reader(tenant_id=request.tenant_id, user_id=request.user_id)
        wallets = await self._ledger.wallets(reader, request.user_id)
        wallet = next(
            (one for one in wallets if one.key.currency_code == request.currency_code), None
        )
        if wallet is not None and wallet.blocked:
            raise AccountBlockedError(request.user_id)
        available = (wallet.available_minor or 0) if wallet else 0
        if available < request.amount_minor:
            raise FundsInsufficientError(
                request.user_id,
                currency_code=request.currency_code,
                available_minor=available,
                required_minor=request.amount_minor,
            )

    def _new(self, request: WithdrawalRequest) -> Withdrawal:
        now = self._clock.now()
        return Withdrawal(
            withdrawal_id=request.withdrawal_id,
            tenant_id=request.tenant_id,
            user_id=request.user_id,
            currency_code=request.currency_code,
            amount_minor=request.amount_minor,
            payout_destination=request.payout_destination,
            transfer_id=derived_id("WithdrawalHold", request.tenant_id, request.withdrawal_id),
            body_hash=request.body_hash,
            create_time=now,
            update_time=now,
            next_time=now + timedelta(seconds=UNFINISHED_SECONDS),
        )


def _hold_of(withdrawal: Withdrawal) -> WantedTransfer:
    code, amount = withdrawal.currency_code, withdrawal.amount_minor
    wallet = AccountKey(AccountKind.WALLET, withdrawal.user_id, code)
    target = AccountKey(AccountKind.WITHDRAWALS, "", code)
    return WantedTransfer(
        transfer_id=withdrawal.transfer_id,
        phase=Phase.PENDING,
        kind=KIND,
        currency_code=code,
        postings=[
            Posting(wallet.account_id(withdrawal.tenant_id), wallet, -amount),
            Posting(target.account_id(withdrawal.tenant_id), target, amount),
        ],
        body_hash=withdrawal.body_hash,
        reference=f"withdrawal/{withdrawal.withdrawal_id}",
    )


def _resolution(withdrawal: Withdrawal, phase: Phase) -> WantedTransfer:
    return WantedTransfer(
        transfer_id=derived_id(
            f"Withdrawal{phase}", withdrawal.tenant_id, withdrawal.withdrawal_id
        ),
        phase=phase,
        kind="",
        currency_code="",
        postings=(),
        body_hash=withdrawal.body_hash,
        pending_id=withdrawal.transfer_id,
    )


def _filter_hash(*filters: str) -> bytes:
    return hashlib.sha256(json.dumps(filters).encode()).digest()[:8]


def _write_token(last: Withdrawal, filters: bytes) -> str:
    microseconds = (last.create_time - _EPOCH) // timedelta(microseconds=1)
    packed = _TOKEN.pack(microseconds, uuid.UUID(last.withdrawal_id).bytes, filters)
    return base64.urlsafe_b64encode(packed).decode()


def _read_token(text: str, filters: bytes) -> Place:
    try:
        packed = base64.b64decode(text, altchars=b"-_", validate=True)
        microseconds, withdrawal_id, bound = _TOKEN.unpack(packed)
        create_time = _EPOCH + timedelta(microseconds=microseconds)
    except (binascii.Error, ValueError, struct.error, OverflowError) as error:
        raise PageTokenInvalidError from error
    if bound != filters:
        raise PageTokenInvalidError
    return Place(create_time, str(uuid.UUID(bytes=withdrawal_id)))
