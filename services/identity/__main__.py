"""Runs one process of IdentityService: `python -m services.identity`."""

from services.identity.app import build
from services.shared.rpc.process import run_process

if __name__ == "__main__":
    run_process(build)
