"""Runs one process of BookingService: `python -m services.booking`."""

import services.shared.starting  # noqa: F401 - before what it makes faster

# isort: split
from services.booking.app import build
from services.shared.rpc.process import run_process

if __name__ == "__main__":
    run_process(build)
