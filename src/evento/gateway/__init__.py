"""The message gateway."""
