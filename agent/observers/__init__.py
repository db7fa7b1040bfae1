"""Observers of a session: terminal, session.log, progress.json, notifications."""
