"""The tables that publishing and consuming need, as SQL for a service's migration.

A migration holds a copy, because it must not change when this does; a style test compares them.
"""

from string import Template

_EVENTS = Template("""
-- What happened, in the same transaction as it happened: the store of events per aggregate, without
-- gaps, and what is published from it. `services/shared/events` reads and writes it.
CREATE TABLE $schema.events (
  aggregate_type    text NOT NULL CHECK (char_length(aggregate_type) BETWEEN 1 AND 64),
  aggregate_id      text NOT NULL CHECK (char_length(aggregate_id) BETWEEN 1 AND 128),
  aggregate_version bigint NOT NULL CHECK (aggregate_version >= 1),
  tenant_id         uuid NOT NULL,
  envelope          bytea NOT NULL,
  transaction_id    xid8 NOT NULL DEFAULT pg_current_xact_id(),
  event_number      bigint GENERATED ALWAYS AS IDENTITY,
  PRIMARY KEY (aggregate_type, aggregate_id, aggregate_version)
);
CREATE INDEX events_in_order ON $schema.events (transaction_id, event_number);

-- How far events are published; one row, whose lock is the turn to publish.
CREATE TABLE $schema.event_cursor (
  is_only        boolean PRIMARY KEY DEFAULT true CHECK (is_only),
  transaction_id xid8 NOT NULL,
  event_number   bigint NOT NULL
);
INSERT INTO $schema.event_cursor (transaction_id, event_number) VALUES ('0', 0);
""")

_PUBLISHED = Template("""
-- What Valkey answered last, of each of its streams: a Valkey that has less lost something.
ALTER TABLE $schema.event_cursor ADD COLUMN stream_ids text[] NOT NULL DEFAULT '{}';
""")

_CONSUMERS = Template("""
-- How far each consumer has read each partition of a service's events; a row's lock is the turn.
CREATE TABLE $schema.event_positions (
  consumer  text NOT NULL CHECK (char_length(consumer) BETWEEN 1 AND 64),
  source    text NOT NULL CHECK (char_length(source) BETWEEN 1 AND 64),
  partition smallint NOT NULL,
  stream_id text NOT NULL DEFAULT '0-0',
  PRIMARY KEY (consumer, source, partition)
);

-- What each consumer has taken, so that what comes twice takes effect once. Entries are deleted
-- when they are older than anything that can come again.
CREATE TABLE $schema.event_inbox (
  consumer    text NOT NULL,
  event_id    uuid NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (consumer, event_id)
);
CREATE INDEX event_inbox_oldest ON $schema.event_inbox (create_time);

-- What could not be handled and waits for another try, what waits behind it, and the dead letters.
CREATE TABLE $schema.event_failures (
  failure_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  consumer      text NOT NULL,
  event_id      uuid NOT NULL,
  aggregate     text NOT NULL,
  envelope      bytea NOT NULL,
  attempt_count integer NOT NULL,
  error         text NOT NULL,
  next_time     timestamptz NOT NULL,
  create_time   timestamptz NOT NULL DEFAULT now(),
  dead_time     timestamptz,
  UNIQUE (consumer, event_id)
);
CREATE INDEX event_failures_waiting ON $schema.event_failures (consumer, aggregate, failure_id)
  WHERE dead_time IS NULL;

-- What people did with dead letters, and why.
CREATE TABLE $schema.dead_letter_audit (
  audit_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  action      text NOT NULL CHECK (action IN ('RETRY', 'DROP')),
  consumer    text NOT NULL,
  event_id    uuid NOT NULL,
  aggregate   text NOT NULL,
  error       text NOT NULL,
  reason      text NOT NULL CHECK (char_length(reason) <= 500),
  actor       text NOT NULL CHECK (char_length(actor) BETWEEN 1 AND 128),
  create_time timestamptz NOT NULL DEFAULT now(),
  CHECK (action <> 'DROP' OR reason <> '')
);
""")


def event_tables(schema: str) -> str:
    """Return the SQL of a schema that writes events."""
    return _EVENTS.substitute(schema=schema)


def published_streams(schema: str) -> str:
    """Return the SQL of a schema that writes events, to follow `event_tables`."""
    return _PUBLISHED.substitute(schema=schema)


def consumer_tables(schema: str) -> str:
    """Return the SQL of a schema that consumes events."""
    return _CONSUMERS.substitute(schema=schema)
