-- migrate:up

-- Who has which seat on which legs, and until when. A row of seat_claims is one seat on one leg of one trip, and its primary
-- key is why nobody can sell or hold it twice. Whoever changes the claims of a trip has locked the trip's row before, and
-- writes one event for it.

-- state: ACTIVE and PAYING keep seats, the others kept some. `seats` lists number, class and price in minor units of each,
-- in the order of the layout: '12A/STANDARD/4500 12B/STANDARD/4500'.
CREATE TABLE booking.holds (
  hold_id         uuid PRIMARY KEY,
  tenant_id       uuid NOT NULL,
  trip_id         uuid NOT NULL,
  user_id         uuid NOT NULL,
  state           text NOT NULL CHECK (state IN ('ACTIVE', 'PAYING', 'BOOKED', 'RELEASED', 'EXPIRED')),
  from_stop_id    text NOT NULL,
  to_stop_id      text NOT NULL,
  from_stop_index smallint NOT NULL CHECK (from_stop_index >= 0),
  to_stop_index   smallint NOT NULL CHECK (to_stop_index <= 63),
  seats           text NOT NULL CHECK (seats ~ '^([A-Z0-9-]{1,8}/[A-Z0-9_]{1,16}/[0-9]+ ?)+$'),
  currency_code   text NOT NULL,
  expire_time     timestamptz NOT NULL,
  extension_count smallint NOT NULL,
  is_together     boolean NOT NULL,
  booking_id      uuid,
  body_hash       bytea NOT NULL CHECK (octet_length(body_hash) = 32),
  create_time     timestamptz NOT NULL,
  CONSTRAINT holds_go_forward CHECK (from_stop_index < to_stop_index)
) WITH (fillfactor = 70);
CREATE INDEX holds_that_expire ON booking.holds (expire_time) WHERE state IN ('ACTIVE', 'PAYING');
CREATE INDEX holds_of_trip ON booking.holds (trip_id) WHERE state IN ('ACTIVE', 'PAYING');
CREATE INDEX holds_of_user ON booking.holds (user_id, create_time DESC, hold_id DESC) WHERE state IN ('ACTIVE', 'PAYING');

-- owner_id is a hold when HELD, a booking when BOOKED, an override when BLOCKED. Seats that the layout blocks have no rows.
CREATE TABLE booking.seat_claims (
  trip_id     uuid NOT NULL,
  seat_number text NOT NULL CHECK (seat_number ~ '^[A-Z0-9-]{1,8}$'),
  leg_index   smallint NOT NULL CHECK (leg_index BETWEEN 0 AND 62),
  tenant_id   uuid NOT NULL,
  state       text NOT NULL CHECK (state IN ('HELD', 'BOOKED', 'BLOCKED')),
  owner_id    uuid NOT NULL,
  PRIMARY KEY (trip_id, seat_number, leg_index)
) WITH (fillfactor = 80);

-- What an ADMIN changed by hand, and why: only ever inserted.
CREATE TABLE booking.seat_overrides (
  override_id        uuid PRIMARY KEY,
  tenant_id          uuid NOT NULL,
  trip_id            uuid NOT NULL,
  seat_number        text NOT NULL,
  from_stop_index    smallint NOT NULL,
  to_stop_index      smallint NOT NULL,
  action             text NOT NULL CHECK (action IN ('BLOCK', 'UNBLOCK', 'RELEASE', 'MOVE')),
  target_seat_number text NOT NULL,
  reason             text NOT NULL CHECK (char_length(reason) BETWEEN 3 AND 500),
  user_id            uuid NOT NULL,
  hold_ids           uuid[] NOT NULL,
  booking_ids        uuid[] NOT NULL,
  body_hash          bytea NOT NULL CHECK (octet_length(body_hash) = 32),
  create_time        timestamptz NOT NULL
);
CREATE INDEX seat_overrides_newest ON booking.seat_overrides (tenant_id, create_time DESC, override_id DESC);
CREATE INDEX seat_overrides_of_trip ON booking.seat_overrides (trip_id, create_time DESC, override_id DESC);
CREATE TRIGGER seat_overrides_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON booking.seat_overrides
  FOR EACH STATEMENT EXECUTE FUNCTION booking.refuse_change();

-- Writes what a batch changed: the versions of its trips, what became of holds, and how the claims differ: first what
-- nobody has any more, then what has another owner or state, then what is new. Legs are the bits of a number. Raises WB002
-- if what was there is not what the batch was decided on, and unique_violation for a seat that somebody has.
CREATE FUNCTION booking.write_seats(
  tenant uuid,
  changed_trips uuid[], seat_versions bigint[], event_versions bigint[],
  changed_holds uuid[], hold_states text[], expire_times timestamptz[], extension_counts smallint[], booking_ids uuid[],
  gone_trips uuid[], gone_seats text[], gone_legs bigint[], gone_owners uuid[],
  moved_trips uuid[], moved_seats text[], moved_legs bigint[], moved_owners uuid[], moved_states text[], moved_to uuid[],
  new_trips uuid[], new_seats text[], new_legs bigint[], new_states text[], new_owners uuid[]
) RETURNS void LANGUAGE plpgsql SET search_path = ''
  -- Seat by seat, whatever the planner believes about the size of arrays and tables.
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  expected bigint;
  written bigint;
BEGIN
  UPDATE booking.trips t SET seat_version = c.seat_version, event_version = c.event_version
  FROM unnest(changed_trips, seat_versions, event_versions) AS c (trip_id, seat_version, event_version)
  WHERE t.trip_id = c.trip_id;
  GET DIAGNOSTICS written = ROW_COUNT;
  IF written <> cardinality(changed_trips) THEN
    RAISE EXCEPTION 'a trip is not there' USING ERRCODE = 'WB002';
  END IF;
  IF cardinality(changed_holds) > 0 THEN
    UPDATE booking.holds h SET state = c.state, expire_time = c.expire_time, extension_count = c.extension_count,
      booking_id = c.booking_id
    FROM unnest(changed_holds, hold_states, expire_times, extension_counts, booking_ids)
      AS c (hold_id, state, expire_time, extension_count, booking_id)
    WHERE h.hold_id = c.hold_id;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written <> cardinality(changed_holds) THEN
      RAISE EXCEPTION 'a hold is not there' USING ERRCODE = 'WB002';
    END IF;
  END IF;
  IF cardinality(gone_trips) > 0 THEN
    SELECT sum(bit_count(legs::bit(64))) INTO expected FROM unnest(gone_legs) AS legs;
    DELETE FROM booking.seat_claims c
    USING unnest(gone_trips, gone_seats, gone_legs, gone_owners) AS g (trip_id, seat_number, legs, owner_id),
      generate_series(0, 62) AS leg
    WHERE g.legs >> leg & 1 = 1 AND c.trip_id = g.trip_id AND c.seat_number = g.seat_number
      AND c.leg_index = leg::smallint AND c.owner_id = g.owner_id;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written <> expected THEN
      RAISE EXCEPTION 'seats are not those of who gives them up' USING ERRCODE = 'WB002';
    END IF;
  END IF;
  IF cardinality(moved_trips) > 0 THEN
    SELECT sum(bit_count(legs::bit(64))) INTO expected FROM unnest(moved_legs) AS legs;
    UPDATE booking.seat_claims c SET state = m.state, owner_id = m.new_id
    FROM unnest(moved_trips, moved_seats, moved_legs, moved_owners, moved_states, moved_to)
        AS m (trip_id, seat_number, legs, owner_id, state, new_id),
      generate_series(0, 62) AS leg
    WHERE m.legs >> leg & 1 = 1 AND c.trip_id = m.trip_id AND c.seat_number = m.seat_number
      AND c.leg_index = leg::smallint AND c.owner_id = m.owner_id;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written <> expected THEN
      RAISE EXCEPTION 'seats are not those of who hands them over' USING ERRCODE = 'WB002';
    END IF;
  END IF;
  INSERT INTO booking.seat_claims (trip_id, seat_number, leg_index, tenant_id, state, owner_id)
  SELECT n.trip_id, n.seat_number, leg, tenant, n.state, n.owner_id
  FROM unnest(new_trips, new_seats, new_legs, new_states, new_owners) AS n (trip_id, seat_number, legs, state, owner_id),
    generate_series(0, 62) AS leg
  WHERE n.legs >> leg & 1 = 1;
END $$;

-- Counts the holds of these users that keep seats, on all trips together, and makes batches of the same users follow each
-- other: a count is of what every batch before has written. In the order of their ids, after all locks of trips.
CREATE FUNCTION booking.count_live_holds(users uuid[], now_is timestamptz)
  RETURNS TABLE (user_id uuid, hold_count bigint) LANGUAGE plpgsql VOLATILE SET search_path = '' AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(id::text, 1))
  FROM (SELECT DISTINCT id FROM unnest(users) AS id ORDER BY id) AS ids;
  -- A statement of its own, because it must see what was committed while the locks were waited for.
  RETURN QUERY
    SELECT ids.id, counted.hold_count FROM (SELECT DISTINCT id FROM unnest(users) AS id) AS ids
    CROSS JOIN LATERAL (
      SELECT count(*) AS hold_count FROM booking.holds h
      WHERE h.user_id = ids.id AND h.state IN ('ACTIVE', 'PAYING') AND h.expire_time > now_is OFFSET 0) AS counted
    WHERE counted.hold_count > 0;
END $$;

ALTER TABLE booking.holds ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.holds FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.seat_claims ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.seat_claims FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.seat_overrides ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.seat_overrides FORCE ROW LEVEL SECURITY;

CREATE POLICY own_tenant ON booking.holds
  USING (tenant_id = (SELECT booking.current_tenant())
    AND ((SELECT booking.sees_all()) OR user_id = (SELECT booking.current_person())));
CREATE POLICY own_tenant ON booking.seat_claims
  USING (tenant_id = (SELECT booking.current_tenant()) AND (SELECT booking.sees_all()));
CREATE POLICY own_tenant ON booking.seat_overrides
  USING (tenant_id = (SELECT booking.current_tenant()) AND (SELECT booking.sees_all()));
-- Work over all tenants: finding what has run out.
CREATE POLICY sweeper_sees_holds ON booking.holds FOR SELECT
  USING ((SELECT booking.is_sweeper()));

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA booking FROM PUBLIC;
GRANT EXECUTE ON FUNCTION booking.write_seats(uuid, uuid[], bigint[], bigint[],
  uuid[], text[], timestamptz[], smallint[], uuid[], uuid[], text[], bigint[], uuid[], uuid[], text[], bigint[], uuid[], text[], uuid[],
  uuid[], text[], bigint[], text[], uuid[]), booking.count_live_holds(uuid[], timestamptz) TO wayfare_booking;
GRANT SELECT, INSERT ON booking.holds TO wayfare_booking;
GRANT UPDATE (state, expire_time, extension_count, booking_id) ON booking.holds TO wayfare_booking;
GRANT SELECT, INSERT, DELETE ON booking.seat_claims TO wayfare_booking;
GRANT UPDATE (state, owner_id) ON booking.seat_claims TO wayfare_booking;
GRANT SELECT, INSERT ON booking.seat_overrides TO wayfare_booking;

-- migrate:down
-- Migrations only go forward.
