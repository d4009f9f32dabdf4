"""What becomes of a booking: one table of moves, from what it is and what happened.

Called by the saga (operations/payments.py) and inside the batch that changes seats. Pure: two
processes that are told the same come to the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from services.booking.domain.trips import PaymentMethod


class BookingState(StrEnum):
    """Says how far a booking is."""

    PENDING_PAYMENT = "PENDING_PAYMENT"
    CONFIRMED = "CONFIRMED"
    CANCELLED = "CANCELLED"
    PAYMENT_FAILED = "PAYMENT_FAILED"
    EXPIRED = "EXPIRED"
    CANCELLED_NO_SEAT = "CANCELLED_NO_SEAT"
    PAYMENT_RETURNED = "PAYMENT_RETURNED"


class PaymentState(StrEnum):
    """Says how far a payment is."""

    PENDING = "PENDING"
    PAID = "PAID"
    DUE_ON_BOARD = "DUE_ON_BOARD"
    FAILED = "FAILED"
    VOIDED = "VOIDED"
    REFUND_PENDING = "REFUND_PENDING"
    REFUNDED = "REFUNDED"


class CancellationCause(StrEnum):
    """Names who cancelled."""

    PASSENGER = "PASSENGER"
    OPERATOR = "OPERATOR"
    TRIP = "TRIP"


class Step(StrEnum):
    """Is what is to be done next for a booking, outside of its own database."""

    REST = "REST"  # nothing
    DEPOSIT = "DEPOSIT"  # open a deposit at the gateway
    AWAIT = "AWAIT"  # nothing until the deposit's message comes, or its time is over
    RESERVE = "RESERVE"  # make the pending transfer
    POST = "POST"  # post it
    VOID = "VOID"  # void it, if there is one
    REFUND = "REFUND"  # give back what was posted, less the fee


class Happening(StrEnum):
    """Is what can happen to a booking."""

    DEPOSIT_OPENED = "DEPOSIT_OPENED"
    DEPOSIT_REFUSED = "DEPOSIT_REFUSED"
    MONEY_ARRIVED = "MONEY_ARRIVED"
    MONEY_DECLINED = "MONEY_DECLINED"
    RESERVED = "RESERVED"
    RESERVE_REFUSED = "RESERVE_REFUSED"
    SEATED = "SEATED"
    NO_SEAT = "NO_SEAT"
    POSTED = "POSTED"
    PENDING_GONE = "PENDING_GONE"
    VOIDED = "VOIDED"
    REFUNDED = "REFUNDED"
    TIME_OVER = "TIME_OVER"
    CANCELLED = "CANCELLED"
    CASH_TAKEN = "CASH_TAKEN"
    CASH_NOT_TAKEN = "CASH_NOT_TAKEN"


class SeatWish(StrEnum):
    """Says what a move does with the booking's seats."""

    KEEP = "KEEP"
    TAKE = "TAKE"  # sell them to it; SEATED or NO_SEAT follows
    FREE = "FREE"


MOVES: dict[BookingState, frozenset[BookingState]] = {
    BookingState.PENDING_PAYMENT: frozenset(BookingState) - {BookingState.PENDING_PAYMENT},
    BookingState.CONFIRMED: frozenset({BookingState.CANCELLED}),
    BookingState.EXPIRED: frozenset({BookingState.CONFIRMED, BookingState.PAYMENT_RETURNED}),
    BookingState.PAYMENT_FAILED: frozenset({BookingState.PAYMENT_RETURNED}),
    BookingState.CANCELLED: frozenset(),
    BookingState.CANCELLED_NO_SEAT: frozenset(),
    BookingState.PAYMENT_RETURNED: frozenset(),
}
"""Lists the moves from each state; a contract test of the table's trigger compares them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saga:
    """Is a booking as far as its payment goes.

    `attempt` counts the pending transfers before this one: each has an id of its own.
    `deposited` says that a gateway's money is in the wallet.
    """

    state: BookingState
    method: PaymentMethod
    payment_state: PaymentState
    step: Step
    amount_minor: int
    refund_minor: int = 0
    refunded_minor: int = 0
    attempt: int = 0
    deposited: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """Is what follows: the booking after it, and what becomes of its seats."""

    saga: Saga
    seats: SeatWish = SeatWish.KEEP


def begin(method: PaymentMethod, amount_minor: int) -> Saga:
    """Return a booking that has just been made of a hold.

    One that costs nothing, or is paid on board, waits for no money: it is to be seated at once.
    """
    if amount_minor == 0:
        payment_state, step = PaymentState.PAID, Step.REST
    elif method is PaymentMethod.CASH:
        payment_state, step = PaymentState.DUE_ON_BOARD, Step.RESERVE
    else:
        payment_state = PaymentState.PENDING
        step = Step.DEPOSIT if method is PaymentMethod.GATEWAY else Step.RESERVE
    return Saga(
        state=BookingState.PENDING_PAYMENT,
        method=method,
        payment_state=payment_state,
        step=step,
        amount_minor=amount_minor,
    )


def sells_at_once(method: PaymentMethod, amount_minor: int) -> bool:
    """Say whether a booking has its seats before any money is asked for."""
    return method is PaymentMethod.CASH or amount_minor == 0


def advance(saga: Saga, happening: Happening) -> Move | None:
    """Return what follows from what happened, or None if nothing does.

    Whatever comes late or twice is either None or moves money back to whom it belongs.
    """
    rule = _RULES.get((saga.state, happening))
    if rule is None:
        # A transfer that was made by a slower process, for a booking that has ended meanwhile.
        if happening is Happening.RESERVED:
            return Move(replace(saga, step=Step.VOID)) if _has_ended(saga) else None
        if happening is Happening.VOIDED and saga.step is Step.VOID:
            return Move(replace(saga, step=Step.REST))
        return None
    return rule(saga)


def cancel(saga: Saga, *, refund_minor: int) -> Move | None:
    """Return the booking after its cancellation, with so much to be given back; None if it ended.

    What was asked of the ledger and is not known yet is finished first, then given back: so it
    is never asked to void what it posts.
    """
    if saga.state is BookingState.PENDING_PAYMENT:
        ended = replace(saga, state=BookingState.CANCELLED, payment_state=PaymentState.VOIDED)
        return Move(_voiding(ended), SeatWish.FREE)
    if saga.state is not BookingState.CONFIRMED:
        return None
    cancelled = replace(saga, state=BookingState.CANCELLED)
    on_board = (PaymentState.DUE_ON_BOARD, PaymentState.VOIDED)
    if saga.payment_state in on_board:
        voided = replace(cancelled, payment_state=PaymentState.VOIDED, step=Step.VOID)
        return Move(voided, SeatWish.FREE)
    if saga.step is Step.RESERVE and saga.method is not PaymentMethod.CASH:
        # Nothing is posted, and will not be: nothing is to be given back.
        voided = replace(cancelled, payment_state=PaymentState.VOIDED, step=Step.VOID)
        return Move(voided, SeatWish.FREE)
    cancelled = replace(cancelled, refund_minor=min(refund_minor, saga.amount_minor))
    if saga.payment_state is PaymentState.PENDING:
        pending = replace(cancelled, payment_state=PaymentState.REFUND_PENDING)
        return Move(pending, SeatWish.FREE)
    return Move(_refunding(cancelled), SeatWish.FREE)


def _has_ended(saga: Saga) -> bool:
    return saga.state not in (BookingState.PENDING_PAYMENT, BookingState.CONFIRMED)


def _voiding(saga: Saga) -> Saga:
    """Void what may have been reserved, by whichever process; before RESERVE nothing was."""
    return replace(saga, step=Step.VOID if saga.step is Step.RESERVE else Step.REST)


def _refunding(saga: Saga) -> Saga:
    if saga.refund_minor == 0:
        return replace(saga, payment_state=PaymentState.PAID, step=Step.REST)
    return replace(saga, payment_state=PaymentState.REFUND_PENDING, step=Step.REFUND)


def _deposit_opened(saga: Saga) -> Move | None:
    return Move(replace(saga, step=Step.AWAIT)) if saga.step is Step.DEPOSIT else None


def _deposit_refused(saga: Saga) -> Move | None:
    return _failed(saga) if saga.step is Step.DEPOSIT else None


def _declined(saga: Saga) -> Move | None:
    return None if saga.deposited or saga.method is not PaymentMethod.GATEWAY else _failed(saga)


def _failed(saga: Saga) -> Move:
    failed = replace(saga, state=BookingState.PAYMENT_FAILED, payment_state=PaymentState.FAILED)
    return Move(_voiding(failed), SeatWish.FREE)


def _money_arrived(saga: Saga) -> Move | None:
    if saga.method is not PaymentMethod.GATEWAY or saga.deposited:
        return None
    arrived = replace(saga, deposited=True, payment_state=PaymentState.PENDING, step=Step.RESERVE)
    return Move(arrived)


def _money_stays_in_wallet(saga: Saga) -> Move | None:
    if saga.method is not PaymentMethod.GATEWAY or saga.deposited:
        return None
    returned = replace(
        saga,
        state=BookingState.PAYMENT_RETURNED,
        payment_state=PaymentState.VOIDED,
        deposited=True,
        step=Step.REST,
    )
    return Move(returned)


def _take_seats(saga: Saga) -> Move | None:
    if saga.step is Step.RESERVE:
        return Move(saga, SeatWish.TAKE)
    return Move(replace(saga, step=Step.VOID)) if saga.state is BookingState.EXPIRED else None


def _reserve_refused(saga: Saga) -> Move | None:
    if saga.step is not Step.RESERVE:
        return None
    if saga.deposited:
        # The deposit is in the wallet, and the passenger spent it on something else.
        returned = replace(
            saga, state=BookingState.PAYMENT_RETURNED, payment_state=PaymentState.VOIDED
        )
        return Move(_voiding(returned), SeatWish.FREE)
    return _failed(saga)


def _seated(saga: Saga) -> Move:
    confirmed = replace(saga, state=BookingState.CONFIRMED)
    if saga.payment_state is PaymentState.PENDING:
        confirmed = replace(confirmed, step=Step.POST)
    return Move(confirmed, SeatWish.TAKE)


def _no_seat(saga: Saga) -> Move:
    state = BookingState.PAYMENT_RETURNED if saga.deposited else BookingState.CANCELLED_NO_SEAT
    ended = replace(saga, state=state, payment_state=PaymentState.VOIDED)
    return Move(_voiding(ended), SeatWish.FREE)


def _time_over(saga: Saga) -> Move | None:
    if saga.deposited:
        # The money is there: the booking ends in seats or in PAYMENT_RETURNED.
        return None
    expired = replace(saga, state=BookingState.EXPIRED, payment_state=PaymentState.VOIDED)
    return Move(_voiding(expired), SeatWish.FREE)


def _posted(saga: Saga) -> Move | None:
    if saga.step is not Step.POST:
        return None
    return Move(replace(saga, payment_state=PaymentState.PAID, step=Step.REST))


def _reserve_again(saga: Saga) -> Move | None:
    """The ledger was away for longer than it keeps a pending transfer."""
    if saga.step is not Step.POST:
        return None
    return Move(replace(saga, step=Step.RESERVE, attempt=saga.attempt + 1))


def _reserved_of_confirmed(saga: Saga) -> Move | None:
    if saga.step is not Step.RESERVE:
        return None
    on_board = saga.payment_state is PaymentState.DUE_ON_BOARD
    return Move(replace(saga, step=Step.REST if on_board else Step.POST))


def _refused_of_confirmed(saga: Saga) -> Move | None:
    if saga.step is not Step.RESERVE:
        return None
    cancelled = replace(saga, state=BookingState.CANCELLED, payment_state=PaymentState.FAILED)
    return Move(_voiding(cancelled), SeatWish.FREE)


def _cash_taken(saga: Saga) -> Move | None:
    taken = replace(saga, payment_state=PaymentState.PENDING)
    if saga.payment_state is PaymentState.DUE_ON_BOARD:
        # What was not reserved yet is reserved first, and then posted.
        step = Step.RESERVE if saga.step is Step.RESERVE else Step.POST
        return Move(replace(taken, step=step))
    if saga.method is PaymentMethod.CASH and saga.payment_state is PaymentState.VOIDED:
        # A phone that was offline tells of it when nobody expected the fare any more.
        return Move(replace(taken, step=Step.RESERVE, attempt=saga.attempt + 1))
    return None


def _cash_not_taken(saga: Saga) -> Move | None:
    if saga.payment_state is not PaymentState.DUE_ON_BOARD:
        return None
    return Move(replace(saga, payment_state=PaymentState.VOIDED, step=Step.VOID))


def _reserved_of_cancelled(saga: Saga) -> Move | None:
    if saga.payment_state in (PaymentState.VOIDED, PaymentState.FAILED):
        return Move(replace(saga, step=Step.VOID))
    # Cash that was taken on board and is to be given back: first it is entered.
    return Move(replace(saga, step=Step.POST)) if saga.step is Step.RESERVE else None


def _posted_of_cancelled(saga: Saga) -> Move | None:
    return Move(_refunding(saga)) if saga.step is Step.POST else None


def _gone_of_cancelled(saga: Saga) -> Move | None:
    if saga.step is not Step.POST:
        return None
    return Move(replace(saga, payment_state=PaymentState.VOIDED, step=Step.REST, refund_minor=0))


def _refused_of_cancelled(saga: Saga) -> Move | None:
    if saga.step is not Step.RESERVE:
        return None
    failed = replace(saga, payment_state=PaymentState.FAILED, refund_minor=0)
    return Move(_voiding(failed))


def _refunded(saga: Saga) -> Move | None:
    if saga.step is not Step.REFUND:
        return None
    refunded = replace(
        saga,
        payment_state=PaymentState.REFUNDED,
        refunded_minor=saga.refund_minor,
        step=Step.REST,
    )
    return Move(refunded)


_PENDING, _CONFIRMED = BookingState.PENDING_PAYMENT, BookingState.CONFIRMED
_CANCELLED, _EXPIRED = BookingState.CANCELLED, BookingState.EXPIRED
_Rule = Callable[[Saga], Move | None]
_RULES: dict[tuple[BookingState, Happening], _Rule] = {
    (_PENDING, Happening.DEPOSIT_OPENED): _deposit_opened,
    (_PENDING, Happening.DEPOSIT_REFUSED): _deposit_refused,
    (_PENDING, Happening.MONEY_ARRIVED): _money_arrived,
    (_PENDING, Happening.MONEY_DECLINED): _declined,
    (_PENDING, Happening.RESERVED): _take_seats,
    (_PENDING, Happening.RESERVE_REFUSED): _reserve_refused,
    (_PENDING, Happening.SEATED): _seated,
    (_PENDING, Happening.NO_SEAT): _no_seat,
    (_PENDING, Happening.TIME_OVER): _time_over,
    (_CONFIRMED, Happening.POSTED): _posted,
    (_CONFIRMED, Happening.PENDING_GONE): _reserve_again,
    (_CONFIRMED, Happening.RESERVED): _reserved_of_confirmed,
    (_CONFIRMED, Happening.RESERVE_REFUSED): _refused_of_confirmed,
    (_CONFIRMED, Happening.CASH_TAKEN): _cash_taken,
    (_CONFIRMED, Happening.CASH_NOT_TAKEN): _cash_not_taken,
    (_CANCELLED, Happening.RESERVED): _reserved_of_cancelled,
    (_CANCELLED, Happening.RESERVE_REFUSED): _refused_of_cancelled,
    (_CANCELLED, Happening.POSTED): _posted_of_cancelled,
    (_CANCELLED, Happening.PENDING_GONE): _gone_of_cancelled,
    (_CANCELLED, Happening.REFUNDED): _refunded,
    (_EXPIRED, Happening.MONEY_ARRIVED): _money_arrived,
    (_EXPIRED, Happening.RESERVED): _take_seats,
    (_EXPIRED, Happening.RESERVE_REFUSED): _reserve_refused,
    (_EXPIRED, Happening.SEATED): _seated,
    (_EXPIRED, Happening.NO_SEAT): _no_seat,
    (BookingState.PAYMENT_FAILED, Happening.MONEY_ARRIVED): _money_stays_in_wallet,
}
