"""The idea bank, and the proposer that tries its recipes."""
