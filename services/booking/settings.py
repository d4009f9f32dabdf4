"""What a booking process is told by its environment."""

from pydantic import Field

from services.shared.settings import ServiceSettings


class BookingSettings(ServiceSettings):
    """Holds what a booking process is told beside what every process is."""

    booking_relay_seconds: float = Field(
        0.02, gt=0, description="How long the relay of events rests when there are none."
    )
    booking_event_entries_kept: int = Field(
        10_000, ge=1_000, description="Entries that each of 8 streams of events in Valkey keeps."
    )
    booking_request_days_kept: int = Field(
        30, ge=1, description="Days for which a request_id of trips and layouts is remembered."
    )
    booking_batch_max: int = Field(
        400, ge=1, le=2_000, description="Changes of seats that are committed together at most."
    )
    booking_waiting_max: int = Field(
        5_000, ge=1, description="Changes of seats that may wait; more are refused: OVERLOADED."
    )
    booking_committers: int = Field(
        2, ge=1, le=8, description="Batches of seats that are committed at once by this process."
    )
    booking_gather_seconds: float = Field(
        0.005, ge=0, le=1, description="How long changes gather before a batch of a busy process."
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
    booking_event_tick_seconds: float = Field(
        0.004,
        ge=0,
        le=0.1,
        description="How long a busy process lets events of RPCs gather; 0 handles each at once.",
    )
