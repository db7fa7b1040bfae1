"""The code proposer: unified diffs to the whole file, written by a model."""
