"""What a withdrawal is and how it may go on. Pure.

The store calls one of these functions with the row locked, and writes what it returns.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from services.ledger.errors import AccountBlockedError
from services.ledger.withdrawal_errors import (
    OwnWithdrawalError,
    WithdrawalAlreadyDecidedError,
)
from services.shared.errors import RequestIdReusedError

_HASH_BYTES = 16
REASON_MAX = 256


class State(StrEnum):
    """How far a withdrawal is. HOLDING is ours alone: it is not known yet whether it holds."""

    HOLDING = "HOLDING"
    REQUESTED = "REQUESTED"
    APPROVED = "APPROVED"
    PAID = "PAID"
    REJECTED = "REJECTED"
    FAILED = "FAILED"


# Who moves where. Everything else is refused here and by PostgreSQL.
MOVES = {
    State.HOLDING: {State.REQUESTED},
    State.REQUESTED: {State.APPROVED, State.REJECTED},
    State.APPROVED: {State.PAID, State.FAILED},
    State.PAID: set[State](),
    State.REJECTED: set[State](),
    State.FAILED: set[State](),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """Is a withdrawal as it is kept; amounts in minor units.

    `outcome` is what will become of it for certain: the held amount follows, then the state.
    `submit_time` is when the provider may have heard of it first. `attempt_count` grows with every
    claim of a worker, so that one whose claim was lost notices. `next_time` is when a worker has
    something to do, if one has. `version` counts what was told.
    """

    withdrawal_id: str
    tenant_id: str
    user_id: str
    currency_code: str
    amount_minor: int
    payout_destination: str
    transfer_id: str
    body_hash: bytes
    create_time: datetime
    update_time: datetime
    state: State = State.HOLDING
    outcome: State | None = None
    reason: str = ""
    decided_by: str = ""
    decide_request_id: str = ""
    decide_hash: bytes = b""
    payout_id: str = ""
    submit_time: datetime | None = None
    attempt_count: int = 0
    next_time: datetime | None = None
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Is what an ADMIN decides: REJECTED for a `reason`, or APPROVED."""

    state: State
    withdrawal_id: str
    admin_id: str
    role: str
    request_id: str
    reason: str = ""

    @property
    def body_hash(self) -> bytes:
        """Return what stands for the request's body."""
        text = f"{self.state}\n{self.withdrawal_id}\n{self.reason}"
        return hashlib.sha256(text.encode()).digest()[:_HASH_BYTES]


class ClaimLostError(Exception):
    """Says that another worker took the withdrawal over; whatever this one knows, it asks anew."""


def move(withdrawal: Withdrawal, state: State, now: datetime) -> Withdrawal:
    """Return the withdrawal one move on. Raises WithdrawalAlreadyDecidedError for no such move."""
    if state not in MOVES[withdrawal.state]:
        raise WithdrawalAlreadyDecidedError(
            withdrawal.withdrawal_id, state=withdrawal.outcome or withdrawal.state
        )
    return replace(withdrawal, state=state, version=withdrawal.version + 1, update_time=now)


def held(withdrawal: Withdrawal, now: datetime) -> Withdrawal:
    """Return it as requested, now that its amount is held."""
    if withdrawal.state is not State.HOLDING:
        return withdrawal
    return replace(move(withdrawal, State.REQUESTED, now), next_time=None)


def decide(
    withdrawal: Withdrawal, decision: Decision, *, wallet_blocked: bool, now: datetime
) -> Withdrawal:
    """Return it as an ADMIN decided; unchanged if the same was decided before.

    Raises RequestIdReusedError, OwnWithdrawalError, AccountBlockedError,
    WithdrawalAlreadyDecidedError.
    """
    if withdrawal.decide_request_id == decision.request_id:
        if withdrawal.decide_hash != decision.body_hash:
            raise RequestIdReusedError(decision.request_id)
        return withdrawal
    approves = decision.state is State.APPROVED
    if withdrawal.state is State.APPROVED and withdrawal.outcome is None and approves:
        return withdrawal
    if withdrawal.outcome is State.REJECTED and not approves:
        return withdrawal
    if withdrawal.state is not State.REQUESTED or withdrawal.outcome is not None:
        raise WithdrawalAlreadyDecidedError(
            withdrawal.withdrawal_id, state=withdrawal.outcome or withdrawal.state
        )
    if decision.admin_id == withdrawal.user_id:
        raise OwnWithdrawalError(withdrawal.withdrawal_id, role=decision.role)
    if approves and wallet_blocked:
        raise AccountBlockedError(withdrawal.user_id)
    decided = replace(
        withdrawal,
        decided_by=decision.admin_id,
        decide_request_id=decision.request_id,
        decide_hash=decision.body_hash,
        next_time=now,
        attempt_count=0,
    )
    if approves:
        return move(decided, State.APPROVED, now)
    # The state follows when the amount is free, so that nobody reads REJECTED before.
    return replace(decided, outcome=State.REJECTED, reason=decision.reason)


def submitted(withdrawal: Withdrawal, now: datetime) -> Withdrawal:
    """Return it as one that the provider may have heard of from now on."""
    return replace(withdrawal, submit_time=now)


def answered(
    withdrawal: Withdrawal,
    *,
    payout_id: str,
    outcome: State | None,
    reason: str,
    next_time: datetime,
) -> Withdrawal:
    """Return it with what the provider said; the first final word stands."""
    if withdrawal.outcome is not None:
        return withdrawal
    return replace(
        withdrawal,
        payout_id=payout_id or withdrawal.payout_id,
        outcome=outcome,
        reason=reason[:REASON_MAX],
        next_time=next_time,
    )


def finished(withdrawal: Withdrawal, now: datetime) -> Withdrawal:
    """Return it in the state of its outcome, now that the held amount followed."""
    if withdrawal.outcome is None or withdrawal.state is withdrawal.outcome:
        return withdrawal
    return replace(move(withdrawal, withdrawal.outcome, now), next_time=None)
