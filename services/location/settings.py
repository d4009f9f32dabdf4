"""Reads what LocationService is told by its environment, besides what every service is told."""

from pydantic import Field

from services.shared.settings import ServiceSettings


class LocationSettings(ServiceSettings):
    """Holds LocationService's own settings, each with the prefix WAYFARE_LOCATION_."""

    location_bucket_count: int = Field(
        1,
        ge=1,
        le=1024,
        description="Into how many buckets drivers are spread. One is best for"
        " a single server, on a cluster at least twice its masters. The same in all processes.",
    )
    location_tick_seconds: float = Field(
        0.010, gt=0, le=1, description="How long updates are gathered before they are written."
    )
    location_pending_max: int = Field(
        50_000, ge=100, description="Most updates that wait in this process to be written."
    )
    location_session_pending_max: int = Field(
        120, ge=1, description="Most updates of one driver that wait to be written."
    )
    location_interval_seconds: float = Field(
        3.0, ge=1, le=60, description="Interval at which phones are asked to send positions."
    )
    location_interval_least_seconds: float = Field(
        1.0, ge=0, le=60, description="Least interval between two captures of one driver."
    )
    location_positions_per_minute: int = Field(
        20, ge=1, le=600, description="Most positions of one driver a minute, by capture time."
    )
    location_heartbeat_seconds: float = Field(
        15.0, gt=0, le=60, description="Longest silence on a stream."
    )
    location_ack_seconds: float = Field(
        10.0, gt=0, le=60, description="Longest wait of a driver for an acknowledgement."
    )
    location_hello_seconds: float = Field(
        10.0, gt=0, le=60, description="How long a stream may take to say hello."
    )
    location_followed_trips_max: int = Field(
        5, ge=1, description="Most trips that one passenger follows at once."
    )
    location_many_followers: int = Field(
        200,
        ge=1,
        description="Of a trip that more follow at a process, positions are told less often.",
    )
    location_many_followers_seconds: float = Field(
        3.0, gt=0, le=30, description="How often they are told then."
    )
    location_follower_events_max: int = Field(
        64, ge=8, description="Most events that wait for one follower."
    )
    location_live_seconds: int = Field(
        30, ge=1, description="How long a live position and a driver's presence last."
    )
    location_history_days: int = Field(
        90, ge=7, le=3650, description="How many days of past positions are kept."
    )
    location_history_waiting_max: int = Field(
        200_000, ge=1_000, description="Most positions that wait to be written to history."
    )
    location_watched_max: int = Field(
        50_000, ge=1, description="Most trips and drivers whose stops and geofences are watched."
    )
    location_updates_kept: int = Field(
        4_000, ge=100, description="Ticks of each bucket that Valkey keeps for servers that lag."
    )
