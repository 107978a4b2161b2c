"""Evento: reactive, event-driven commands and queries (RECQ) in Python."""
