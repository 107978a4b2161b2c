"""The payloads, one package for each domain."""

__all__ = ["ANONYMOUS"]

ANONYMOUS = "anonymous"
"""The user of those who do not say who they are."""
