"""apply_reply: what an edit may be, how a file's lines end, what messages say; and that nothing else is ever raised."""

from __future__ import annotations

import contextlib
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import ROOT

from agent.errors import NoEffect, PatchRejected
from agent.patch.apply import MAX_REPLY, MAX_RESULT, apply_reply, changed_lines, unified_diff
from agent.text import visible

FILE = (Path(__file__).parent / "replies" / "train.py").read_text()
EDIT = "--- a/train.py\n+++ b/train.py\n@@ -10 +10 @@\n-LEARNING_RATE = 0.02\n+LEARNING_RATE = 0.03\n"
EDITED = FILE.replace("LEARNING_RATE = 0.02", "LEARNING_RATE = 0.03")


def rejected(reply: str, text: str = FILE, path: str = "train.py") -> str:
    with pytest.raises(PatchRejected) as problem:
        apply_reply(text, reply, path)
    message = str(problem.value)
    assert message
    assert all(char == "\n" or char.isprintable() or char == "\t" for char in message)
    return message


def test_the_edit_is_applied() -> None:
    assert apply_reply(FILE, EDIT) == EDITED


@pytest.mark.parametrize(
    "name",
    [
        "train.py",
        "a/train.py",
        "./train.py",
        "b/./train.py",
        '"a/train.py"',
        "old/train.py",
        "train.py.orig",
        "train.py\t2026-01-01 10:00:00",
        "train.py (original)",
    ],
)
def test_names_that_mean_the_file(name: str) -> None:
    assert apply_reply(FILE, EDIT.replace("a/train.py", name)) == EDITED


def test_a_file_in_a_folder_may_be_named_by_its_last_parts() -> None:
    for name in ("a/nano/train.py", "train.py", "nano/train.py"):
        assert (
            apply_reply(FILE, EDIT.replace("a/train.py", name).replace("b/train.py", name), "nano/train.py") == EDITED
        )


@pytest.mark.parametrize(
    "name",
    [
        "a/other.py",
        "../train.py",
        "/etc/train.py",
        "a/../train.py",
        "a/nano/train.py",
        "rain.py",
        "train.py/x",
        "~/train.py",
        ".git/hooks/train.py",
        "b/b/train.py",
        "a/train.pyc",
    ],
)
def test_names_that_mean_another_file(name: str) -> None:
    assert "only train.py may change" in rejected(EDIT.replace("a/train.py", name))
    assert "only train.py may change" in rejected(EDIT.replace("b/train.py", name))


@pytest.mark.parametrize(
    "lines",
    [
        "rename from train.py\nrename to other.py",
        "copy from train.py\ncopy to train2.py",
        "similarity index 90%",
        "old mode 100644\nnew mode 100755",
        "new file mode 100644",
        "deleted file mode 100644",
        "index 1234567..89abcde 120000",
        "GIT binary patch\nliteral 3",
        "Binary files a/train.py and b/train.py differ",
    ],
)
def test_only_lines_may_change(lines: str) -> None:
    assert "not allowed" in rejected(f"diff --git a/train.py b/train.py\n{lines}\n{EDIT}")
    rejected(f"```diff\ndiff --git a/train.py b/train.py\n{lines}\n```")


def test_one_forbidden_file_forbids_the_whole_reply() -> None:
    other = "--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-a\n+b\n"
    assert "README.md; only train.py may change" in rejected(EDIT + other)
    assert "README.md; only train.py may change" in rejected(other + EDIT)
    assert "creates or deletes" in rejected("--- /dev/null\n+++ b/train.py\n@@ -0,0 +1 @@\n+x = 1\n")
    assert "creates or deletes" in rejected(EDIT.replace("+++ b/train.py", "+++ /dev/null"))


def test_all_or_nothing() -> None:
    message = rejected(EDIT + "@@ -20,1 +20,1 @@\n-no_such_line = 1\n+x = 2\n")
    assert "hunk 2" in message
    assert "no_such_line = 1" in message  # the message names what is not there


def test_a_rejection_quotes_the_nearest_real_lines() -> None:
    message = rejected("```diff\n@@\n DEPTH = 4\n-LEARNING_RATE = 0.2\n+LEARNING_RATE = 0.3\n WARMUP = 0.1\n```")
    number = FILE.split("\n").index("LEARNING_RATE = 0.02") + 1
    assert f"{number:5d}: LEARNING_RATE = 0.02" in message
    assert "not in the file there: LEARNING_RATE = 0.2" in message


def test_an_ambiguous_hunk_names_its_places() -> None:
    message = rejected("```diff\n@@\n-        x = self.norm(x)\n+        x = x\n```")
    assert "fit in 2 places" in message
    assert message.count("it fits at line") == 2


def test_the_result_must_be_python() -> None:
    message = rejected(EDIT.replace("+LEARNING_RATE = 0.03", "+LEARNING_RATE = = 0.03"))
    assert "is not Python" in message
    assert "LEARNING_RATE = = 0.03" in message
    assert "= = 0.03" in apply_reply(
        FILE, EDIT.replace("+LEARNING_RATE =", "+LEARNING_RATE = =").replace(".py", ".txt"), "train.txt"
    )


@pytest.mark.parametrize(
    "line", ["LEARNING_RATE = 0.02  # tuned", "LEARNING_RATE = 2e-2", "LEARNING_RATE=0.0_2", "LEARNING_RATE = 0.02"]
)
def test_an_edit_that_changes_no_program_has_no_effect(line: str) -> None:
    with pytest.raises(NoEffect):
        apply_reply(FILE, EDIT.replace("LEARNING_RATE = 0.03", line))


def test_limits() -> None:
    assert "characters" in rejected("x" * (MAX_REPLY + 1))
    assert "characters" in rejected(EDIT.replace("0.03", "'" + "x" * 10_000 + "'"))
    assert "characters" in rejected(EDIT + "".join(f"+x{n} = {'1' * 3000}\n" for n in range(MAX_RESULT // 3000)))
    assert "hunks" in rejected(EDIT * 300)


def test_control_characters_are_refused_and_never_shown() -> None:
    for char in ("\x1b[31m", "\u202e", "\x00", "\x85", "\u2028", "\ud800"):
        assert char not in rejected(EDIT.replace("0.03", f"0.03  # {char}"))
        assert char not in rejected(EDIT.replace("a/train.py", f"a/{char}.py"))
        assert char not in rejected(EDIT.replace("0.02", f"0.01 {char}"))
    assert visible("a\x1b[0m\u202eb\nc") == "a\\x1b[0m\\u202eb\\nc"


def test_code_that_was_left_out_is_refused() -> None:
    for line in (
        "# ... existing code ...",
        "    # ... rest of the function unchanged",
        "# ...",
        "# (same as before ...)",
    ):
        assert "left out" in rejected(EDIT + f"+{line}\n")


def test_several_diffs_are_applied_together_or_refused() -> None:
    other = "```diff\n@@\n-DEPTH = 4\n+DEPTH = 6\n```\n"
    assert apply_reply(FILE, f"{other}and\n```diff\n{EDIT}```") == EDITED.replace("DEPTH = 4", "DEPTH = 6")
    assert apply_reply(FILE, f"```diff\n{EDIT}```\nOnce more:\n```diff\n{EDIT}```") == EDITED  # said twice
    assert "several diffs" in rejected(f"```diff\n{EDIT}```\nor\n```diff\n{EDIT.replace('0.03', '0.04')}```")


# --- lines and their ends


def test_line_ends_are_those_of_the_file() -> None:
    crlf, mixed = FILE.replace("\n", "\r\n"), "a = 1\r\nb = 2\nc = 3\n"
    assert apply_reply(crlf, EDIT) == EDITED.replace("\n", "\r\n")
    assert apply_reply(crlf, EDIT.replace("\n", "\r\n")) == EDITED.replace("\n", "\r\n")
    assert apply_reply(FILE, EDIT.replace("\n", "\r\n")) == EDITED
    assert apply_reply(mixed, "@@\n a = 1\n+x = 0\n b = 2\n-c = 3\n+c = 4\n") == "a = 1\r\nx = 0\r\nb = 2\nc = 4\n"


def test_the_end_of_the_file() -> None:
    mark = "\\ No newline at end of file\n"
    assert apply_reply("a = 1\nb = 2", "@@\n a = 1\n-b = 2\n+b = 3\n") == "a = 1\nb = 3"  # kept as it was
    assert apply_reply("a = 1\nb = 2", f"@@ -1,2 +1,2 @@\n a = 1\n-b = 2\n{mark}+b = 3\n") == "a = 1\nb = 3\n"
    assert apply_reply("a = 1\nb = 2\n", f"@@ -1,2 +1,2 @@\n a = 1\n-b = 2\n+b = 3\n{mark}") == "a = 1\nb = 3"
    assert apply_reply("a = 1\nb = 2", "@@\n b = 2\n+c = 3\n") == "a = 1\nb = 2\nc = 3"
    assert apply_reply("", "@@ -0,0 +1 @@\n+a = 1\n") == "a = 1\n"
    assert apply_reply("a = 1\n", "@@ -1 +0,0 @@\n-a = 1\n") == ""


texts = st.lists(st.sampled_from(["a", "b", "    c", "", "d = 1"]), max_size=20).map("\n".join) | st.text(
    "ab\n ", max_size=30
)


@settings(max_examples=300, deadline=None)
@given(texts, texts, st.booleans())
def test_what_unified_diff_writes_apply_reply_reads(before: str, after: str, crlf: bool) -> None:
    if crlf:
        before, after = (text.replace("\n", "\r\n") for text in (f"a\n{before}", after))
    diff = unified_diff(before, after, "f.txt")
    assert (diff == "") == (before == after)
    if before != after:
        assert changed_lines(diff) > 0
        assert apply_reply(before, diff, "f.txt") == after
        git = f"diff --git a/f.txt b/f.txt\nindex 1..2 100644\n{diff}"
        assert apply_reply(before, f"Sure!\n\n```diff\n{git}```\nDone.", "f.txt") == after


def test_changed_lines() -> None:
    assert changed_lines(EDIT) == 2
    assert changed_lines("") == 0
    assert changed_lines("@@\n-a\n+b\n+c\n") == 3
    assert changed_lines("--- a/f\n+++ b/f\n@@ -1,2 +1 @@\n--- x\n a\n") == 1


# --- garbage

PIECES = [
    "--- a/train.py\n",
    "+++ b/train.py\n",
    "@@ -1,3 +1,4 @@\n",
    "@@\n",
    "@@ ... @@ def f\n",
    "```diff\n",
    "```\n",
    "~~~\n",
    "<think>",
    "</think>",
    "-LEARNING_RATE = 0.02\n",
    "+LEARNING_RATE = 1\n",
    " DEPTH = 4\n",
    "\n",
    "+\n",
    "\\ No newline\n",
    "diff --git a/train.py b/train.py\n",
    "*** Update File: train.py\n",
    "*** End Patch\n",
    '{"diff": "',
    '"}',
    "prose\n",
    "index 1..2 100644\n",
    "- item\n",
    "    ...\n",
    "<|channel|>final<|message|>",
    "@@ -0,0 +1 @@\n",
    "\r",
    "\x00",
    "\ud800",
    "@@ -99999999999999999999,1 +1 @@\n",
    "-        x = self.norm(x)\n",
    "GIT binary patch\n",
    "rename from a\n",
]


@settings(max_examples=600, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES) | st.text(max_size=12), max_size=25).map("".join),
    st.sampled_from([FILE, "", "x = (", "\r"]),
)
def test_garbage_raises_nothing_but_a_rejection(reply: str, text: str) -> None:
    for path in ("train.py", "train.txt"):
        with contextlib.suppress(PatchRejected):
            assert isinstance(apply_reply(text, reply, path), str)


@pytest.mark.parametrize(
    "reply",
    [
        "(" * 5000,
        "[" * 20_000,
        "{" * 20_000,
        "<think>" * 5000,
        "```\n" * 5000,
        "@@\n" * 5000,
        "--- a\n+++ b\n" * 5000,
        "\n" * 100_000,
        "- a\n" * 20_000,
    ],
)
def test_much_garbage_ends_soon(reply: str) -> None:
    rejected(reply)
    with contextlib.suppress(PatchRejected):
        apply_reply(FILE, f"```diff\n@@\n-DEPTH = 4\n+DEPTH = {reply[:3000]}")


def test_a_deep_expression_is_no_crash() -> None:
    for deep in ("(" * 900 + "1" + ")" * 900, "-" * 3000 + "1"):
        assert "the edited train.py is not Python" in rejected(EDIT.replace("0.03", deep))


def test_sloppy_diffs_are_right_or_refused() -> None:
    """The kinds of sloppiness of the benchmark, on a few made-up edits."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.patching import edits_made_up, measure

    counts = measure(list(edits_made_up(8, random.Random(11))), seed=2, tools=["ours"], combinations=4)
    wrong = {key: n for key, n in counts.items() if key[3] == "wrong"}
    clear = {key: n for key, n in counts.items() if key[1]}
    assert not wrong
    assert sum(n for key, n in clear.items() if key[3] == "right") >= 0.97 * sum(clear.values())
