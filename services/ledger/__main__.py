"""Runs one process of LedgerService: `python -m services.ledger`."""

import services.shared.starting  # noqa: F401 - before what it makes faster

# isort: split
from services.ledger.app import build
from services.shared.rpc.process import run_process

if __name__ == "__main__":
    run_process(build)
