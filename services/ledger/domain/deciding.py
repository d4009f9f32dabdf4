"""Decides which of many wanted transfers are made. Pure: what is locked is passed in.

Called by operations/posting.py for one batch of one tenant, whose wallets it holds locked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from services.ledger.domain.accounts import Funds
from services.ledger.domain.sharing import refund_postings
from services.ledger.domain.transfers import (
    Entry,
    Layer,
    Phase,
    Posting,
    Transfer,
    WantedTransfer,
    amount_of,
    check_postings,
)
from services.ledger.errors import (
    AccountBlockedError,
    AmountExceedsPendingError,
    CurrencyMismatchError,
    FundsInsufficientError,
    LinkedTransferFailedError,
    PendingAlreadyResolvedError,
    PendingExpiredError,
    RefundExceedsPaymentError,
    TransferExistsDifferentlyError,
    TransferNotPendingError,
    TransferNotRefundableError,
    TransferUnknownError,
)
from services.shared.errors import DomainError


@dataclass(slots=True, kw_only=True)
class Known:
    """Is what the store has, as far as a batch concerns it. Deciding changes it.

    `funds` are the locked wallets by account id; `made` the content hashes of transfers by id;
    `targets` the transfers that others resolve or refund; `resolved` what became of pending ones;
    `refunded` what was given back of a transfer, in minor units; `foreseen` what was worked out
    before the locks, by the identity of the wanted transfer.

    Without locks `funds` may be old. PostgreSQL then refuses what was wrongly made; what was
    refused for lack of funds is right as of the reading, unless others of the batch had taken
    them: `needs_locks` says that.
    """

    now: datetime
    funds: dict[str, Funds] = field(default_factory=dict)
    made: dict[str, bytes] = field(default_factory=dict)
    targets: dict[str, Transfer] = field(default_factory=dict)
    resolved: dict[str, Phase] = field(default_factory=dict)
    refunded: dict[str, int] = field(default_factory=dict)
    foreseen: "dict[int, Outcome]" = field(default_factory=dict)
    needs_locks: bool = False


@dataclass(slots=True)
class Outcome:
    """Is what became of one wanted transfer: made now, made before (both None), or refused.

    `event` is for whoever records it.
    """

    transfer: Transfer | None = None
    entries: Sequence[Entry] = ()
    error: DomainError | None = None
    event: object = None


def foresee(wanted: WantedTransfer, now: datetime) -> Outcome | None:
    """Return what becomes of a transfer if nothing is in its way, or None if it needs another.

    Called before the locks, which are held the shorter for it.
    """
    if wanted.pending_id or wanted.refund_of:
        return None
    try:
        check_postings(wanted.postings)
    except DomainError as error:
        return Outcome(error=error)
    layer = Layer.PENDING if wanted.phase is Phase.PENDING else Layer.POSTED
    entries = [Entry(layer, one[0], one[2]) for one in wanted.postings]
    return Outcome(_transfer(wanted, wanted, wanted.postings, now), entries)


def decide(wanted: Sequence[WantedTransfer], known: Known) -> list[Outcome]:
    """Return what becomes of each, in order; chains of linked ones are made whole or not at all."""
    outcomes: list[Outcome] = []
    start = 0
    for index, transfer in enumerate(wanted):
        if transfer.linked and index + 1 < len(wanted):
            continue
        if index == start:
            outcomes.append(_decide_one(transfer, known))
        else:
            outcomes += _decide_chain(wanted[start : index + 1], known)
        start = index + 1
    return outcomes


def _decide_chain(chain: Sequence[WantedTransfer], known: Known) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for transfer in chain:
        outcome = _decide_one(transfer, known)
        if outcome.error is not None:
            for made in reversed(outcomes):
                if made.transfer is not None:
                    _undo(made, known)
            linked = LinkedTransferFailedError(transfer.transfer_id)
            return [
                Outcome(error=outcome.error if other is transfer else linked) for other in chain
            ]
        outcomes.append(outcome)
    return outcomes


def _decide_one(wanted: WantedTransfer, known: Known) -> Outcome:
    before = known.made.get(wanted.transfer_id)
    if before is not None:
        if before == wanted.body_hash:
            return Outcome()
        return Outcome(error=TransferExistsDifferentlyError(wanted.transfer_id))
    outcome = known.foreseen.get(id(wanted)) or foresee(wanted, known.now)
    try:
        if outcome is None:
            outcome = _resolve(wanted, known) if wanted.pending_id else _refund(wanted, known)
        if outcome.error is not None:
            return outcome
        changes = _changes(outcome.entries)
        _check_funds(wanted, changes, known)
    except DomainError as error:
        return Outcome(error=error)
    _do(outcome, changes, known)
    return outcome


def _transfer(
    wanted: WantedTransfer,
    about: WantedTransfer | Transfer,
    postings: Sequence[Posting],
    now: datetime,
) -> Transfer:
    """Return the transfer to record; what resolves or refunds another is about the same as it."""
    return Transfer(
        transfer_id=wanted.transfer_id,
        phase=wanted.phase,
        kind=wanted.kind or about.kind,
        currency_code=about.currency_code,
        amount_minor=amount_of(postings),
        postings=postings,
        body_hash=wanted.body_hash,
        reference=about.reference,
        pending_id=wanted.pending_id,
        refund_of=wanted.refund_of,
        expire_time=None if wanted.timeout is None else now + wanted.timeout,
        create_time=now,
        source=wanted.source,
    )


def _resolve(wanted: WantedTransfer, known: Known) -> Outcome:
    pending = _pending_of(wanted, known)
    postings = pending.postings
    entries = [Entry(Layer.RELEASED, one[0], -one[2]) for one in postings]
    if wanted.phase is Phase.POST:
        postings = wanted.postings or pending.postings
        check_postings(postings)
        _check_within(postings, pending)
        entries = [*(Entry(Layer.POSTED, one[0], one[2]) for one in postings), *entries]
    return Outcome(_transfer(wanted, pending, postings, known.now), entries)


def _pending_of(wanted: WantedTransfer, known: Known) -> Transfer:
    pending = known.targets.get(wanted.pending_id)
    if pending is None:
        raise TransferUnknownError(wanted.pending_id)
    if pending.phase is not Phase.PENDING:
        raise TransferNotPendingError(wanted.pending_id, phase=pending.phase)
    resolved = known.resolved.get(wanted.pending_id)
    if resolved is Phase.EXPIRE and pending.expire_time is not None:
        raise PendingExpiredError(wanted.pending_id, expire_time=pending.expire_time)
    if resolved is not None:
        raise PendingAlreadyResolvedError(wanted.pending_id, phase=resolved)
    is_over = pending.expire_time is not None and pending.expire_time <= known.now
    if wanted.phase is Phase.POST and is_over and pending.expire_time is not None:
        raise PendingExpiredError(wanted.pending_id, expire_time=pending.expire_time)
    if wanted.phase is Phase.EXPIRE and not is_over:
        raise TransferNotPendingError(wanted.pending_id, phase="NOT_EXPIRED")
    return pending


def _check_within(postings: Sequence[Posting], pending: Transfer) -> None:
    allowed: dict[tuple[str, bool], int] = {}
    for one in pending.postings:
        side = (one.account_id, one.amount_minor > 0)
        allowed[side] = allowed.get(side, 0) + abs(one.amount_minor)
    for one in postings:
        side = (one.account_id, one.amount_minor > 0)
        allowed[side] = allowed.get(side, 0) - abs(one.amount_minor)
    if any(left < 0 for left in allowed.values()):
        raise AmountExceedsPendingError(pending.transfer_id)


def _refund(wanted: WantedTransfer, known: Known) -> Outcome:
    paid = known.targets.get(wanted.refund_of)
    if paid is None:
        raise TransferUnknownError(wanted.refund_of)
    if paid.phase not in (Phase.POSTED, Phase.POST) or paid.refund_of:
        raise TransferNotRefundableError(
            wanted.refund_of, phase=paid.phase, transfer_kind=paid.kind
        )
    if wanted.currency_code and wanted.currency_code != paid.currency_code:
        raise CurrencyMismatchError([wanted.currency_code, paid.currency_code])
    refunded = known.refunded.get(wanted.refund_of, 0)
    amount = wanted.refund_minor or paid.amount_minor - refunded
    if amount <= 0 or refunded + amount > paid.amount_minor:
        raise RefundExceedsPaymentError(
            wanted.refund_of,
            paid_minor=paid.amount_minor,
            refunded_minor=refunded,
            requested_minor=amount,
        )
    back = refund_postings(paid.postings, refunded_minor=refunded, amount_minor=amount)
    if wanted.postings:
        # The bearer's posting, whose amount is known only now, stands for those who got the money.
        payers = [one for one in back if one.amount_minor > 0]
        back = [*payers, wanted.postings[0]._replace(amount_minor=-amount)]
    entries = [Entry(Layer.POSTED, one[0], one[2]) for one in back]
    return Outcome(_transfer(wanted, paid, back, known.now), entries)


def _check_funds(wanted: WantedTransfer, changes: Mapping[str, int], known: Known) -> None:
    """Raise when a wallet would have less than its limit, or is blocked."""
    for account_id, change in changes.items():
        funds = known.funds.get(account_id)
        if funds is None or change >= 0:
            continue
        # What was held before the block was promised.
        if funds.blocked and not (wanted.pending_id or wanted.takes_blocked):
            raise AccountBlockedError(funds.subject)
        if funds.balance_minor + change < funds.limit_minor:
            known.needs_locks |= funds.balance_minor != funds.read_minor
            raise FundsInsufficientError(
                funds.subject,
                currency_code=funds.currency_code,
                available_minor=funds.balance_minor - funds.limit_minor,
                required_minor=-change,
            )


def _changes(entries: Sequence[Entry]) -> dict[str, int]:
    """Return by how much each account's balance less pending changes.

    What is pending counts on the side that takes, and so does setting it free.
    """
    changes: dict[str, int] = {}
    for layer, account_id, amount in entries:
        if (
            layer is Layer.POSTED
            or (layer is Layer.PENDING and amount < 0)
            or (layer is Layer.RELEASED and amount > 0)
        ):
            changes[account_id] = changes.get(account_id, 0) + amount
    return changes


def _do(outcome: Outcome, changes: Mapping[str, int], known: Known) -> None:
    transfer = outcome.transfer
    if transfer is None:
        return
    _move(changes, known, sign=1)
    known.made[transfer.transfer_id] = transfer.body_hash
    if transfer.phase is Phase.PENDING:
        known.targets[transfer.transfer_id] = transfer
    if transfer.pending_id:
        known.resolved[transfer.pending_id] = transfer.phase
    if transfer.refund_of:
        refunded = known.refunded.get(transfer.refund_of, 0)
        known.refunded[transfer.refund_of] = refunded + transfer.amount_minor


def _undo(outcome: Outcome, known: Known) -> None:
    transfer = outcome.transfer
    if transfer is None:
        return
    _move(_changes(outcome.entries), known, sign=-1)
    del known.made[transfer.transfer_id]
    known.targets.pop(transfer.transfer_id, None)
    if transfer.pending_id:
        del known.resolved[transfer.pending_id]
    if transfer.refund_of:
        known.refunded[transfer.refund_of] -= transfer.amount_minor


def _move(changes: Mapping[str, int], known: Known, *, sign: int) -> None:
    for account_id, change in changes.items():
        funds = known.funds.get(account_id)
        if funds is not None:
            funds.balance_minor += sign * change
