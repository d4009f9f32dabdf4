"""IdentityService: who is calling. Accounts, sessions and API keys.

README.md has the one page about it.
"""
