"""What a person or program reads of a session."""
