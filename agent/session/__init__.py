"""A session: the loop over trials, and its parts."""
