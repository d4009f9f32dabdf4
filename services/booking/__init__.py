"""Is BookingService: seats of scheduled trips, each sold once on every leg."""
