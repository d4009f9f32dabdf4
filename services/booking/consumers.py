"""Takes LedgerService's events of deposits: a booking's money has come, or will not.

Only writes down what became of the deposit and makes the booking due; the saga does the rest. So a
message that comes late, twice, or in the middle of a crash is taken once, and at any time.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from services.booking.domain.charges import booking_of
from services.shared.money import money_from_proto
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.ledger.v1 import deposit_pb2, events_pb2

if TYPE_CHECKING:
    from services.shared.postgres import Connection

CONSUMER = "deposits"
SOURCE = "ledger"
_TYPE = "type.googleapis.com/wayfare.ledger.v1.DepositChanged"
_STATES = {
    deposit_pb2.DEPOSIT_STATE_SUCCEEDED: "SUCCEEDED",
    deposit_pb2.DEPOSIT_STATE_FAILED: "FAILED",
}
# Money that came stays: a message that comes late does not take it away.
_KEEP = """
UPDATE booking.bookings SET
  deposit_state = CASE WHEN deposit_state = 'SUCCEEDED' THEN deposit_state ELSE $2 END,
  next_time = now()
WHERE booking_id = $1 AND payment_method = 'GATEWAY' AND user_id = $3 AND currency_code = $4
  AND amount_minor = $5
RETURNING 1
"""


class DepositOfNoBookingError(Exception):
    """Says that a deposit names a booking that there is not, or another's, or another amount."""


def wants_deposit(event: Envelope) -> bool:
    """Say whether an event is of a deposit: most of the ledger's are of transfers."""
    return event.aggregate_type == "deposit"


async def handle_deposits(connection: "Connection", events: Sequence[Envelope]) -> None:
    """Handle events in order. Raises DepositOfNoBookingError, for people to look at."""
    for event in events:
        if event.payload.type_url != _TYPE:
            continue
        deposit = events_pb2.DepositChanged.FromString(event.payload.value).deposit
        booking_id, state = booking_of(deposit.reference), _STATES.get(deposit.state)
        if booking_id is None or state is None:
            continue
        await _act_as(connection, event.tenant_id, "SERVICE")
        amount = money_from_proto(deposit.amount)
        known = await connection.fetchval(
            _KEEP,
            booking_id,
            state,
            deposit.user_id,
            amount.currency_code,
            amount.amount_minor,
        )
        if known is None:
            raise DepositOfNoBookingError(f"deposit {deposit.deposit_id}")
        await _act_as(connection, "", "SWEEPER")


async def _act_as(connection: "Connection", tenant_id: str, role: str) -> None:
    await connection.execute(
        "SELECT set_config('app.tenant_id', $1, true), set_config('app.role', $2, true)",
        tenant_id,
        role,
    )
