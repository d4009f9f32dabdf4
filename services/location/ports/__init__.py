"""Holds what operations need from outside, one file per store."""
