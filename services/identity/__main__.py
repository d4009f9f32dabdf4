"""Runs one process of IdentityService: `python -m services.identity`."""

import uvloop

from services.identity.app import run_until_signalled
from services.identity.settings import IdentitySettings
from services.shared.logs import configure_logging


def main() -> None:
    """Read the settings and serve until told to stop."""
    settings = IdentitySettings()
    configure_logging(
        log_format=settings.log_format, level=settings.log_level, instance=settings.instance
    )
    uvloop.run(run_until_signalled(settings))


if __name__ == "__main__":
    main()
