"""`wayfare follow`: a trip as its passengers see it, live in the terminal."""

import asyncio
from collections import deque
from datetime import datetime

import typer
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from services.stack.command.console import console
from services.stack.command.session import EdgeOption, edge_of
from services.stack.home import Home
from services.stack.session_file import SessionFile
from wayfare.location.v1 import position_pb2, trip_pb2, trip_update_pb2
from wayfare_client import TripFollower, WayfareClient

_EVENTS_SHOWN = 12


def follow(trip_id: str = typer.Argument(metavar="TRIP"), edge: EdgeOption = "") -> None:
    """Show a trip live: position, status, stops, passengers, until it ends or Ctrl-C.

    Needs a session that may follow the trip: `wayfare login --admin` may follow any of the demo
    operator's.

    Example: wayfare follow 0198c0de-0000-7000-8000-000000000001
    """
    home = Home()
    session = SessionFile(home).require()
    try:
        asyncio.run(_run(home, edge_of(home, edge), session.user.tenant_id, trip_id))
    except KeyboardInterrupt:
        console.print("Stopped following.")


async def _run(home: Home, edge: str, tenant_id: str, trip_id: str) -> None:
    view = TripView(trip_id)
    async with (
        WayfareClient(edge, tenant_id=tenant_id, store=SessionFile(home)) as client,
        client.follow_trip(trip_id) as follower,
    ):
        with Live(view.render(follower), console=console, refresh_per_second=8) as live:
            async for update in follower:
                view.take(update)
                live.update(view.render(follower))
    console.print(f"The trip has ended after {view.position_count} positions.")


class TripView:
    """Keeps what was heard of a trip, and draws it."""

    def __init__(self, trip_id: str) -> None:
        """Begin with nothing heard."""
        self._trip_id = trip_id
        self._vehicle_id = ""
        self._status = trip_pb2.TRIP_STATUS_UNSPECIFIED
        self._position: position_pb2.Position | None = None
        self._next_stop = ""
        self._boarded = ""
        self._events: deque[str] = deque(maxlen=_EVENTS_SHOWN)
        self.position_count = 0

    def take(self, update: trip_update_pb2.TripUpdate) -> None:
        """Take in one update."""
        match update.WhichOneof("update"):
            case "snapshot":
                self._take_snapshot(update.snapshot)
            case "position":
                self._take_position(update.position)
            case "status":
                self._status = update.status.status
                self._note(f"status {_status_name(self._status)}")
            case "stop_progress":
                kind = trip_update_pb2.StopProgressKind.Name(update.stop_progress.kind)
                stop = update.stop_progress.stop_id
                self._note(f"{kind.removeprefix('STOP_PROGRESS_KIND_').lower()} {stop}")
            case "eta":
                self._next_stop = _stop(update.eta)
            case "boarding":
                self._boarded = _boarding(update.boarding)
                self._note(f"passengers {self._boarded}")
            case _:
                pass

    def render(self, follower: TripFollower) -> Panel:
        """Draw what is known."""
        facts = Table.grid(padding=(0, 2))
        facts.add_row("vehicle", self._vehicle_id or "-")
        facts.add_row("status", _status_name(self._status))
        facts.add_row("position", _position(self._position))
        facts.add_row("next stop", self._next_stop or "-")
        facts.add_row("passengers", self._boarded or "-")
        facts.add_row("heard", f"{self.position_count} positions")
        notes = [f"{follower.reconnect_count} reconnects"] if follower.reconnect_count else []
        notes += ["degraded: positions may be late"] if follower.degraded else []
        events = Text("\n".join(self._events), style="dim")
        return Panel(
            Group(facts, Text(), events), title=f"trip {self._trip_id}", subtitle=", ".join(notes)
        )

    def _take_snapshot(self, snapshot: trip_update_pb2.TripSnapshot) -> None:
        self._vehicle_id = snapshot.vehicle_id
        self._status = snapshot.status
        if snapshot.HasField("next_stop"):
            self._next_stop = _stop(snapshot.next_stop)
        if snapshot.HasField("boarding"):
            self._boarded = _boarding(snapshot.boarding)
        if snapshot.HasField("position"):
            self._take_position(snapshot.position)
        self._note("snapshot after a gap" if snapshot.gap else "snapshot")

    def _take_position(self, position: position_pb2.Position) -> None:
        self._position = position
        self.position_count += 1
        self._note(_position(position))

    def _note(self, what: str) -> None:
        self._events.append(f"{datetime.now():%H:%M:%S}  {what}")  # noqa: DTZ005 the reader's own time


def _status_name(status: trip_pb2.TripStatus.ValueType) -> str:
    name = trip_pb2.TripStatus.Name(status).removeprefix("TRIP_STATUS_")
    return "not begun" if name == "UNSPECIFIED" else name.lower()


def _position(position: position_pb2.Position | None) -> str:
    if position is None:
        return "-"
    text = f"{position.location.latitude:.5f}, {position.location.longitude:.5f}"
    if position.HasField("heading_degrees"):
        text += f"  heading {position.heading_degrees:.0f}°"
    if position.HasField("speed_meters_per_second"):
        text += f"  {position.speed_meters_per_second * 3.6:.0f} km/h"
    return text


def _stop(eta: trip_update_pb2.StopEta) -> str:
    moment = eta.expected_arrival_time.ToDatetime()
    return f"{eta.stop_id} at {moment:%H:%M:%S} UTC, {eta.distance_meters:.0f} m away"


def _boarding(boarding: trip_update_pb2.BoardingChange) -> str:
    return f"{boarding.boarded_count} of {boarding.expected_count}"
