"""Observers of a session: terminal output, session log, heartbeat, notifications."""
