"""Is LocationService: positions in from drivers, out to passengers, dispatchers and feeds."""
