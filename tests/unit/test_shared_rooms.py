"""Ids, money, the error table, health: what every service takes from services/shared."""

import uuid
from collections.abc import Awaitable, Callable

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from google.type import money_pb2

from services.shared.errors import (
    DependencyUnavailableError,
    DomainError,
    FieldViolation,
    Kind,
    RequestInvalidError,
)
from services.shared.health import Dependency, HealthMonitor
from services.shared.ids import Uuid7Source, is_uuid
from services.shared.money import Money, MoneyInvalidError, money_from_proto, money_to_proto
from services.shared.rpc.errors import CODES, known_error, status_of
from tests.support.location_values import SettableClock


def test_ids_are_uuids_of_version_7_and_of_the_standard_variant() -> None:
    made = uuid.UUID(Uuid7Source(SettableClock()).new_id())

    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_ids_sort_by_when_they_were_made() -> None:
    clock = SettableClock()
    source, ids = Uuid7Source(clock), []
    for _ in range(50):
        ids.append(source.new_id())
        clock.pass_time(0.001)

    assert ids == sorted(ids)
    assert int(ids[0].replace("-", "")[:12], 16) == 1_772_366_400_000


def test_ids_of_one_moment_differ() -> None:
    source = Uuid7Source(SettableClock())

    assert len({source.new_id() for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("0198c000-0000-7000-8000-000000000001", True),
        ("0198c00000007000800000000000000x", False),
        ("{0198c000-0000-7000-8000-0000000001}", False),
        ("", False),
    ],
)
def test_a_uuid_is_told_from_other_text(text: str, answer: bool) -> None:
    assert is_uuid(text) is answer


@pytest.mark.parametrize(
    ("code", "units", "nanos", "minor"),
    [
        ("EGP", 15, 500_000_000, 1550),
        ("EGP", 0, 10_000_000, 1),
        ("EGP", -15, -500_000_000, -1550),
        ("JPY", 1200, 0, 1200),
        ("KWD", 1, 1_000_000, 1001),
    ],
)
def test_money_is_counted_in_minor_units(code: str, units: int, nanos: int, minor: int) -> None:
    message = money_pb2.Money(currency_code=code, units=units, nanos=nanos)
    money = Money(currency_code=code, amount_minor=minor)

    assert money_from_proto(message) == money
    assert money_to_proto(money) == message


@pytest.mark.parametrize(
    ("code", "units", "nanos"),
    [
        ("", 1, 0),
        ("egp", 1, 0),
        ("EG", 1, 0),
        ("ÉGP", 1, 0),
        ("EGP", 1, 1),
        ("JPY", 1, 500_000_000),
        ("EGP", 1, -10_000_000),
        ("EGP", 0, 1_000_000_000),
    ],
)
def test_an_amount_that_minor_units_cannot_tell_is_refused(
    code: str, units: int, nanos: int
) -> None:
    with pytest.raises(MoneyInvalidError):
        money_from_proto(money_pb2.Money(currency_code=code, units=units, nanos=nanos))


class SeatHeldError(DomainError):
    kind = Kind.PRECONDITION
    reason = "SEAT_HELD"


def details_of(error: DomainError) -> status_pb2.Status:
    trailer = status_of(error, service_name="booking").trailing_metadata
    assert trailer is not None
    ((key, value),) = trailer
    assert key == "grpc-status-details-bin"
    assert isinstance(value, bytes)
    return status_pb2.Status.FromString(value)


def error_info_of(error: DomainError) -> error_details_pb2.ErrorInfo:
    infos = []
    for detail in details_of(error).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            infos.append(info)
    (info,) = infos
    return info


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_a_code_of_its_own_and_exactly_one_error_info(kind: Kind) -> None:
    error = type("AnError", (DomainError,), {"kind": kind, "reason": "A_REASON"})("a sentence")

    info = error_info_of(error)

    assert (info.reason, info.domain) == ("A_REASON", "booking.wayfare")
    assert details_of(error).code == CODES[kind].value[0]
    assert len(set(CODES.values())) == len(Kind)


def test_every_number_of_an_error_is_in_its_metadata() -> None:
    error = SeatHeldError("seat 4 is held", metadata={"seat": "4"})

    assert dict(error_info_of(error).metadata) == {"seat": "4"}


def test_waiting_and_fields_are_told_where_they_apply() -> None:
    fields = [FieldViolation(field="seat", description="must be free", rule="seat.free")]
    error = RequestInvalidError("seat: must be free", retry_after_seconds=1.5, fields=fields)
    bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    details = details_of(error).details

    assert len(details) == 3
    assert details[1].Unpack(bad)
    assert details[2].Unpack(retry)
    assert (bad.field_violations[0].field, bad.field_violations[0].reason) == ("seat", "seat.free")
    assert retry.retry_delay.ToTimedelta().total_seconds() == 1.5


def test_an_error_of_ours_is_told_as_it_is() -> None:
    error = SeatHeldError("seat 4 is held")

    assert known_error(error, request_id="7") is error


def test_the_text_of_an_unknown_error_never_leaves() -> None:
    known = known_error(ValueError("password is hunter2"), request_id="request-7")
    status = status_of(known, service_name="booking")

    assert (status.code, known.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "hunter2" not in details_of(known).SerializeToString().decode("utf-8", "replace")
    assert known.metadata == {"request_id": "request-7"}


class Dependencies:
    """Two dependencies that answer as they are told."""

    def __init__(self) -> None:
        self.up = {"needed": True, "optional": True}
        self.told: list[bool] = []
        self.monitor = HealthMonitor(
            [
                Dependency(name="needed", check=self.check("needed")),
                Dependency(name="optional", check=self.check("optional"), required=False),
            ],
            self.tell,
        )

    def check(self, name: str) -> Callable[[], Awaitable[None]]:
        async def ask() -> None:
            if not self.up[name]:
                raise DependencyUnavailableError(name)

        return ask

    async def tell(self, ready: bool) -> None:
        self.told.append(ready)


def test_a_process_that_has_not_asked_yet_is_not_ready() -> None:
    assert not Dependencies().monitor.ready


@pytest.mark.parametrize("away", ["needed", "optional"])
async def test_a_process_begins_when_every_dependency_answered(away: str) -> None:
    dependencies = Dependencies()
    dependencies.up[away] = False
    await dependencies.monitor.check_once()

    assert not dependencies.monitor.ready
    assert dependencies.monitor.missing == [away]


@pytest.mark.parametrize(("away", "ready"), [("needed", False), ("optional", True)])
async def test_a_process_goes_on_without_what_is_not_required(away: str, ready: bool) -> None:
    dependencies = Dependencies()
    await dependencies.monitor.check_once()
    dependencies.up[away] = False
    await dependencies.monitor.check_once()

    assert dependencies.monitor.ready is ready
    assert dependencies.monitor.missing == [away]


async def test_only_changes_are_told() -> None:
    dependencies = Dependencies()
    for up in (True, True, False, False, True):
        dependencies.up["needed"] = up
        await dependencies.monitor.check_once()

    assert dependencies.told == [True, False, True]


async def test_a_process_that_drains_is_not_ready() -> None:
    dependencies = Dependencies()
    await dependencies.monitor.check_once()
    dependencies.monitor.draining = True

    assert not dependencies.monitor.ready
