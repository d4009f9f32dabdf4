"""What a booking process is told by its environment."""

from datetime import timedelta

from pydantic import Field, SecretStr

from services.booking.domain.trips import CancellationFee
from services.shared.settings import ServiceSettings


class BookingSettings(ServiceSettings):
    """Holds what a booking process is told beside what every process is."""

    booking_relay_seconds: float = Field(
        0.02, gt=0, description="How long the relay of events rests when there are none."
    )
    booking_event_entries_kept: int = Field(
        10_000, ge=1_000, description="Entries that each of 8 streams of events in Valkey keeps."
    )
    booking_ticket_key_secrets: SecretStr = Field(
        description="What private keys of tickets are sealed with: base64 of 32 bytes; of"
        " several with commas the first seals, all open."
    )
    booking_passenger_keys: SecretStr = Field(
        description="Keys that seal travellers' names: `<id>:<base64 of 32 bytes>`; of several with"
        " commas the first seals, all open."
    )
    booking_search_chunk: int = Field(
        100, ge=1, le=1_000, description="Trips looked at together while full ones are left out."
    )
    booking_search_chunks_max: int = Field(
        10, ge=1, le=100, description="How often that is done for a page; then it ends short."
    )
    booking_request_days_kept: int = Field(
        30, ge=1, description="Days for which a request_id of trips and layouts is remembered."
    )
    booking_hold_days_kept: int = Field(
        2, ge=1, description="Days for which a hold that ended without a booking is remembered."
    )
    booking_batch_max: int = Field(
        400, ge=1, le=2_000, description="Changes of seats that are committed together at most."
    )
    booking_waiting_max: int = Field(
        5_000, ge=1, description="Changes of seats that may wait; more are refused: OVERLOADED."
    )
    booking_committers: int = Field(
        2,
        ge=1,
        le=8,
        description="Batches of seats that are committed at once by this process, when one waits"
        " for a lock.",
    )
    booking_gather_seconds: float = Field(
        0.015, ge=0, le=1, description="How long changes gather before a batch of a busy process."
    )
    booking_sweep_seconds: float = Field(
        0.5, gt=0, description="How often holds are looked for whose time is over."
    )
    booking_holds_max: int = Field(
        20, ge=1, description="Holds that one user may have at once, all trips together."
    )
    booking_hold_extensions_max: int = Field(
        1, ge=0, le=100, description="How often a hold may be extended."
    )
    booking_watcher_changes_max: int = Field(
        500, ge=1, description="Changes that may wait for a watcher, who gets a new snapshot then."
    )
    booking_heartbeat_seconds: float = Field(
        15.0, gt=0, description="How long a WatchSeats is silent at most."
    )
    booking_ledger_calls: int = Field(
        2, ge=1, le=16, description="Calls with transfers to the ledger that are made at once."
    )
    booking_worker_seconds: float = Field(
        0.2, gt=0, description="How often bookings are looked for whose payment has to go on."
    )
    booking_sagas_at_once: int = Field(
        200, ge=1, le=1_000, description="Bookings whose payment goes on at once in this process."
    )
    booking_pending_margin_hours: float = Field(
        24.0,
        ge=1,
        le=720,
        description="How long the ledger keeps a fare beyond the time to pay: longer than outages.",
    )
    booking_cancellation_fees: str = Field(
        "1440/0 120/2500 0/5000",
        pattern=r"^([0-9]{1,6}/[0-9]{1,5}( |$))*$",
        description="Fee table of trips that have none: minutes before departure and share kept"
        " in basis points, from the longest time to the shortest.",
    )

    def cancellation_fees(self) -> tuple[CancellationFee, ...]:
        """Return the operator's own fee table."""
        pairs = (line.split("/") for line in self.booking_cancellation_fees.split())
        return tuple(
            CancellationFee(
                before_departure=timedelta(minutes=int(minutes)), fee_basis_points=int(points)
            )
            for minutes, points in pairs
        )
