"""Holds the event tables of every service to those that services/shared/events works on."""

from pathlib import Path

import pytest

from services.shared.events.tables import consumer_tables, event_tables, published_streams

SERVICES = Path(__file__).parents[2] / "services"


@pytest.mark.parametrize(
    ("marker", "tables"),
    [
        ("events (", event_tables),
        ("events (", published_streams),
        ("event_positions (", consumer_tables),
    ],
    ids=["events", "published", "consumers"],
)
def test_event_tables_are_those_of_the_shared_room(marker: str, tables: object) -> None:
    assert callable(tables)
    held = []
    for migrations in SERVICES.glob("*/migrations"):
        schema = migrations.parent.name
        text = "".join(path.read_text() for path in sorted(migrations.glob("*.sql")))
        if f"CREATE TABLE {schema}.{marker}" in text:
            assert tables(schema).strip() in text
            held.append(schema)
    assert held
