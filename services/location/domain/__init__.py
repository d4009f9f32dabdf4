"""Holds what LocationService knows and decides, without stores and protos."""
