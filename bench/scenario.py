"""What a load is made of, and the named ones whose figures are in README.md."""

from dataclasses import dataclass
from enum import StrEnum


class Route(StrEnum):
    """Says how the load reaches the location processes."""

    DIRECT = "direct"
    EDGE = "edge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Is one load. Positions are sent evenly spread; drivers are on process 1, followers on 2.

    In a ring each process has as many drivers as the others, whose followers are on the next one.
    """

    name: str
    about: str
    route: Route = Route.DIRECT
    drivers: int = 1_000
    interval_seconds: float = 0.2
    followers_per_trip: int = 1
    fleet_followers: int = 0
    location_processes: int = 2
    duration_seconds: float = 20.0
    warmup_seconds: float = 5.0
    streams_per_connection: int = 100
    open_per_second: int = 500
    generator_processes: int = 1
    tick_seconds: float = 0.005
    sends: bool = True
    spread: bool = False
    ring: bool = False

    @property
    def positions_per_second(self) -> float:
        """Return how many positions all drivers send in a second."""
        return self.drivers / self.interval_seconds

    @property
    def follower_count(self) -> int:
        """Return how many followers there are in all."""
        return self.drivers * self.followers_per_trip + self.fleet_followers


def _ring(processes: int) -> Scenario:
    """Return the load in which every process has the same to do, however many there are."""
    return Scenario(
        name=f"ring-{processes}",
        about=f"3,000 positions a second on each of {processes} processes, followers on the next",
        drivers=600 * processes,
        location_processes=processes,
        generator_processes=processes,
        ring=True,
    )


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="throughput",
            about="5,000 positions a second, one follower each on the other process",
        ),
        Scenario(
            name="throughput-10k",
            about="10,000 positions a second, one follower each on the other process",
            drivers=2_000,
        ),
        Scenario(
            name="throughput-edge",
            about="the same through Envoy",
            route=Route.EDGE,
        ),
        Scenario(
            name="fanout",
            about="1,000 positions a second with 20 followers each",
            drivers=200,
            followers_per_trip=20,
        ),
        Scenario(
            name="fleet",
            about="10,000 vehicles at one position per 3 s, one follower of the whole fleet",
            drivers=10_000,
            interval_seconds=3.0,
            followers_per_trip=0,
            fleet_followers=1,
            warmup_seconds=6.0,
        ),
        Scenario(
            name="fleet-20",
            about="the same with 20 followers of the whole fleet",
            drivers=10_000,
            interval_seconds=3.0,
            followers_per_trip=0,
            fleet_followers=20,
            warmup_seconds=6.0,
        ),
        _ring(1),
        _ring(2),
        _ring(3),
        Scenario(
            name="storm",
            about="5,000 driver streams opened at once through Envoy; none may be refused",
            route=Route.EDGE,
            drivers=5_000,
            followers_per_trip=0,
            open_per_second=0,
            duration_seconds=0,
            warmup_seconds=0,
            sends=False,
            spread=True,
        ),
        Scenario(
            name="storm-direct",
            about="5,000 driver streams opened at once on one process; none may be refused",
            drivers=5_000,
            followers_per_trip=0,
            open_per_second=0,
            duration_seconds=0,
            warmup_seconds=0,
            sends=False,
        ),
        Scenario(
            name="many",
            about="10,000 drivers at one position per 3 s and 10,000 followers",
            drivers=10_000,
            interval_seconds=3.0,
            duration_seconds=30.0,
            warmup_seconds=6.0,
        ),
        Scenario(
            name="many-edge",
            about="the same through Envoy",
            route=Route.EDGE,
            drivers=10_000,
            interval_seconds=3.0,
            duration_seconds=30.0,
            warmup_seconds=6.0,
        ),
    )
}
