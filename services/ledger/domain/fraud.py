"""Decides what looks like fraud, from what little is remembered of a person. Pure.

Rules and numbers are those of product.md's section on the ledger and of FraudRule in events.proto.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from statistics import median
from types import MappingProxyType
from typing import NamedTuple

MOVEMENTS_AN_HOUR_MAX = 10
UNUSUAL_FACTOR = 10
AMOUNTS_KEPT = 50
AMOUNTS_NEEDED = 5
# Of the currencies that somebody moved last; nobody uses as many.
CURRENCIES_KEPT = 4
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


class Rule(StrEnum):
    """Why somebody is flagged."""

    TOO_MANY_MOVEMENTS = "TOO_MANY_MOVEMENTS"
    UNUSUAL_AMOUNT = "UNUSUAL_AMOUNT"
    DEPOSIT_AND_WITHDRAWAL = "DEPOSIT_AND_WITHDRAWAL"


class MovementKind(StrEnum):
    """What a movement was."""

    DEPOSIT = "DEPOSIT"
    WITHDRAWAL = "WITHDRAWAL"
    PAYMENT = "PAYMENT"


class Movement(NamedTuple):
    """Is money that a person moved: in, out, or to somebody. Not what others did to the wallet."""

    tenant_id: str
    user_id: str
    transfer_id: str
    kind: MovementKind
    currency_code: str
    amount_minor: int
    time: datetime


class Profile(NamedTuple):
    """Is what is remembered of a person, of bounded size.

    `times` are of the newest movements, one more than an hour may have; `amounts` the last ones by
    currency, oldest first; `windows` the newest window flagged by each rule; `flag_count` how many
    flags there were.
    """

    times: tuple[datetime, ...] = ()
    amounts: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    deposit_time: datetime | None = None
    withdrawal_time: datetime | None = None
    windows: Mapping[Rule, datetime] = MappingProxyType({})
    flag_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """Says that what somebody did looks like fraud; `number` counts the person's flags from 1."""

    tenant_id: str
    user_id: str
    number: int
    rule: Rule
    window_start: datetime
    transfer_id: str
    description: str
    time: datetime


def judge(profile: Profile, movement: Movement) -> tuple[Profile, list[Flag]]:
    """Return what is remembered after a movement, and the flags that it raises.

    A rule flags a person once a window: an hour of UTC for the number of movements, else a day.
    """
    seen = _remember(profile, movement)
    flags: list[Flag] = []
    for rule, description in _suspicions(profile, seen, movement):
        start = _window_start(rule, movement.time)
        known = seen.windows.get(rule)
        if known is not None and known >= start:
            continue
        seen = seen._replace(windows={**seen.windows, rule: start}, flag_count=seen.flag_count + 1)
        flags.append(
            Flag(
                tenant_id=movement.tenant_id,
                user_id=movement.user_id,
                number=seen.flag_count,
                rule=rule,
                window_start=start,
                transfer_id=movement.transfer_id,
                description=description,
                time=movement.time,
            )
        )
    return seen, flags


def _suspicions(before: Profile, after: Profile, movement: Movement) -> list[tuple[Rule, str]]:
    found = []
    times = after.times
    # As many are kept as are too many, in order: the first and the last stand for all.
    if len(times) > MOVEMENTS_AN_HOUR_MAX and (
        movement.time - times[0] < _HOUR and times[-1] - movement.time < _HOUR
    ):
        told = f"more than {MOVEMENTS_AN_HOUR_MAX} movements in an hour"
        found.append((Rule.TOO_MANY_MOVEMENTS, told))
    amounts = before.amounts.get(movement.currency_code, ())
    # The median is not below the least, which is found sooner.
    if len(amounts) >= AMOUNTS_NEEDED and movement.amount_minor >= UNUSUAL_FACTOR * min(amounts):
        usual = median(amounts)
        if movement.amount_minor >= UNUSUAL_FACTOR * usual:
            told = f"{movement.amount_minor} {movement.currency_code} in minor units"
            found.append((Rule.UNUSUAL_AMOUNT, f"{told}, where {usual:.0f} is usual"))
    if after.deposit_time is not None and after.withdrawal_time is not None:
        apart = abs(after.deposit_time - after.withdrawal_time)
        if movement.kind is not MovementKind.PAYMENT and apart <= _DAY:
            minutes = apart // timedelta(minutes=1)
            found.append(
                (
                    Rule.DEPOSIT_AND_WITHDRAWAL,
                    f"a deposit and a withdrawal within {minutes} minutes",
                )
            )
    return found


def _remember(profile: Profile, movement: Movement) -> Profile:
    """Return the profile with a movement; those of two batches may be a little out of order."""
    times = sorted([*profile.times, movement.time])[-(MOVEMENTS_AN_HOUR_MAX + 1) :]
    code = movement.currency_code
    amounts = {**profile.amounts}
    # The currency that was moved last comes last.
    kept = (*amounts.pop(code, ()), movement.amount_minor)[-AMOUNTS_KEPT:]
    amounts[code] = kept
    while len(amounts) > CURRENCIES_KEPT:
        del amounts[next(iter(amounts))]
    deposit = movement.time if movement.kind is MovementKind.DEPOSIT else profile.deposit_time
    withdrawal = (
        movement.time if movement.kind is MovementKind.WITHDRAWAL else profile.withdrawal_time
    )
    return Profile(
        times=tuple(times),
        amounts=amounts,
        deposit_time=deposit,
        withdrawal_time=withdrawal,
        windows=profile.windows,
        flag_count=profile.flag_count,
    )


def _window_start(rule: Rule, time: datetime) -> datetime:
    hour = time.replace(minute=0, second=0, microsecond=0)
    return hour if rule is Rule.TOO_MANY_MOVEMENTS else hour.replace(hour=0)
