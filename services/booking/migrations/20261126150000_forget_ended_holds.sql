-- migrate:up

-- Holds that ended without a booking are forgotten some days later. A booking's hold stays as long as the booking does.
CREATE INDEX holds_to_forget ON booking.holds (expire_time)
  WHERE state IN ('RELEASED', 'EXPIRED') AND booking_id IS NULL;

-- The only way to delete a hold: nobody has the right to, not even one that keeps no seats. Returns how many were deleted.
CREATE FUNCTION booking.forget_holds(ended_before timestamptz, at_most bigint) RETURNS bigint
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = '' AS $$
DECLARE
  forgotten bigint;
BEGIN
  IF booking.is_sweeper() IS NOT TRUE THEN
    RAISE EXCEPTION 'holds are forgotten by the sweeper alone' USING ERRCODE = 'insufficient_privilege';
  END IF;
  -- Several processes may forget at once. Materialized, so that what is locked is looked for once.
  WITH old AS MATERIALIZED (
    SELECT hold_id FROM booking.holds
    WHERE state IN ('RELEASED', 'EXPIRED') AND booking_id IS NULL AND expire_time < ended_before
    ORDER BY expire_time LIMIT at_most FOR UPDATE SKIP LOCKED
  )
  DELETE FROM booking.holds WHERE hold_id IN (SELECT hold_id FROM old);
  GET DIAGNOSTICS forgotten = ROW_COUNT;
  RETURN forgotten;
END $$;

-- For the function, if its owner is no superuser: what it may see and delete.
CREATE POLICY sweeper_forgets_holds ON booking.holds
  USING ((SELECT booking.is_sweeper()) AND state IN ('RELEASED', 'EXPIRED') AND booking_id IS NULL);

REVOKE EXECUTE ON FUNCTION booking.forget_holds(timestamptz, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION booking.forget_holds(timestamptz, bigint) TO wayfare_booking;

-- migrate:down
-- Migrations only go forward.
