"""Starts LocationService: `python -m services.location`."""

import services.shared.starting  # noqa: F401 - before what it makes faster

# isort: split
from services.location.app import build
from services.shared.rpc.process import run_process

if __name__ == "__main__":
    run_process(build)
