"""The typed asyncio client of Wayfare: log in, drive, follow.

async with WayfareClient("localhost:8080", tenant_id=TENANT) as client:
    await client.log_in("+441514960001", "…")
    async with client.follow_trip(trip_id) as updates:
        async for update in updates:
            print(update)
"""

from wayfare_client import reasons as reasons
from wayfare_client.backoff import Backoff
from wayfare_client.client import WayfareClient
from wayfare_client.clock import Clock, SystemClock
from wayfare_client.driver_listener import DriverListener
from wayfare_client.driver_session import DriverSession
from wayfare_client.driver_statistics import DriverStatistics
from wayfare_client.errors import (
    FieldViolation,
    SessionClosedError,
    UnacknowledgedError,
    WayfareError,
)
from wayfare_client.pacing import Pacing
from wayfare_client.positions import make_position
from wayfare_client.receipts import ReceiptInvalidError, verify_receipt, verify_seal
from wayfare_client.seat_watcher import SeatWatcher
from wayfare_client.settings import ClientSettings
from wayfare_client.tokens import MemorySessionStore, SessionStore
from wayfare_client.tracking import TripTracking
from wayfare_client.trip_follower import TripFollower

__all__ = [
    "Backoff",
    "ClientSettings",
    "Clock",
    "DriverListener",
    "DriverSession",
    "DriverStatistics",
    "FieldViolation",
    "MemorySessionStore",
    "Pacing",
    "ReceiptInvalidError",
    "SeatWatcher",
    "SessionClosedError",
    "SessionStore",
    "SystemClock",
    "TripFollower",
    "TripTracking",
    "UnacknowledgedError",
    "WayfareClient",
    "WayfareError",
    "make_position",
    "reasons",
    "verify_receipt",
    "verify_seal",
]
