"""The use cases of IdentityService, one class per group. servicer.py calls them.

They know no SQL and no proto.
"""
