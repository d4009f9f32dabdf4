"""Every refusal of BookingService, one class per reason of error_reason.proto.

A file for each part of the service; what every list can raise is in `lists.py`.
"""
