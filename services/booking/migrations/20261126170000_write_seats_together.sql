-- migrate:up

-- A claim's only change is from its hold to its booking: with room in its page that touches no index.
ALTER TABLE booking.seat_claims SET (fillfactor = 50);

-- How many batches have changed the trip's seats or holds. What a process remembers of them is of this count: a hold that is
-- extended, or being paid, changes no seat and so no seat_version.
ALTER TABLE booking.trips ADD COLUMN batch_count bigint NOT NULL DEFAULT 0;
GRANT UPDATE (batch_count) ON booking.trips TO wayfare_booking;

DROP FUNCTION booking.take_turns(uuid, uuid[], uuid[], timestamptz, text[], text[], uuid[]);

-- What a batch of changes of seats begins with, by one way: locks its trips in the order of their ids, counts what these users hold, and
-- finds the calls that were made before. Rows of three kinds: TRIP with its versions, the count of batches that changed it and its
-- update_time, USER with a count, REQUEST with what it did; `id` says which trip, user or request it is.
CREATE FUNCTION booking.take_turns(
  tenant uuid, trips uuid[], users uuid[], now_is timestamptz, caller_ids text[], methods text[], request_ids uuid[]
) RETURNS TABLE (kind text, id text, first_number bigint, second_number bigint, third_number bigint, moment timestamptz,
  caller_id text, method text, body_hash bytea, resource_id text)
  LANGUAGE plpgsql VOLATILE SET search_path = ''
  -- Trip by trip and user by user, whatever the planner believed of the tables when it planned.
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
  SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN QUERY
    SELECT 'TRIP', t.* FROM (SELECT one FROM unnest(trips) AS one ORDER BY one) AS wanted
    CROSS JOIN LATERAL (
      SELECT own.trip_id::text, own.seat_version, own.event_version, own.batch_count, own.update_time,
        NULL::text, NULL::text, NULL::bytea, NULL::text
      FROM booking.trips own WHERE own.trip_id = wanted.one FOR NO KEY UPDATE) AS t;
  -- Statements of their own, because they must see what was committed while the locks were waited for.
  IF cardinality(users) > 0 THEN
    RETURN QUERY
      SELECT 'USER', c.user_id::text, c.hold_count, NULL::bigint, NULL::bigint, NULL::timestamptz,
        NULL::text, NULL::text, NULL::bytea, NULL::text
      FROM booking.count_live_holds(users, now_is) AS c;
  END IF;
  IF cardinality(request_ids) > 0 THEN
    RETURN QUERY
      SELECT 'REQUEST', r.* FROM unnest(caller_ids, methods, request_ids) AS wanted (caller_id, method, request_id)
      CROSS JOIN LATERAL (
        SELECT own.request_id::text, NULL::bigint, NULL::bigint, NULL::bigint, NULL::timestamptz, own.caller_id, own.method,
          own.body_hash, own.resource_id::text
        FROM booking.requests own
        WHERE own.tenant_id = tenant AND own.caller_id = wanted.caller_id AND own.method = wanted.method
          AND own.request_id = wanted.request_id OFFSET 0) AS r;
  END IF;
END $$;

REVOKE EXECUTE ON FUNCTION booking.take_turns(uuid, uuid[], uuid[], timestamptz, text[], text[], uuid[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION booking.take_turns(uuid, uuid[], uuid[], timestamptz, text[], text[], uuid[]) TO wayfare_booking;

-- Writes what a batch changed: the versions of its trips, what became of holds, and how the claims differ: first what
-- nobody has any more, then what has another owner or state, then what is new. Legs are the bits of a number. Raises WB002
-- if what was there is not what the batch was decided on, and unique_violation for a seat that somebody has.
CREATE OR REPLACE FUNCTION booking.write_seats(
  tenant uuid,
  changed_trips uuid[], seat_versions bigint[], event_versions bigint[],
  changed_holds uuid[], hold_states text[], expire_times timestamptz[], extension_counts smallint[], booking_ids uuid[],
  gone_trips uuid[], gone_seats text[], gone_legs bigint[], gone_owners uuid[],
  moved_trips uuid[], moved_seats text[], moved_legs bigint[], moved_owners uuid[], moved_states text[], moved_to uuid[],
  new_trips uuid[], new_seats text[], new_legs bigint[], new_states text[], new_owners uuid[]
) RETURNS void LANGUAGE plpgsql SET search_path = ''
  -- Seat by seat, whatever the planner believes about the size of arrays and tables.
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
  -- Planning costs more than running does.
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  expected bigint;
  written bigint;
BEGIN
  -- By the place of the row, which the batch has locked: of a plain join the planner would go through all trips or holds for
  -- each batch, because there were few when it planned, and a statement for each row costs twice as much.
  UPDATE booking.trips t SET seat_version = c.seat_version, event_version = c.event_version,
    batch_count = t.batch_count + 1
  FROM unnest(changed_trips, seat_versions, event_versions) AS c (trip_id, seat_version, event_version)
  CROSS JOIN LATERAL (SELECT own.ctid AS place FROM booking.trips own WHERE own.trip_id = c.trip_id OFFSET 0) AS found
  WHERE t.ctid = found.place;
  GET DIAGNOSTICS written = ROW_COUNT;
  IF written <> cardinality(changed_trips) THEN
    RAISE EXCEPTION 'a trip is not there' USING ERRCODE = 'WB002';
  END IF;
  IF cardinality(changed_holds) > 0 THEN
    UPDATE booking.holds h SET state = c.state, expire_time = c.expire_time, extension_count = c.extension_count,
      booking_id = c.booking_id
    FROM unnest(changed_holds, hold_states, expire_times, extension_counts, booking_ids)
      AS c (hold_id, state, expire_time, extension_count, booking_id)
    CROSS JOIN LATERAL (SELECT own.ctid AS place FROM booking.holds own WHERE own.hold_id = c.hold_id OFFSET 0) AS found
    WHERE h.ctid = found.place;
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

-- migrate:down
-- Migrations only go forward.
