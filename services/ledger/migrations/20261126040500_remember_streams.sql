-- migrate:up

-- What Valkey answered last, of each of its streams: a Valkey that has less lost something.
ALTER TABLE ledger.event_cursor ADD COLUMN stream_ids text[] NOT NULL DEFAULT '{}';

-- migrate:down
-- Migrations only go forward.
