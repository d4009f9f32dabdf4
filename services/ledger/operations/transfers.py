"""What services do with money: transfers, two phases, settlements and refunds."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from services.ledger.domain.accounts import AccountKey, AccountKind, derived_id
from services.ledger.domain.settlement import PaymentMethod, Settlement
from services.ledger.domain.transfers import (
    Phase,
    Posting,
    Transfer,
    WantedTransfer,
)
from services.ledger.errors import (
    AmountInvalidError,
    TransferExistsDifferentlyError,
    TransferUnknownError,
    TripAlreadySettledError,
)
from services.ledger.operations.posting import Poster
from services.ledger.ports import LedgerStore, Reader
from services.shared.errors import DomainError, RequestIdReusedError

_HASH_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """Is what a refund gives back: so much in minor units of a currency, or all that is left."""

    transfer_id: str
    amount_minor: int | None
    currency_code: str
    borne_by_operator: bool


class Transfers:
    """Moves money by the poster, and answers with what is recorded."""

    def __init__(self, *, store: LedgerStore, poster: Poster, driver_debt_max_minor: int) -> None:
        """Let a driver's wallet that a cash trip opens fall to minus `driver_debt_max_minor`."""
        self._store = store
        self._poster = poster
        self._driver_debt_max_minor = driver_debt_max_minor

    async def create(
        self, tenant_id: str, wanted: Sequence[WantedTransfer]
    ) -> list[DomainError | None]:
        """Make transfers; return for each why not, or None."""
        outcomes = await self._poster.post(tenant_id, wanted)
        return [outcome.error for outcome in outcomes]

    async def find(self, reader: Reader, transfer_id: str) -> Transfer:
        """Return a transfer that the reader may see. Raises TransferUnknownError."""
        found = await self._store.find_transfer(reader, transfer_id)
        if found is None or not found.postings:
            raise TransferUnknownError(transfer_id)
        return found

    async def post_pending(
        self, tenant_id: str, pending_id: str, postings: Sequence[Posting], *, request_id: str
    ) -> Transfer:
        """Post a pending transfer: these postings of it, or all."""
        wanted = _resolving(Phase.POST, tenant_id, pending_id, request_id)
        wanted.postings = postings
        wanted.body_hash = _hash("PostPending", pending_id, *map(str, postings))
        return await self._one(tenant_id, wanted, request_id)

    async def void_pending(self, tenant_id: str, pending_id: str, *, request_id: str) -> Transfer:
        """Void a pending transfer."""
        wanted = _resolving(Phase.VOID, tenant_id, pending_id, request_id)
        wanted.body_hash = _hash("VoidPending", pending_id)
        return await self._one(tenant_id, wanted, request_id)

    async def refund(self, tenant_id: str, refund: Refund, *, request_id: str) -> Transfer:
        """Give money back. Raises the errors of RefundTransfer."""
        if refund.amount_minor is not None and refund.amount_minor <= 0:
            raise AmountInvalidError(refund.amount_minor)
        currency_code = refund.currency_code
        bearer: list[Posting] = []
        if refund.borne_by_operator:
            if not currency_code:
                paid = await self.find(_everything(tenant_id), refund.transfer_id)
                currency_code = paid.currency_code
            key = AccountKey(AccountKind.REVENUE, "", currency_code)
            bearer = [Posting(key.account_id(tenant_id), key, 0)]
        wanted = WantedTransfer(
            transfer_id=derived_id("RefundTransfer", tenant_id, request_id),
            phase=Phase.POSTED,
            kind="REFUND",
            currency_code=currency_code,
            postings=bearer,
            body_hash=_hash("RefundTransfer", str(refund)),
            refund_of=refund.transfer_id,
            refund_minor=refund.amount_minor,
        )
        return await self._one(tenant_id, wanted, request_id)

    async def settle(self, settlement: Settlement) -> Transfer:
        """Settle a trip for one passenger, once. Raises the errors of SettleTrip."""
        tenant_id = settlement.tenant_id
        postings = settlement.postings()
        if not postings:
            raise AmountInvalidError(0)
        once = (settlement.trip_id, settlement.passenger_id, "PRICE")
        parts = once if settlement.price_minor else ("TIP", settlement.request_id)
        wanted = WantedTransfer(
            transfer_id=derived_id("SettleTrip", tenant_id, *parts),
            phase=Phase.POST if settlement.pending_id else Phase.POSTED,
            kind=settlement.kind,
            currency_code=settlement.currency_code,
            postings=postings,
            body_hash=_hash(settlement.kind, settlement.method, *map(str, postings)),
            reference=f"trip/{settlement.trip_id}",
            pending_id=settlement.pending_id,
        )
        limits = {}
        if settlement.method is PaymentMethod.CASH:
            limits = {postings[0].account_id: -self._driver_debt_max_minor}
        try:
            return await self._one(tenant_id, wanted, settlement.request_id, limits=limits)
        except RequestIdReusedError:
            if not settlement.price_minor:
                raise
            raise TripAlreadySettledError(
                settlement.trip_id, transfer_id=wanted.transfer_id
            ) from None

    async def _one(
        self,
        tenant_id: str,
        wanted: WantedTransfer,
        request_id: str,
        *,
        limits: dict[str, int] | None = None,
    ) -> Transfer:
        (outcome,) = await self._poster.post(tenant_id, [wanted], limits=limits)
        if isinstance(outcome.error, TransferExistsDifferentlyError):
            raise RequestIdReusedError(request_id)
        if outcome.error is not None:
            raise outcome.error
        if outcome.transfer is not None:
            return outcome.transfer
        return await self.find(_everything(tenant_id), wanted.transfer_id)


def _everything(tenant_id: str) -> Reader:
    return Reader(tenant_id=tenant_id, sees_all=True)


def _resolving(phase: Phase, tenant_id: str, pending_id: str, request_id: str) -> WantedTransfer:
    return WantedTransfer(
        transfer_id=derived_id(phase, tenant_id, request_id),
        phase=phase,
        kind="",
        currency_code="",
        postings=(),
        body_hash=b"",
        pending_id=pending_id,
    )


def _hash(*parts: str) -> bytes:
    return hashlib.sha256("\n".join(parts).encode()).digest()[:_HASH_BYTES]
