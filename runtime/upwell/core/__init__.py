"""Decisions only: records, states, options and rules. No asyncio, clock, files or threads in here."""
