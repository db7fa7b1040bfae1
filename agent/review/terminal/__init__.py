"""Terminal views of a session."""
