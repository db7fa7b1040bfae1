"""The model server: client, prompts, transcripts, and the vLLM process that Overnight can run."""
