"""apply_reply: allowed edits, line ends, messages, and robustness to malformed replies."""

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
from agent.patch.apply import MAX_REPLY, MAX_RESULT, apply_reply, unified_diff
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


def test_edit_is_applied() -> None:
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
def test_header_name_means_the_file(name: str) -> None:
    assert apply_reply(FILE, EDIT.replace("a/train.py", name)) == EDITED


def test_header_name_may_be_last_path_parts() -> None:
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
def test_other_header_name_is_rejected(name: str) -> None:
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
def test_mode_rename_and_binary_are_rejected(lines: str) -> None:
    assert "not allowed" in rejected(f"diff --git a/train.py b/train.py\n{lines}\n{EDIT}")
    rejected(f"```diff\ndiff --git a/train.py b/train.py\n{lines}\n```")


def test_one_forbidden_file_rejects_the_reply() -> None:
    other = "--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-a\n+b\n"
    assert "README.md; only train.py may change" in rejected(EDIT + other)
    assert "README.md; only train.py may change" in rejected(other + EDIT)
    assert "creates or deletes" in rejected("--- /dev/null\n+++ b/train.py\n@@ -0,0 +1 @@\n+x = 1\n")
    assert "creates or deletes" in rejected(EDIT.replace("+++ b/train.py", "+++ /dev/null"))


def test_one_unplaced_hunk_rejects_the_reply() -> None:
    message = rejected(EDIT + "@@ -20,1 +20,1 @@\n-no_such_line = 1\n+x = 2\n")
    assert "hunk 2" in message
    assert "no_such_line = 1" in message


def test_rejection_quotes_nearest_lines() -> None:
    message = rejected("```diff\n@@\n DEPTH = 4\n-LEARNING_RATE = 0.2\n+LEARNING_RATE = 0.3\n WARMUP = 0.1\n```")
    number = FILE.split("\n").index("LEARNING_RATE = 0.02") + 1
    assert f"{number:5d}: LEARNING_RATE = 0.02" in message
    assert "LEARNING_RATE = 0.2\n" in message


def test_ambiguous_hunk_names_its_places() -> None:
    message = rejected("```diff\n@@\n-        x = self.norm(x)\n+        x = x\n```")
    lines = [number for number, line in enumerate(FILE.split("\n"), 1) if line == "        x = self.norm(x)"]
    assert len(lines) == 2
    assert all(f"line {number}" in message for number in lines)


def test_result_must_be_python() -> None:
    message = rejected(EDIT.replace("+LEARNING_RATE = 0.03", "+LEARNING_RATE = = 0.03"))
    assert "LEARNING_RATE = = 0.03" in message
    assert "= = 0.03" in apply_reply(
        FILE, EDIT.replace("+LEARNING_RATE =", "+LEARNING_RATE = =").replace(".py", ".txt"), "train.txt"
    )


@pytest.mark.parametrize(
    "line", ["LEARNING_RATE = 0.02  # tuned", "LEARNING_RATE = 2e-2", "LEARNING_RATE=0.0_2", "LEARNING_RATE = 0.02"]
)
def test_edit_without_effect_raises_no_effect(line: str) -> None:
    with pytest.raises(NoEffect):
        apply_reply(FILE, EDIT.replace("LEARNING_RATE = 0.03", line))


def test_size_limits() -> None:
    assert "characters" in rejected("x" * (MAX_REPLY + 1))
    assert "characters" in rejected(EDIT.replace("0.03", "'" + "x" * 10_000 + "'"))
    assert "characters" in rejected(EDIT + "".join(f"+x{n} = {'1' * 3000}\n" for n in range(MAX_RESULT // 3000)))
    assert "hunks" in rejected(EDIT * 300)


def test_control_characters_are_rejected_and_escaped() -> None:
    for char in ("\x1b[31m", "\u202e", "\x00", "\x85", "\u2028", "\ud800"):
        assert char not in rejected(EDIT.replace("0.03", f"0.03  # {char}"))
        assert char not in rejected(EDIT.replace("a/train.py", f"a/{char}.py"))
        assert char not in rejected(EDIT.replace("0.02", f"0.01 {char}"))
    assert visible("a\x1b[0m\u202eb\nc") == "a\\x1b[0m\\u202eb\\nc"


def test_placeholder_for_omitted_code_is_rejected() -> None:
    for line in (
        "# ... existing code ...",
        "    # ... rest of the function unchanged",
        "# ...",
        "# (same as before ...)",
    ):
        assert "left out" in rejected(EDIT + f"+{line}\n")


def test_several_diffs_apply_unless_they_conflict() -> None:
    other = "```diff\n@@\n-DEPTH = 4\n+DEPTH = 6\n```\n"
    assert apply_reply(FILE, f"{other}and\n```diff\n{EDIT}```") == EDITED.replace("DEPTH = 4", "DEPTH = 6")
    assert apply_reply(FILE, f"```diff\n{EDIT}```\nOnce more:\n```diff\n{EDIT}```") == EDITED  # repeated
    assert "several diffs" in rejected(f"```diff\n{EDIT}```\nor\n```diff\n{EDIT.replace('0.03', '0.04')}```")


# --- lines and their ends


def test_line_ends_of_the_file_are_kept() -> None:
    crlf, mixed = FILE.replace("\n", "\r\n"), "a = 1\r\nb = 2\nc = 3\n"
    assert apply_reply(crlf, EDIT) == EDITED.replace("\n", "\r\n")
    assert apply_reply(crlf, EDIT.replace("\n", "\r\n")) == EDITED.replace("\n", "\r\n")
    assert apply_reply(FILE, EDIT.replace("\n", "\r\n")) == EDITED
    assert apply_reply(mixed, "@@\n a = 1\n+x = 0\n b = 2\n-c = 3\n+c = 4\n") == "a = 1\r\nx = 0\r\nb = 2\nc = 4\n"


def test_newline_at_end_of_file() -> None:
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


@settings(max_examples=300)
@given(texts, texts, st.booleans())
def test_unified_diff_round_trip(before: str, after: str, crlf: bool) -> None:
    if crlf:
        before, after = (text.replace("\n", "\r\n") for text in (f"a\n{before}", after))
    diff = unified_diff(before, after, "f.txt")
    assert (diff == "") == (before == after)
    if before != after:
        assert apply_reply(before, diff, "f.txt") == after
        git = f"diff --git a/f.txt b/f.txt\nindex 1..2 100644\n{diff}"
        assert apply_reply(before, f"Sure!\n\n```diff\n{git}```\nDone.", "f.txt") == after


MARK = "\ufeff"


@pytest.mark.parametrize("first", [" import math", f" {MARK}import math", f"{MARK}import math"])
def test_byte_order_mark_is_kept(first: str) -> None:
    text = f"{MARK}import math\nx = 1\ny = 2\n"
    assert apply_reply(text, f"```diff\n@@\n{first}\n-x = 1\n+x = 2\n```") == text.replace("x = 1", "x = 2")


def test_edit_of_line_with_byte_order_mark() -> None:
    diff = unified_diff(f"{MARK}x = 1\n", f"{MARK}x = 2\n", "train.py")
    for reply in (diff, diff.replace(MARK, "")):
        assert apply_reply(f"{MARK}x = 1\n", reply) == f"{MARK}x = 2\n"
    with pytest.raises(NoEffect):
        apply_reply(f"{MARK}x = 1\n", diff.replace("+", "+# comment\n+", 2).replace("x = 2", "x = 1"))


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_newline_ends_a_line(char: str) -> None:
    text = f"a = 'x{char}y'\nb = 1\nc = 2\nd = 3\n"
    for after in (text.replace("c = 2", "c = 4"), text.replace("b = 1", "b = 4")):
        assert apply_reply(text, unified_diff(text, after, "f.txt"), "f.txt") == after
        assert apply_reply(text, f"```diff\n{unified_diff(text, after, 'f.txt')}```", "f.txt") == after


SIGNATURES = ["-- \n2.39.5\n", "-- \n2.39.5 (Apple Git-154)\n\n", "--\n2.47.0.windows.1", "-- \nJane Doe\nOverland\n"]


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("form", ["{}", "```diff\n{}\n```\n", "```\n{}\n```\nDone.\n"])
def test_signature_after_diff_is_ignored(signature: str, form: str) -> None:
    mail = (
        "From 1234567 Mon Sep 17 00:00:00 2001\nSubject: [PATCH] Raise the rate\n\n---\n train.py | 2 +-\n\n"
        f"diff --git a/train.py b/train.py\nindex 1111111..2222222 100644\n{EDIT}{signature}"
    )
    assert apply_reply(FILE, form.format(mail)) == EDITED
    assert apply_reply(FILE, form.format(mail + mail.replace("Raise", "Repeat"))) == EDITED


@pytest.mark.parametrize("header", ["@@", "@@ ... @@", "@@ -1,9 +1,9 @@"])
def test_version_signature_ends_uncounted_hunk(header: str) -> None:
    diff = EDIT.replace("@@ -10 +10 @@", header)
    assert apply_reply(FILE, f"```diff\n{diff}-- \n2.39.5\n```") == EDITED


def test_deleted_dashes_are_no_signature() -> None:
    before = "a\n- \nb\n2.39.5\n"
    assert apply_reply(before, unified_diff(before, "a\nb\n2.39.5\n", "f.txt"), "f.txt") == "a\nb\n2.39.5\n"


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
    "<<<<<<< SEARCH\n",
    "=======\n",
    ">>>>>>> REPLACE\n",
    "DEPTH = 4\n",
    f"```python\n{FILE}",
    "@@ -99999999999999999999,1 +1 @@\n",
    "-        x = self.norm(x)\n",
    "GIT binary patch\n",
    "rename from a\n",
]


@settings(max_examples=600)
@given(
    st.lists(st.sampled_from(PIECES) | st.text(max_size=12), max_size=25).map("".join),
    st.sampled_from([FILE, "", "x = (", "\r"]),
)
def test_garbage_is_rejected_without_other_errors(reply: str, text: str) -> None:
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
def test_long_garbage_is_rejected(reply: str) -> None:
    rejected(reply)
    with contextlib.suppress(PatchRejected):
        apply_reply(FILE, f"```diff\n@@\n-DEPTH = 4\n+DEPTH = {reply[:3000]}")


def test_deep_expression_is_rejected() -> None:
    for deep in ("(" * 900 + "1" + ")" * 900, "-" * 3000 + "1"):
        assert "0.03" not in rejected(EDIT.replace("0.03", deep))


def test_sloppy_diffs_are_never_applied_wrongly() -> None:
    """The benchmark on a few synthetic edits."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.patching import measure, synthetic_edits
    from benchmarks.sloppy import FORMS, KINDS

    counts = measure(list(synthetic_edits(8, random.Random(11))), seed=2, tools=["ours"], combinations=4)
    wrong = {key: n for key, n in counts.items() if key[3] == "wrong"}
    whole = {*KINDS, *(name for name in FORMS if name.startswith("blocks")), "random combinations"}
    clear = {key: n for key, n in counts.items() if key[1] and key[0] in whole}
    assert not wrong
    assert sum(n for key, n in clear.items() if key[3] == "right") >= 0.97 * sum(clear.values())
