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
