"""Takes positions in one call, presence, and answers where a vehicle is.

The unary twins of the streams.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.location.domain.positions import DAY_MILLISECONDS, Fix, PositionGate, Refusal
from services.location.errors import VehicleNotLiveError
from services.location.operations.batcher import UpdateBatcher
from services.location.ports.history import LatestRow
from services.location.ports.live import (
    ACCEPTED,
    DUPLICATE,
    OLD,
    POSITION,
    REPLACED,
    TRIP_OVER,
    DriverState,
    LiveStore,
    Publisher,
    Update,
)
from services.shared.errors import DependencyUnavailableError, OverloadedError


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedPosition:
    """Is one position of a batch."""

    fix: Fix
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOutcome:
    """Says what became of a batch: how many became live, and why the others did not, by index."""

    accepted_count: int
    refusals: dict[int, Refusal]


class LastKnown(Protocol):
    """Answers from the database while live state is away."""

    async def latest_of_vehicle(self, tenant_id: str, vehicle_id: str) -> LatestRow | None:
        """Return where the vehicle was last, or None."""
        ...


class _Batch:
    """Collects the verdicts of one batch."""

    def __init__(self, count: int) -> None:
        self.verdicts: dict[int, str] = {}
        self._count = count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def decided(self, update: Update, verdict: str) -> None:
        self.verdicts[update.seq] = verdict
        if len(self.verdicts) == self._count and not self.done.done():
            self.done.set_result(None)


class Reports:
    """Takes what drivers report in single calls."""

    def __init__(
        self,
        *,
        live: LiveStore,
        batcher: UpdateBatcher,
        last_known: LastKnown,
        on_late: Callable[[Publisher, str, Sequence[Fix]], None],
    ) -> None:
        """Write by `batcher`, read from `live`, or from `last_known` while it is away.

        `on_late` gets positions that are too old to be live.
        """
        self._live = live
        self._batcher = batcher
        self._last_known = last_known
        self._on_late = on_late

    async def report(
        self,
        positions: Sequence[ReportedPosition],
        *,
        publisher: Publisher,
        trip_id: str,
        gate: PositionGate,
        now_milliseconds: int,
    ) -> ReportOutcome:
        """Make those positions live that the rules let pass, in the order of capture."""
        refusals: dict[int, Refusal] = {}
        updates: list[Update] = []
        order = sorted(range(len(positions)), key=lambda i: positions[i].fix.capture_milliseconds)
        for index in order:
            position = positions[index]
            refusal = gate.judge(position.fix, now_milliseconds)
            if refusal is not None:
                refusals[index] = refusal
                continue
            # No session: the batch fences nobody off; capture time alone decides.
            updates.append(
                Update(publisher, "", index, POSITION, trip_id, position.payload, position.fix)
            )
        for index, verdict in (await self._write(updates)).items():
            if verdict == OLD:
                refusals[index] = Refusal.TOO_OLD
            elif verdict in {TRIP_OVER, REPLACED}:
                refusals[index] = Refusal.TRIP_NOT_TRACKED
            elif verdict not in {ACCEPTED, DUPLICATE}:
                raise DependencyUnavailableError("valkey", retry_after_seconds=0.2)
        self._keep_late(positions, refusals, publisher, trip_id, now_milliseconds)
        return ReportOutcome(accepted_count=len(positions) - len(refusals), refusals=refusals)

    def _keep_late(
        self,
        positions: Sequence[ReportedPosition],
        refusals: dict[int, Refusal],
        publisher: Publisher,
        trip_id: str,
        now_milliseconds: int,
    ) -> None:
        """Let history have what is not newer than the driver's last, and not older than a day."""
        late = [
            positions[index].fix
            for index, refusal in refusals.items()
            if refusal is Refusal.TOO_OLD
            and now_milliseconds - positions[index].fix.capture_milliseconds <= DAY_MILLISECONDS
        ]
        if late:
            self._on_late(publisher, trip_id, late)

    async def _write(self, updates: Sequence[Update]) -> dict[int, str]:
        if not updates:
            return {}
        if not self._batcher.has_room:
            raise OverloadedError("too many positions wait to be written", retry_after_seconds=1.0)
        batch = _Batch(len(updates))
        for update in updates:
            self._batcher.add(update, batch)
        await batch.done
        return batch.verdicts

    async def vehicle_position(self, tenant_id: str, vehicle_id: str) -> tuple[DriverState, bool]:
        """Return where a vehicle of the tenant is, and whether the answer is degraded.

        Raises VehicleNotLiveError if nobody knows.
        """
        try:
            state = await self._live.vehicle_state(tenant_id, vehicle_id)
        except DependencyUnavailableError:
            return await self._last_known_state(tenant_id, vehicle_id), True
        if state is None or not state.position_payload:
            raise VehicleNotLiveError(vehicle_id)
        return state, False

    async def _last_known_state(self, tenant_id: str, vehicle_id: str) -> DriverState:
        row = await self._last_known.latest_of_vehicle(tenant_id, vehicle_id)
        if row is None:
            raise VehicleNotLiveError(vehicle_id)
        return DriverState(
            vehicle_id=vehicle_id,
            trip_id=row.trip_id,
            tenant_id=tenant_id,
            capture_milliseconds=row.fix.capture_milliseconds,
            received_milliseconds=row.receive_milliseconds,
            position_payload=row.payload,
        )
