-- migrate:up

-- Which trip of the imported timetable a tracked trip is, and how many passengers its vehicle carries.
ALTER TABLE location.tracked_trips
  ADD COLUMN timetable_trip_id text NOT NULL DEFAULT '' CHECK (length(timetable_trip_id) <= 128),
  ADD COLUMN service_date date,
  ADD COLUMN capacity_count integer NOT NULL DEFAULT 0 CHECK (capacity_count >= 0),
  ADD CHECK (timetable_trip_id = '' OR service_date IS NOT NULL);

-- migrate:down
