"""The append-only event log of a run, and the state that its events fold to."""
