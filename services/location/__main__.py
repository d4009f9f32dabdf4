"""Starts LocationService: `python -m services.location`."""

from services.location.app import build
from services.location.settings import LocationSettings
from services.shared.rpc.process import run_process

if __name__ == "__main__":
    run_process(build, event_tick_seconds=LocationSettings().location_event_tick_seconds)
