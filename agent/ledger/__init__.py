"""The append-only log of a run, its events, and the state that they fold to."""
