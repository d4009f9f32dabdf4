"""Use cases; no SQL, no proto."""
