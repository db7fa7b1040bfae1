"""The git repository of a target: objects and refs, written without touching the user's checkout."""
