"""A read-only live page over the runs of a folder (``overnight serve``)."""
