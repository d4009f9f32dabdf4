"""Recorded vehicles on the road again: drivers, followers, and what became of every position."""
