"""Suites that say what an adapter must do: one for each port. They need pytest and pytest-asyncio."""
