"""A deposit stays in its table of moves, whatever a gateway tells in whatever order."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.ledger.domain.accounts import AccountKind
from services.ledger.domain.deposits import (
    MOVES,
    Deposit,
    DepositState,
    GatewayName,
    Notification,
    PaymentStatus,
    Step,
    WebhookOutcome,
    decide_notification,
)
from tests.support.location_values import TENANT, new_id

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

notifications = st.builds(
    Notification,
    order_id=st.just("order"),
    payment_id=st.sampled_from(["TX-1", "TX-2"]),
    status=st.sampled_from(PaymentStatus),
    amount_minor=st.just(10_000),
    currency_code=st.just("EGP"),
)
# None finishes the step that is due, as the call itself or a worker does; "expire" is the sweep.
happenings = st.lists(st.one_of(notifications, st.none(), st.just("expire")), max_size=20)


def new_deposit() -> Deposit:
    return Deposit(
        deposit_id=new_id(),
        tenant_id=TENANT,
        user_id=new_id(),
        gateway=GatewayName.KASHIER,
        amount_minor=10_000,
        currency_code="EGP",
        state=DepositState.PENDING,
        step=Step.NONE,
        reference="",
        return_url="",
        body_hash=bytes(16),
        payment_id="",
        transfer_id="",
        charge_back_transfer_id="",
        version=1,
        expire_time=NOW + timedelta(hours=1),
        create_time=NOW,
        update_time=NOW,
    )


class Life:
    """Lives through what happens, and counts what moved."""

    def __init__(self) -> None:
        self.deposit = new_deposit()
        self.moved: list[Step] = []
        self.states = [DepositState.PENDING]

    def happens(self, what: Notification | str | None) -> None:
        if what is None:
            self.finish()
        elif isinstance(what, str):
            if self.deposit.state is DepositState.PENDING and self.deposit.step is Step.NONE:
                self.take(self.deposit.moved(DepositState.EXPIRED, now=NOW))
        else:
            self.hear(what)

    def hear(self, notification: Notification) -> None:
        decision = decide_notification(self.deposit, notification, NOW)
        if decision.finish_first:
            self.finish()
            decision = decide_notification(self.deposit, notification, NOW)
        if decision.outcome is WebhookOutcome.APPLIED:
            self.take(decision.deposit)
        else:
            assert decision.deposit == self.deposit

    def finish(self) -> None:
        step = self.deposit.step
        if step is Step.NONE:
            return
        self.moved.append(step)
        state = DepositState.SUCCEEDED if step is Step.CREDIT else DepositState.CHARGED_BACK
        self.take(self.deposit.moved(state, now=NOW))

    def take(self, changed: Deposit) -> None:
        if changed.state is not self.deposit.state:
            assert changed.state in MOVES[self.deposit.state]
            assert changed.version == self.deposit.version + 1
            self.states.append(changed.state)
        self.deposit = changed


@given(happenings)
def test_money_moves_at_most_once_each_way_and_states_go_forward(
    story: list[Notification | str | None],
) -> None:
    life = Life()
    for what in story:
        life.happens(what)
    life.finish()

    assert life.moved in ([], [Step.CREDIT], [Step.CREDIT, Step.CHARGE_BACK])
    in_wallet = life.moved == [Step.CREDIT]
    assert in_wallet == (life.deposit.state is DepositState.SUCCEEDED)
    assert len(set(life.states)) == len(life.states)
    told = {one.status for one in story if isinstance(one, Notification)}
    assert (PaymentStatus.CHARGED_BACK in told) == (life.deposit.state is DepositState.CHARGED_BACK)
    if PaymentStatus.SUCCEEDED in told and PaymentStatus.CHARGED_BACK not in told:
        assert in_wallet


@given(st.integers(0, 10_000))
def test_a_charge_back_balances_however_it_is_split(wallet_minor: int) -> None:
    postings = new_deposit().charge_back_postings(wallet_minor)

    amounts = {posting.key.kind: posting.amount_minor for posting in postings}
    assert sum(amounts.values()) == 0
    assert amounts.get(AccountKind.WALLET, 0) == -wallet_minor
    assert amounts[AccountKind.GATEWAY_CLEARING] == 10_000
    assert 0 not in amounts.values()
