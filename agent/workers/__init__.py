"""Where runs are executed: threads on this machine or tasks on a Ray cluster."""
