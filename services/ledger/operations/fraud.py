"""Looks for fraud in what moved, off the path of payments: a worker in every process."""

import asyncio
from collections.abc import Callable, Sequence

import structlog
from prometheus_client import Counter

from services.ledger.domain.fraud import Flag, Movement, Profile, judge
from services.ledger.fraud_ports import FraudStore, FraudTurn, Person
from services.ledger.ports import NewEvent
from services.shared.errors import DependencyUnavailableError

_log = structlog.get_logger()
_FLAGS = Counter("wayfare_ledger_fraud_flags_total", "Flags raised", ["rule"])
# So few that callers whose calls wait meanwhile do not notice.
_READ_MOST = 500
# Events of one turn. What is remembered of a person is written once a turn, so turns are long.
_TURN_MOST = 20_000


class FraudWatch:
    """Takes turns with other processes; each event is looked at once."""

    def __init__(
        self,
        *,
        store: FraudStore,
        movements_of: Callable[[bytes], Sequence[Movement]],
        event_of: Callable[[Flag], NewEvent],
        rest_seconds: float,
    ) -> None:
        """Look every `rest_seconds`; `movements_of` reads an event, `event_of` tells of a flag."""
        self._store = store
        self._movements_of = movements_of
        self._event_of = event_of
        self._rest_seconds = rest_seconds

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except DependencyUnavailableError as error:
                _log.warning("fraud_not_looked_for", error=error.reason)
            await asyncio.sleep(self._rest_seconds)

    async def look(self) -> int:
        """Look at what came since the last turn; return how many events there were."""
        async with self._store.turn() as turn:
            if turn is None:
                return 0
            count, movements = await self._read(turn)
            if not count:
                return 0
            profiles = dict(await turn.profiles({_person(one) for one in movements}))
            flags: list[Flag] = []
            for number, one in enumerate(movements, 1):
                person = _person(one)
                profiles[person], raised = judge(profiles.get(person, Profile()), one)
                flags += raised
                if number % _READ_MOST == 0:
                    await asyncio.sleep(0)
            await turn.keep(profiles, [(flag, self._event_of(flag)) for flag in flags])
        for flag in flags:
            _FLAGS.labels(flag.rule).inc()
            _log.warning("fraud_flagged", rule=flag.rule, tenant_id=flag.tenant_id)
        return count

    async def _read(self, turn: FraudTurn) -> tuple[int, list[Movement]]:
        count = 0
        movements: list[Movement] = []
        while count < _TURN_MOST:
            envelopes = await turn.next_envelopes(_READ_MOST)
            for envelope in envelopes:
                movements += self._movements_of(envelope)
            count += len(envelopes)
            if len(envelopes) < _READ_MOST:
                break
        return count, movements


def _person(movement: Movement) -> Person:
    return movement.tenant_id, movement.user_id
