"""Rows of the battery that involve no sandbox or need a GPU: the result, and the test that shows it."""

ELSEWHERE = {
    23: ("diff outside the editable file", "refused before anything runs (`test_attacks_git.py`)"),
    24: ("git hooks and configuration", "never run (`test_attacks_git.py`)"),
    27: ("instructions in the log", "fenced as data and cut before the next prompt (`test_attacks_git.py`)"),
    28: ("GPU memory after death", "needs a GPU (`tests/gpu/test_attacks_gpu.py`; bubblewrap passed)"),
}
