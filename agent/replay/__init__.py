"""Training the commits of a run branch again: recorded against replayed values."""
