"""One night: the loop and its parts."""
