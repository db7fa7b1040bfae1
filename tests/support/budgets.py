"""Time bounds of the tests, in seconds.

A step that takes longer than its bound on a slow machine under load is broken. No bound is a statement about speed:
each is at least ten times what an idle machine with two cores needs. tests/e2e/README.md lists the times of its tests.
"""

PROGRAM_SECONDS = 300  # a small program, started by a test
COMMAND_SECONDS = 600  # one `overnight` command without a trial, or one `docker` command
SESSION_SECONDS = 1500  # one `overnight run` or `overnight demo`

# Trials of small targets
STARTUP_SECONDS = 300  # from the start of a trial to its clock: imports and warm-up
TRAINING_SECONDS = 300
SCORING_SECONDS = 240
ANSWER_SECONDS = 60  # one answer of a process that runs already

SERVER_START_SECONDS = 900  # vLLM on a CPU: 15 to 45 s on an idle machine
SERVER_STOP_SECONDS = 120
REQUEST_SECONDS = 60  # one HTTP request to a local server
CLUSTER_SECONDS = 600  # Ray: a node, a run or a message
BATTERY_SECONDS = 7200  # all attacks in one sandbox, beside other tests

# End-to-end tests: one test of a file. A test file without a line here does not run.
TEST_SECONDS = {
    "test_sessions.py": 1800,
    "test_docker_sandbox.py": 900,
    "test_vllm_server.py": 900,
    "test_llm_serve.py": 2400,
    "test_attacks.py": 900,
    "test_centaur.py": 1800,
    "test_compare.py": 1800,
    "test_foreign.py": 1800,
    "test_kills.py": 1800,
    "test_stacked_kills.py": 900,
    "test_ray.py": 1800,
    "test_trackers.py": 1800,
}
