"""The directory of one run: files, lock, stop requests, results.tsv, running in the background."""
