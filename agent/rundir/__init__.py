"""The directory of a run: its files, lock, stop request and detached process."""
