-- migrate:up

-- Holds that ended without a booking are forgotten some days later. A booking's hold stays as long as the booking does.
CREATE INDEX holds_to_forget ON booking.holds (expire_time)
  WHERE state IN ('RELEASED', 'EXPIRED') AND booking_id IS NULL;

CREATE POLICY sweeper_forgets_holds ON booking.holds FOR DELETE
  USING ((SELECT booking.is_sweeper()));
-- Nobody else deletes a hold, and nobody one that keeps seats or became a booking.
CREATE POLICY ended_holds_alone_are_forgotten ON booking.holds AS RESTRICTIVE FOR DELETE
  USING ((SELECT booking.is_sweeper()) AND state IN ('RELEASED', 'EXPIRED') AND booking_id IS NULL);
GRANT DELETE ON booking.holds TO wayfare_booking;

-- migrate:down
-- Migrations only go forward.
