"""The directory of one session: files, lock, stop requests, results.tsv, running in the background."""
