"""The rows of the battery that no sandbox takes part in, or that need a GPU: what happens, and which test shows it."""

ELSEWHERE = {
    23: ("a diff that leads elsewhere", "refused before anything runs (`test_attacks_git.py`)"),
    24: ("git hooks and configuration", "never run (`test_attacks_git.py`)"),
    27: ("instructions in the log", "fenced as data and cut before the next prompt (`test_attacks_git.py`)"),
    28: ("GPU memory after death", "needs a GPU (`tests/gpu/test_attacks_gpu.py`)"),
}
