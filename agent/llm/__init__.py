"""Model servers: client, prompts, transcripts, and supervision of a vLLM server."""
