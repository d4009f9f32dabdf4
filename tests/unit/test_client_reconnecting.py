"""When the Python client opens a stream again, and after how long."""

from random import Random

import grpc
import pytest

from wayfare_client import Backoff, ClientSettings, WayfareError
from wayfare_client.reconnecting import is_final

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "reason", "retry_after_seconds", "expected"),
    [
        (Code.UNAVAILABLE, "", None, False),
        (Code.UNAVAILABLE, "SERVER_DRAINING", 1.0, False),
        (Code.INTERNAL, "", None, False),
        (Code.UNKNOWN, "", None, False),
        (Code.DEADLINE_EXCEEDED, "HELLO_TIMEOUT", None, False),
        (Code.RESOURCE_EXHAUSTED, "OVERLOADED", 2.0, False),
        (Code.RESOURCE_EXHAUSTED, "", None, False),
        (Code.RESOURCE_EXHAUSTED, "TOO_MANY_FOLLOWED_TRIPS", None, True),
        (Code.UNAUTHENTICATED, "TOKEN_EXPIRED", None, False),
        (Code.UNAUTHENTICATED, "TOKEN_INVALID", None, True),
        (Code.UNAUTHENTICATED, "SESSION_REVOKED", None, True),
        (Code.PERMISSION_DENIED, "NOT_THE_TRIP_DRIVER", None, True),
        (Code.FAILED_PRECONDITION, "TRIP_NOT_TRACKED", None, True),
        (Code.INVALID_ARGUMENT, "REQUEST_INVALID", None, True),
        (Code.ABORTED, "SESSION_SUPERSEDED", None, True),
        (Code.ABORTED, "", None, False),
        (Code.UNIMPLEMENTED, "NOT_IMPLEMENTED_YET", None, True),
    ],
)
def test_only_what_passes_is_waited_out(
    code: grpc.StatusCode, reason: str, retry_after_seconds: float | None, expected: bool
) -> None:
    error = WayfareError(
        "refused", code=code, reason=reason, retry_after_seconds=retry_after_seconds
    )

    assert is_final(error) is expected


def test_waits_stay_within_their_bounds_and_grow() -> None:
    backoff, random = ClientSettings().reconnect, Random(14)
    delays = [[backoff.delay_seconds(attempt, random) for _ in range(500)] for attempt in range(12)]

    assert min(min(row) for row in delays) >= 0.2
    assert max(max(row) for row in delays) <= 15.0
    assert sum(delays[0]) < sum(delays[2]) < sum(delays[4])
    assert max(delays[0]) <= 1.0


def test_two_phones_do_not_wait_equally_long() -> None:
    backoff = ClientSettings().reconnect

    assert backoff.delay_seconds(3, Random(1)) != backoff.delay_seconds(3, Random(2))


def test_what_the_server_asks_for_is_never_cut() -> None:
    backoff = Backoff(floor_seconds=0.2, first_seconds=1.0, ceiling_seconds=15.0)

    assert backoff.delay_seconds(0, Random(1), at_least_seconds=60.0) >= 60.2


def test_a_phone_that_is_offline_for_days_still_waits_a_bounded_time() -> None:
    assert ClientSettings().reconnect.delay_seconds(100_000, Random(1)) <= 15.0
