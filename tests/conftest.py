"""Loads the fixtures that every test may ask for; each starts its server only when a test asks.

A file that others import from comes before them, so that pytest rewrites its asserts.
"""

import os

import pytest
from hypothesis import settings

# Workers of a parallel run are given 80 columns; commands are tested as without a terminal.
os.environ.pop("COLUMNS", None)

pytest_plugins = [
    "tests.support.stack_fixtures",
    "tests.support.envoy_fixtures",
    "tests.support.identity_fixtures",
    "tests.support.location_stores",
    "tests.support.ledger_fixtures",
    "tests.support.booking_fixtures",
]

# A busy machine is no failure.
settings.register_profile("wayfare", deadline=None)
settings.load_profile("wayfare")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the workers of a parallel run begin with the files that take long, and end with units.

    Otherwise one of them may be left with a long file when the others have nothing more to do.
    Within each of the three parts the order stays random.
    """
    if hasattr(config, "workerinput"):
        long = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (item.path not in long) + ("unit" in item.path.parts))
