"""Pure rules of trips, seats, bookings and tickets; knows no store and no contract."""
