"""Every time bound of the end-to-end tests, in one table.

A bound is what a test may take on a slow, busy machine with two cores before something must be broken; nothing here
is a statement about speed. README.md has what each part really took.
"""

# Seconds that one test of a file may take; a test file without a line here does not run.
TEST_SECONDS = {
    "test_sessions.py": 900,
    "test_docker_sandbox.py": 180,
    "test_vllm_server.py": 300,
    "test_llm_serve.py": 1500,
    "test_attacks.py": 300,
    "test_centaur.py": 900,
    "test_compare.py": 900,
    "test_foreign.py": 300,
    "test_kills.py": 600,
    "test_ray.py": 600,
}

SERVER_START_SECONDS = 420  # vLLM on a CPU: 15 to 45 s when nothing else runs
SERVER_STOP_SECONDS = 60
COMMAND_SECONDS = 120  # one `overnight` command that trains nothing
SESSION_SECONDS = 600  # one `overnight run` or `overnight demo`
