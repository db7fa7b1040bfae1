"""Every time budget of the tests, in seconds.

A budget says when something must be broken, never how fast it should be: each is at least ten times what an idle
machine with two cores needs. tests/e2e/README.md lists what the end-to-end tests take.
"""

from __future__ import annotations

PROGRAM = 300  # a small program, started by a test
COMMAND = 600  # one `overnight` command that trains nothing, or one `docker` command
SESSION = 1500  # one `overnight run` or `overnight demo`
SERVER_START = 900  # vLLM on a CPU: 15 to 45 s on an idle machine
SERVER_STOP = 120
REQUEST = 60  # one HTTP request to a local server
CLUSTER = 600  # Ray: a node, a run or a message

# For each file of tests/e2e, what one test may take; conftest.py refuses files without an entry.
E2E_TEST = {
    "test_sessions.py": 1800,
    "test_docker_sandbox.py": 900,
    "test_vllm_server.py": 900,
    "test_llm_serve.py": 2400,
    "test_attacks.py": 900,
    "test_centaur.py": 1800,
    "test_compare.py": 1800,
    "test_foreign.py": 1800,
    "test_kills.py": 1800,
    "test_ray.py": 1800,
}
