"""Time bounds of the tests, in seconds.

A step that takes longer than its bound on a slow machine under load is broken. No bound is a statement about speed.
"""

# Trials of small targets
STARTUP_SECONDS = 300  # from the start of a trial to its clock: imports and warm-up
TRAINING_SECONDS = 300
SCORING_SECONDS = 240
ANSWER_SECONDS = 60  # one answer of a process that runs already

# End-to-end tests: one test of a file. A test file without a line here does not run.
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

SERVER_START_SECONDS = 420  # vLLM on a CPU: 15 to 45 s on an idle machine
SERVER_STOP_SECONDS = 60
COMMAND_SECONDS = 120  # one `overnight` command without a trial
SESSION_SECONDS = 600  # one `overnight run` or `overnight demo`
