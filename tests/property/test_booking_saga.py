"""Whatever happens to a booking in whatever order: seats or money back, never neither or both.

The machine plays ledger, gateway, seats and several slow processes against the table of moves, with
crashes between any two steps: an answer of the ledger may be lost, come late, or come twice.
"""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from services.booking.domain.booking import (
    MOVES,
    BookingState,
    Happening,
    Move,
    PaymentState,
    Saga,
    SeatWish,
    Step,
    advance,
    begin,
    cancel,
    sells_at_once,
)
from services.booking.domain.trips import PaymentMethod

pytestmark = pytest.mark.unit
_PRICE = 1_000


class World:
    """Is what exists outside of the booking's row: money, and who has the seats."""

    def __init__(self, wallet: int) -> None:
        self.wallet = wallet
        self.revenue = 0
        self.cash = 0
        self.pending: dict[int, str] = {}  # attempt → OPEN, POSTED, VOIDED, EXPIRED
        self.refunded = 0
        self.has_seats = True
        self.seats_gone = False
        self.deposited = False


class BookingMachine(RuleBasedStateMachine):
    """Takes steps of the saga in any order that processes, crashes and delays allow."""

    @initialize(
        method=st.sampled_from(PaymentMethod),
        wallet=st.sampled_from([0, _PRICE, 5 * _PRICE]),
        price=st.sampled_from([0, _PRICE]),
    )
    def start(self, method: PaymentMethod, wallet: int, price: int) -> None:
        self.world = World(wallet)
        self.started_with = wallet
        self.lost: list[Happening] = []
        self.saga = begin(method, price)
        if sells_at_once(method, price):
            self._take(advance(self.saga, Happening.SEATED))

    def _take(self, move: Move | None) -> None:
        if move is None:
            return
        if move.saga.state is not self.saga.state:
            assert move.saga.state in MOVES[self.saga.state]
        self.saga = move.saga
        if move.seats is SeatWish.FREE:
            self.world.has_seats = False

    def _tell(self, happening: Happening) -> None:
        """Tell the row what happened; seats are decided in the same transaction."""
        move = advance(self.saga, happening)
        if move is None or move.seats is not SeatWish.TAKE:
            self._take(move)
            return
        if self.saga.state is BookingState.CONFIRMED:
            return
        free = self.world.has_seats or not self.world.seats_gone
        if free:
            self.world.has_seats = True
        self._take(advance(self.saga, Happening.SEATED if free else Happening.NO_SEAT))

    def _answer(self, happening: Happening, lost: bool) -> None:
        """The process may die before it writes down the answer; another may be told it late."""
        if lost:
            self.lost.append(happening)
        else:
            self._tell(happening)

    @precondition(lambda self: self.saga.step is Step.DEPOSIT)
    @rule(refused=st.booleans(), lost=st.booleans())
    def open_deposit(self, refused: bool, lost: bool) -> None:
        self._answer(Happening.DEPOSIT_REFUSED if refused else Happening.DEPOSIT_OPENED, lost)

    @precondition(lambda self: self.saga.method is PaymentMethod.GATEWAY and self.saga.amount_minor)
    @rule()
    def the_gateway_tells_of_the_money(self) -> None:
        if not self.world.deposited:
            self.world.deposited = True
            self.world.wallet += _PRICE
        self._tell(Happening.MONEY_ARRIVED)

    @rule()
    def the_gateway_declines(self) -> None:
        if not self.world.deposited:
            self._tell(Happening.MONEY_DECLINED)

    @precondition(lambda self: self.saga.step is Step.RESERVE)
    @rule(lost=st.booleans())
    def reserve(self, lost: bool) -> None:
        self._answer(self._reserve_at_ledger(self.saga), lost)

    def _reserve_at_ledger(self, saga: Saga) -> Happening:
        if saga.attempt in self.world.pending:
            return Happening.RESERVED
        if saga.method is not PaymentMethod.CASH:
            if self.world.wallet < saga.amount_minor:
                return Happening.RESERVE_REFUSED
            self.world.wallet -= saga.amount_minor
        self.world.pending[saga.attempt] = "OPEN"
        return Happening.RESERVED

    @precondition(lambda self: self.saga.step is Step.POST)
    @rule(lost=st.booleans())
    def post(self, lost: bool) -> None:
        phase = self.world.pending.get(self.saga.attempt)
        assert phase != "VOIDED", "what was let go is not posted"
        if phase == "EXPIRED" or phase is None:
            self._answer(Happening.PENDING_GONE, lost)
            return
        if phase == "OPEN":
            self.world.pending[self.saga.attempt] = "POSTED"
            self.world.revenue += self.saga.amount_minor
        self._answer(Happening.POSTED, lost)

    @precondition(lambda self: self.saga.step is Step.VOID)
    @rule(lost=st.booleans())
    def void(self, lost: bool) -> None:
        phase = self.world.pending.get(self.saga.attempt)
        assert phase != "POSTED", "what was taken is refunded, not voided"
        if phase == "OPEN":
            self.world.pending[self.saga.attempt] = "VOIDED"
            self._free_money()
        self._answer(Happening.VOIDED, lost)

    def _free_money(self) -> None:
        if self.saga.method is not PaymentMethod.CASH:
            self.world.wallet += self.saga.amount_minor

    @precondition(lambda self: self.saga.step is Step.REFUND)
    @rule(lost=st.booleans())
    def refund(self, lost: bool) -> None:
        if not self.world.refunded:
            self.world.refunded = self.saga.refund_minor
            self.world.revenue -= self.saga.refund_minor
            if self.saga.method is not PaymentMethod.CASH:
                self.world.wallet += self.saga.refund_minor
        self._answer(Happening.REFUNDED, lost)

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def a_slow_process_is_told_at_last(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.lost) - 1))
        happening = self.lost.pop(place)
        # These two are told only to a row that has not moved since.
        if happening not in (Happening.VOIDED, Happening.RESERVE_REFUSED):
            self._tell(happening)

    @precondition(lambda self: "OPEN" in self.world.pending.values())
    @rule()
    def the_pending_transfer_expires(self) -> None:
        if self.saga.method is PaymentMethod.CASH:
            return
        attempt = next(a for a, phase in self.world.pending.items() if phase == "OPEN")
        self.world.pending[attempt] = "EXPIRED"
        self._free_money()

    @rule()
    def others_take_the_seats(self) -> None:
        if not self.world.has_seats or self.saga.state is BookingState.PENDING_PAYMENT:
            self.world.has_seats = False
            self.world.seats_gone = True

    @precondition(lambda self: self.saga.state is BookingState.PENDING_PAYMENT)
    @rule(swept=st.booleans())
    def the_time_is_over(self, swept: bool) -> None:
        self.world.has_seats = False  # the sweep of holds frees them, or whoever asks next
        if not swept:
            self._tell(Happening.TIME_OVER)

    @rule(refund=st.sampled_from([0, 600, _PRICE]))
    def cancel_it(self, refund: int) -> None:
        self._take(cancel(self.saga, refund_minor=refund))

    @rule()
    def the_conductor_takes_the_cash(self) -> None:
        move = advance(self.saga, Happening.CASH_TAKEN)
        if move is not None:
            self.world.cash += self.saga.amount_minor
        self._take(move)

    @rule()
    def nobody_takes_the_cash(self) -> None:
        self._take(advance(self.saga, Happening.CASH_NOT_TAKEN))

    @rule()
    def the_passenger_spends_the_wallet(self) -> None:
        self.started_with -= self.world.wallet
        self.world.wallet = 0

    @invariant()
    def confirmed_means_seats_and_ended_means_none(self) -> None:
        if not hasattr(self, "saga"):
            return
        if self.saga.state is BookingState.CONFIRMED:
            assert self.world.has_seats
        elif self.saga.state is not BookingState.PENDING_PAYMENT:
            assert not self.world.has_seats

    @invariant()
    def never_seats_and_money_back_nor_neither(self) -> None:
        """At rest, what left the wallet is what the seats cost, or the fee."""
        if not hasattr(self, "saga") or self.saga.step is not Step.REST:
            return
        if self.saga.method is PaymentMethod.CASH:
            if self.saga.payment_state in (PaymentState.PAID, PaymentState.REFUNDED):
                assert self.world.revenue == self.world.cash - self.saga.refunded_minor
            return
        came = self.started_with + (_PRICE if self.world.deposited else 0)
        paid = came - self.world.wallet
        if self.saga.state is BookingState.CONFIRMED:
            assert paid == self.saga.amount_minor == self.world.revenue
        elif self.saga.state is BookingState.CANCELLED and self.saga.payment_state in (
            PaymentState.PAID,
            PaymentState.REFUNDED,
        ):
            assert paid == self.saga.amount_minor - self.saga.refunded_minor
        elif self.saga.state is not BookingState.PENDING_PAYMENT:
            assert paid == 0
            assert self.world.revenue == 0

    def teardown(self) -> None:
        """Everything that was begun can be brought to its end, and then it rests."""
        if not hasattr(self, "saga"):
            return
        for _ in range(30):
            if self.saga.state is BookingState.PENDING_PAYMENT and self.saga.step is Step.AWAIT:
                self._tell(Happening.TIME_OVER)
            {
                Step.DEPOSIT: lambda: self.open_deposit(refused=False, lost=False),
                Step.RESERVE: lambda: self.reserve(lost=False),
                Step.POST: lambda: self.post(lost=False),
                Step.VOID: lambda: self.void(lost=False),
                Step.REFUND: lambda: self.refund(lost=False),
            }.get(self.saga.step, lambda: None)()
            self.confirmed_means_seats_and_ended_means_none()
        assert self.saga.step is Step.REST
        self.never_seats_and_money_back_nor_neither()


TestBookingMachine = BookingMachine.TestCase
TestBookingMachine.settings = settings(max_examples=400, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("state", BookingState)
@pytest.mark.parametrize("happening", Happening)
def test_every_move_is_one_of_the_table(state: BookingState, happening: Happening) -> None:
    for method in PaymentMethod:
        for step in Step:
            for payment_state in PaymentState:
                saga = replace(
                    begin(method, _PRICE),
                    state=state,
                    step=step,
                    payment_state=payment_state,
                    # Only a deposit brings an expired booking back.
                    deposited=state is BookingState.EXPIRED,
                )
                move = advance(saga, happening)
                if move is not None and move.saga.state is not state:
                    assert move.saga.state in MOVES[state]
