"""How often malformed diffs are applied right, wrong or not at all: this project, git apply and patch.

    python -m benchmarks.patching --repo DIR --file PATH [--limit N]     the history of a file (--file may be repeated)
    python -m benchmarks.patching --synthetic N                          N synthetic edits of standard library modules

Each edit becomes a correct diff, which each kind of ``benchmarks.sloppy`` and a few random combinations corrupt. All
three programs get the same diff; git and patch get it without the prose around it. Right means: equal to the edited
file but for white space at line ends. The text determines the place if the old lines of every hunk occur exactly once
in the file (without indentation for the kinds that lose it). Synthetic edits keep the file valid Python.

Search and replace blocks and whole files, which git and patch do not read, have a table of their own. For a part of a
file in place of the whole, only a rejection is right, and every other result counts as wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from agent.errors import PatchRejected
from agent.patch.apply import edited, unified_diff
from agent.patch.disambiguate import splice
from agent.patch.locate import locate
from agent.patch.normal_form import normal_form
from agent.patch.parse import read_diffs
from benchmarks.sloppy import FORMS, KINDS, PARTIAL, Draft, Kind, combination, draft

NAME = "program.py"
Edit = tuple[str, str]  # text before, text after


def edits_of_history(repo: Path, path: str, limit: int) -> Iterator[Edit]:
    """The file before and after each commit that changed it, newest first."""

    def git(*words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["git", "-C", str(repo), *words], capture_output=True, check=False)

    log = git("log", "--no-merges", "--format=%H", f"-{limit}", "--", path)
    if log.returncode:
        raise SystemExit(f"git log failed in {repo}: {log.stderr.decode(errors='replace').strip()}")
    for commit in log.stdout.decode().split():
        sides = [git("show", f"{revision}:{path}") for revision in (f"{commit}~1", commit)]
        if all(side.returncode == 0 for side in sides):
            before, after = (side.stdout.decode(errors="replace") for side in sides)
            if before != after:
                yield before, after


def synthetic_edits(count: int, rng: random.Random) -> Iterator[Edit]:
    """Edits with a median of 9 changed lines and a 90th percentile of 37. One file in six is repetitive."""
    modules = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = [text for text in (m.read_text(errors="replace") for m in modules) if 150 <= text.count("\n") <= 600]
    while count > 0:
        text = rng.choice(texts) if rng.random() < 5 / 6 else _repetitive(rng)
        after = _edited(text, rng)
        if after != text:
            yield text, after
            count -= 1


def _repetitive(rng: random.Random) -> str:
    out: list[str] = ["import math", ""]
    for block in range(rng.randint(5, 25)):
        name = f"Layer{block}" if rng.random() < 0.8 else "Layer"
        out += [f"class {name}:", "    def __init__(self, width):", "        self.width = width"]
        out += ["        self.scale = 1.0", "", "    def forward(self, x):"]
        out += [f"        x = x * {rng.randint(1, 3)}", "        return x", ""]
        out += [""] * rng.randint(0, 2)
    return "\n".join(out) + "\n"


def _edited(text: str, rng: random.Random) -> str:
    """``text`` after random changes; valid Python if it was before."""
    left = max(1, min(120, round(rng.lognormvariate(2.2, 1.1))))
    tries = 0
    while left > 0 and tries < 30:
        size = min(left, rng.randint(1, 8))
        tries += 1
        changed = "\n".join(_changed(text.split("\n"), size, rng))
        if _is_good(text, changed):
            left -= size
            text = changed
    return text


def _changed(lines: list[str], size: int, rng: random.Random) -> list[str]:
    at = rng.randrange(len(lines) - 1)
    kind = rng.random()
    if kind < 0.5:  # change lines
        for k in range(at, min(at + (size + 1) // 2, len(lines) - 1)):
            if lines[k].strip():
                lines[k] = lines[k].rstrip() + rng.choice(["  # tuned", " + 1", ".clone()", "  # 2"])
    elif kind < 0.75:  # insert lines, new or copied from elsewhere
        margin = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
        source = rng.randrange(len(lines) - 1)
        fresh = [f"{margin}value_{rng.randint(0, 99)} = {rng.random():.3f}" for _ in range(size)]
        lines[at:at] = fresh if rng.random() < 0.5 else lines[source : source + size]
    else:
        del lines[at : min(at + size, len(lines) - 1)]
    return lines


def _is_good(text: str, changed: str) -> bool:
    """Whether the edited text is Python, and the edit does not put code into a docstring."""
    try:
        same_program = normal_form(text) == normal_form(changed)
    except SyntaxError:
        return False
    return changed != text and (not same_program or changed.count("\n") == text.count("\n"))


def _plain(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip("\n").split("\n")]


def determined(before: str, sloppy: Draft) -> bool:
    """Whether the old lines of every hunk occur exactly once in the file."""

    def normal(line: str) -> str:
        return line.strip() if sloppy.loose else line.rstrip()

    lines = [normal(line) for line in before.split("\n")]
    for hunk in sloppy.hunks:
        old = [normal(text) for sign, text in hunk.lines if sign != "+"]
        if sum(lines[at : at + len(old)] == old for at in range(len(lines) - len(old) + 1)) != 1:
            return False
    return True


def ours(before: str, sloppy: Draft) -> str | None:
    try:
        return edited(before, sloppy.reply(), NAME)
    except PatchRejected:
        return None


def _tool(argv: list[str], before: str, diff: str) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / NAME
        file.write_bytes(before.encode())
        done = subprocess.run(argv, cwd=folder, input=diff.encode(), capture_output=True, check=False)
        return file.read_bytes().decode(errors="replace") if done.returncode == 0 else None


def git_apply(before: str, sloppy: Draft) -> str | None:
    return _tool(["git", "apply", "--recount", "-C1", f"-p{sloppy.strip}", "-"], before, sloppy.diff())


def gnu_patch(before: str, sloppy: Draft) -> str | None:
    options = ["-F3", "-l", "-f", "-s", "-r", "-", "--no-backup-if-mismatch", f"-p{sloppy.strip}"]
    return _tool(["patch", *options, NAME], before, sloppy.diff())


TOOLS = {"ours": ours, "git apply": git_apply, "patch": gnu_patch}


def outcome(result: str | None, after: str) -> str:
    if result is None:
        return "rejected"
    return "right" if _plain(result) == _plain(after) else "wrong"


Counts = Counter[tuple[str, bool, str, str]]  # kind, determined, tool, outcome


def measure(edits: list[Edit], seed: int, tools: list[str], combinations: int) -> Counts:
    """Count outcomes. Prints wrong results of this project to stderr."""
    rng = random.Random(seed)
    counts: Counts = Counter()
    for before, after in edits:
        jobs: list[tuple[str, tuple[Kind, ...]]] = [*KINDS.items(), *FORMS.items(), *PARTIAL.items()]
        jobs += [("random combinations", combination(rng)) for _ in range(combinations)]
        for name, kinds in jobs:
            sloppy = draft(NAME, unified_diff(before, after, NAME), after)
            for kind in kinds:
                kind(sloppy, rng)
            clear = name.startswith("whole file") or determined(before, sloppy)
            partial = name in PARTIAL and sloppy.after.rstrip("\n") != after.rstrip("\n")
            for tool in tools if sloppy.form is None else ["ours"]:
                result = TOOLS[tool](before, sloppy)
                verdict = "wrong" if partial and result is not None else outcome(result, after)
                counts[name, clear, tool, verdict] += 1
                if tool == "ours" and verdict == "wrong":
                    words = ", ".join(kind.__name__ for kind in kinds)
                    off = unified_diff(after, result or "", "wanted")
                    print(f"WRONG ({words}):\n{sloppy.reply()}\nDIFFERS:\n{off}", file=sys.stderr)
    return counts


def show(counts: Counts, names: list[str], tools: list[str]) -> None:
    """Print a row per kind: right / wrong / rejected where determined, and right / wrong elsewhere."""
    print("Determined by the text: right / wrong / rejected in %; in brackets: right / wrong elsewhere")
    print(f"{'kind':28}{'cases':>6}" + "".join(f"{tool:>34}" for tool in tools))
    for name in [*names, "all"]:
        chosen = names if name == "all" else [name]
        cases = sum(n for (kind, _, tool, _), n in counts.items() if kind in chosen and tool == tools[0])
        row = f"{name:28}{cases:6}"
        for tool in tools:
            cells = []
            for clear in (True, False):
                got = [sum(counts[kind, clear, tool, v] for kind in chosen) for v in ("right", "wrong", "rejected")]
                share = [100 * n / max(1, sum(got)) for n in got]
                words = [f"{value:.1f}" for value in (share if clear else share[:2])]
                cells.append(" / ".join(words) if sum(got) else "-")
            row += f"{cells[0] + ' [' + cells[1] + ']':>34}"
        print(row)


def show_time(seed: int) -> None:
    """Print the time to read a diff and to place it in a file of 700 lines."""
    rng = random.Random(seed)
    reading: list[float] = []
    placing: list[float] = []
    for before, _ in synthetic_edits(60, rng):
        text = "\n".join((before.split("\n") * 5)[:700]) + "\n"
        after = _edited(text, rng)
        reply = unified_diff(text, after, NAME)
        if not reply:
            continue
        start = time.perf_counter()
        diffs = read_diffs(reply)
        middle = time.perf_counter()
        lines = text.split("\n")[:-1]
        with contextlib.suppress(PatchRejected):
            splice(0, len(lines), locate(lines, diffs[0].hunks))
        placing.append(time.perf_counter() - middle)
        reading.append(middle - start)
    for name, values in (("reading", reading), ("placing", placing)):
        worst, typical = 1000 * max(values), 1000 * statistics.median(values)
        print(f"{name} a diff, 700 lines: median {typical:.2f} ms, worst {worst:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, default=Path())
    parser.add_argument("--file", action="append", default=[], help="path inside the repository; may be repeated")
    parser.add_argument("--limit", type=int, default=100, help="newest edits per file")
    parser.add_argument("--synthetic", type=int, default=0, metavar="N", help="N synthetic edits")
    parser.add_argument("--combinations", type=int, default=4, help="random combinations of kinds per edit")
    parser.add_argument("--only-ours", action="store_true", help="skip git apply and patch")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    edits = [edit for path in options.file for edit in edits_of_history(options.repo, path, options.limit)]
    edits += synthetic_edits(options.synthetic, random.Random(options.seed))
    if not edits:
        parser.error("no edits: give --file PATH with a history, or --synthetic N")
    sizes = [sum(line[:1] in "+-" for line in unified_diff(*edit, NAME).split("\n")[2:] if line) for edit in edits]
    print(f"{len(edits)} edits, median {statistics.median(sizes):.0f} changed lines")
    tools = list(TOOLS)[: 1 if options.only_ours else None]
    counts = measure(edits, options.seed, tools, options.combinations)
    show(counts, [*KINDS, "random combinations"], tools)
    show(counts, [*FORMS], ["ours"])
    show(counts, [*PARTIAL], ["ours"])
    show_time(options.seed)


if __name__ == "__main__":
    main()
