"""How a withdrawal goes on: the table of moves, decisions and the provider's last word."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.ledger.domain.withdrawals import (
    MOVES,
    REASON_MAX,
    Decision,
    State,
    Withdrawal,
    answered,
    decide,
    finished,
    held,
    move,
)
from services.ledger.withdrawal_errors import WithdrawalAlreadyDecidedError
from services.ledger.withdrawal_messages import withdrawal_message
from services.shared.errors import DomainError
from tests.support.location_values import TENANT, new_id
from wayfare.ledger.v1 import withdrawal_pb2

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 26, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
USER, ADMIN, OTHER_ADMIN = new_id(), new_id(), new_id()


def withdrawal(state: State, outcome: State | None = None) -> Withdrawal:
    undecided = state in (State.HOLDING, State.REQUESTED) and outcome is None
    return Withdrawal(
        withdrawal_id=new_id(),
        tenant_id=TENANT,
        user_id=USER,
        currency_code="EGP",
        amount_minor=3_000,
        payout_destination="bank",
        transfer_id=new_id(),
        body_hash=bytes(16),
        create_time=NOW,
        update_time=NOW,
        state=state,
        outcome=outcome,
        decided_by="" if undecided else ADMIN,
        version=1,
    )


def decision(about: Withdrawal, state: State, admin_id: str = OTHER_ADMIN) -> Decision:
    return Decision(
        state=state,
        withdrawal_id=about.withdrawal_id,
        admin_id=admin_id,
        role="ADMIN",
        request_id=new_id(),
        reason="no papers" if state is State.REJECTED else "",
    )


def reason_of(about: Withdrawal, wanted: Decision, *, blocked: bool = False) -> str:
    try:
        decide(about, wanted, wallet_blocked=blocked, now=LATER)
    except DomainError as error:
        return error.reason
    return ""


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_only_the_moves_of_the_table_are_made(before: State, after: State) -> None:
    about = withdrawal(before)

    if after in MOVES[before]:
        assert move(about, after, LATER).version == 2
    else:
        with pytest.raises(WithdrawalAlreadyDecidedError):
            move(about, after, LATER)


@pytest.mark.parametrize(
    ("state", "outcome", "approve", "reject"),
    [
        (State.REQUESTED, None, "", ""),
        (State.REQUESTED, State.REJECTED, "WITHDRAWAL_ALREADY_DECIDED", ""),
        (State.REJECTED, State.REJECTED, "WITHDRAWAL_ALREADY_DECIDED", ""),
        (State.APPROVED, None, "", "WITHDRAWAL_ALREADY_DECIDED"),
        (State.APPROVED, State.PAID, "WITHDRAWAL_ALREADY_DECIDED", "WITHDRAWAL_ALREADY_DECIDED"),
        (State.PAID, State.PAID, "WITHDRAWAL_ALREADY_DECIDED", "WITHDRAWAL_ALREADY_DECIDED"),
        (State.FAILED, State.FAILED, "WITHDRAWAL_ALREADY_DECIDED", "WITHDRAWAL_ALREADY_DECIDED"),
    ],
)
def test_a_decision_stands(state: State, outcome: State | None, approve: str, reject: str) -> None:
    about = withdrawal(state, outcome)

    reasons = [reason_of(about, decision(about, one)) for one in (State.APPROVED, State.REJECTED)]

    assert reasons == [approve, reject]


def test_a_repeated_decision_changes_nothing_and_another_one_of_its_key_is_refused() -> None:
    about = withdrawal(State.REQUESTED)
    wanted = decision(about, State.APPROVED)

    approved = decide(about, wanted, wallet_blocked=False, now=LATER)
    paid = finished(replace(approved, outcome=State.PAID), LATER)

    assert decide(paid, wanted, wallet_blocked=True, now=LATER) == paid
    other = replace(wanted, state=State.REJECTED)
    assert reason_of(paid, other) == "REQUEST_ID_REUSED"


def test_a_blocked_wallet_is_rejected_but_not_approved() -> None:
    about = withdrawal(State.REQUESTED)

    assert reason_of(about, decision(about, State.APPROVED), blocked=True) == "ACCOUNT_BLOCKED"
    assert reason_of(about, decision(about, State.REJECTED), blocked=True) == ""


def test_a_rejection_is_told_when_the_amount_is_free() -> None:
    about = withdrawal(State.REQUESTED)

    rejected = decide(about, decision(about, State.REJECTED), wallet_blocked=False, now=LATER)

    message = withdrawal_message(rejected)
    assert (message.state, message.reason, message.decided_by_user_id) == (
        withdrawal_pb2.WITHDRAWAL_STATE_REQUESTED,
        "",
        "",
    )
    assert withdrawal_message(finished(rejected, LATER)).reason == "no papers"


def test_the_first_last_word_of_a_provider_stands() -> None:
    about = withdrawal(State.APPROVED)

    def say(before: Withdrawal, outcome: State | None, reason: str = "") -> Withdrawal:
        return answered(before, payout_id="po-1", outcome=outcome, reason=reason, next_time=LATER)

    paid = say(say(about, None), State.PAID)

    assert say(paid, State.FAILED, "closed") == paid
    assert len(say(about, State.FAILED, "x" * 1_000).reason) == REASON_MAX


def test_what_is_held_is_requested_once() -> None:
    requested = held(withdrawal(State.HOLDING), LATER)

    assert requested.state is State.REQUESTED
    assert held(requested, LATER + timedelta(1)) == requested
