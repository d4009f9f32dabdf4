-- migrate:up

-- What a batch of changes of seats begins with, by one way: locks its trips in the order of their ids, counts what these users hold, and
-- finds the calls that were made before. Rows of three kinds: TRIP with its versions and update_time, USER with a count, REQUEST with
-- what it did; `id` says which trip, user or request it is.
CREATE FUNCTION booking.take_turns(
  tenant uuid, trips uuid[], users uuid[], now_is timestamptz, caller_ids text[], methods text[], request_ids uuid[]
) RETURNS TABLE (kind text, id text, first_number bigint, second_number bigint, moment timestamptz, caller_id text, method text,
  body_hash bytea, resource_id text)
  LANGUAGE plpgsql VOLATILE SET search_path = ''
  -- Trip by trip and user by user, whatever the planner believed of the tables when it planned.
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  RETURN QUERY
    SELECT 'TRIP', t.* FROM (SELECT one FROM unnest(trips) AS one ORDER BY one) AS wanted
    CROSS JOIN LATERAL (
      SELECT own.trip_id::text, own.seat_version, own.event_version, own.update_time,
        NULL::text, NULL::text, NULL::bytea, NULL::text
      FROM booking.trips own WHERE own.trip_id = wanted.one FOR NO KEY UPDATE) AS t;
  -- Statements of their own, because they must see what was committed while the locks were waited for.
  IF cardinality(users) > 0 THEN
    RETURN QUERY
      SELECT 'USER', c.user_id::text, c.hold_count, NULL::bigint, NULL::timestamptz, NULL::text, NULL::text, NULL::bytea, NULL::text
      FROM booking.count_live_holds(users, now_is) AS c;
  END IF;
  IF cardinality(request_ids) > 0 THEN
    RETURN QUERY
      SELECT 'REQUEST', r.* FROM unnest(caller_ids, methods, request_ids) AS wanted (caller_id, method, request_id)
      CROSS JOIN LATERAL (
        SELECT own.request_id::text, NULL::bigint, NULL::bigint, NULL::timestamptz, own.caller_id, own.method,
          own.body_hash, own.resource_id::text
        FROM booking.requests own
        WHERE own.tenant_id = tenant AND own.caller_id = wanted.caller_id AND own.method = wanted.method
          AND own.request_id = wanted.request_id OFFSET 0) AS r;
  END IF;
END $$;

REVOKE EXECUTE ON FUNCTION booking.take_turns(uuid, uuid[], uuid[], timestamptz, text[], text[], uuid[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION booking.take_turns(uuid, uuid[], uuid[], timestamptz, text[], text[], uuid[]) TO wayfare_booking;

-- migrate:down
-- Migrations only go forward.
