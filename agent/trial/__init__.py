"""One run of one commit: stage, train in the sandbox, score."""
