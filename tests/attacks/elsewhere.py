"""Rows of the battery that involve no sandbox or need a GPU: the result, its test, sandboxes with another result."""

ELSEWHERE: dict[int, tuple[str, str, dict[str, str]]] = {
    23: ("diff outside the editable file", "refused before anything runs (`test_attacks_git.py`)", {}),
    24: ("git hooks and configuration", "never run (`test_attacks_git.py`)", {}),
    27: ("instructions in the log", "fenced as data and cut before the next prompt (`test_attacks_git.py`)", {}),
    28: (
        "GPU memory after death",
        "not run: needs a GPU (`tests/gpu/test_attacks_gpu.py`)",
        {"bwrap": "the memory is free again, on an NVIDIA H200 (`tests/gpu/test_attacks_gpu.py`)"},
    ),
}
