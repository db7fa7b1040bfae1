"""Mistakes of small models in diffs: each kind corrupts the draft of a correct diff.

A draft keeps hunks and numbers apart from their text form, so that kinds can be combined.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Callable
from dataclasses import dataclass, field

Signed = tuple[str, str]  # sign, text


@dataclass
class DraftHunk:
    """A hunk: the four numbers of its header (None: replaced by ``mark``) and its lines."""

    numbers: tuple[int, int, int, int] | None
    lines: list[Signed]
    mark: str = "@@"

    def header(self) -> str:
        return "@@ -{},{} +{},{} @@".format(*self.numbers) if self.numbers else self.mark


@dataclass
class Draft:
    """The hunks of a diff, and how to write them."""

    path: str
    hunks: list[DraftHunk]
    header: list[str] = field(default_factory=list)
    strip: int = 1  # -p of git apply and patch
    write: list[Callable[[list[str]], list[str]]] = field(default_factory=list)  # changes of the written lines
    around: list[Callable[[str], str]] = field(default_factory=list)  # text around the diff
    repeat_header: bool = False
    loose: bool = False  # the indentation does not determine the place
    after: str = ""  # the edited file
    form: Callable[[Draft], str] | None = None  # writes the edit in another form than a diff

    def diff(self) -> str:
        out: list[str] = [] if self.repeat_header else list(self.header)
        for hunk in self.hunks:
            out += self.header if self.repeat_header else []
            out += [hunk.header(), *(sign + text for sign, text in hunk.lines)]
        for change in self.write:
            out = change(out)
        return "\n".join(out) + "\n"

    def reply(self) -> str:
        text = self.form(self) if self.form else self.diff()
        for change in self.around:
            text = change(text)
        return text


def draft(path: str, diff: str, after: str = "") -> Draft:
    """The draft of a correct unified diff to the text ``after``."""
    hunks: list[DraftHunk] = []
    for line in diff.split("\n")[2:]:
        if line.startswith("@@"):
            old, new = line.split()[1:3]
            a, b, c, d = (int(word) for side in (old, new) for word in [*side[1:].split(","), "1"][:2])
            hunks.append(DraftHunk((a, b, c, d), []))
        elif line and line[0] in " +-":
            hunks[-1].lines.append((line[0], line[1:]))
    return Draft(path, hunks, [f"--- a/{path}", f"+++ b/{path}"], after=after)


def correct(draft: Draft, rng: random.Random) -> None:
    pass


def numbers_shifted(draft: Draft, rng: random.Random) -> None:
    by = rng.choice([n for n in range(-40, 60) if n])
    for hunk in draft.hunks:
        if hunk.numbers:
            a, b, c, d = hunk.numbers
            hunk.numbers = (max(1, a + by), b, max(1, c + by), d)


def numbers_random(draft: Draft, rng: random.Random) -> None:
    for hunk in draft.hunks:
        if hunk.numbers:
            start = rng.randint(1, 700)
            hunk.numbers = (start, hunk.numbers[1], start, hunk.numbers[3])


def numbers_dots(draft: Draft, rng: random.Random) -> None:
    for hunk in draft.hunks:
        hunk.numbers, hunk.mark = None, "@@ ... @@"


def numbers_none(draft: Draft, rng: random.Random) -> None:
    for hunk in draft.hunks:
        hunk.numbers, hunk.mark = None, "@@"


def counts_wrong(draft: Draft, rng: random.Random) -> None:
    for hunk in draft.hunks:
        if hunk.numbers:
            a, b, c, d = hunk.numbers
            hunk.numbers = (a, max(1, b + rng.randint(-4, 4)), c, max(1, d + rng.randint(-4, 4)))


def one_line_of_context(draft: Draft, rng: random.Random) -> None:
    """The numbers stay correct for the remaining lines."""
    for hunk in draft.hunks:
        changed = [at for at, (sign, _) in enumerate(hunk.lines) if sign != " "]
        first, last = max(0, changed[0] - 1), min(len(hunk.lines), changed[-1] + 2)
        cut = len(hunk.lines) - (last - first)
        hunk.lines = hunk.lines[first:last]
        if hunk.numbers:
            a, b, c, d = hunk.numbers
            hunk.numbers = (a + first, b - cut, c + first, d - cut)


def no_file_header(draft: Draft, rng: random.Random) -> None:
    draft.header = []


def no_prefixes(draft: Draft, rng: random.Random) -> None:
    draft.header, draft.strip = [f"--- {draft.path}", f"+++ {draft.path}"], 0


def git_header(draft: Draft, rng: random.Random) -> None:
    path = draft.path
    draft.header = [f"diff --git a/{path} b/{path}", "index 1234567..89abcde 100644", f"--- a/{path}", f"+++ b/{path}"]
    draft.strip = 1


def header_per_hunk(draft: Draft, rng: random.Random) -> None:
    draft.repeat_header = True


def blank_context_bare(draft: Draft, rng: random.Random) -> None:
    draft.write.append(lambda lines: ["" if line == " " else line for line in lines])


def blank_added_bare(draft: Draft, rng: random.Random) -> None:
    draft.write.append(lambda lines: ["" if line in ("+", " ") else line for line in lines])


def trailing_space_lost(draft: Draft, rng: random.Random) -> None:
    draft.write.append(lambda lines: [line.rstrip() for line in lines])


def trailing_space_added(draft: Draft, rng: random.Random) -> None:
    draft.write.append(lambda lines: [line + "  " * (line[:1] in " -" and rng.random() < 0.4) for line in lines])


def carriage_returns(draft: Draft, rng: random.Random) -> None:
    draft.write.append(lambda lines: [line + "\r" for line in lines])


def blank_line_dropped(draft: Draft, rng: random.Random) -> None:
    """One blank line of context is missing in the diff and in the counts."""
    for hunk in draft.hunks:
        blank = [at for at, line in enumerate(hunk.lines) if line[0] == " " and not line[1].strip()]
        if blank:
            del hunk.lines[rng.choice(blank)]


def context_unmarked(draft: Draft, rng: random.Random) -> None:
    """Context lines without their leading space, in a fence."""
    draft.loose = True
    draft.write.append(lambda lines: [line[1:] if line[:1] == " " else line for line in lines])
    if fenced not in draft.around:
        draft.around.insert(0, fenced)


def tabs_for_spaces(draft: Draft, rng: random.Random) -> None:
    draft.loose = True
    for hunk in draft.hunks:
        hunk.lines = [(sign, _tabbed(text)) for sign, text in hunk.lines]


def _tabbed(text: str) -> str:
    steps, rest = divmod(len(text) - len(text.lstrip(" ")), 4)
    return "\t" * steps + " " * rest + text.lstrip(" ")


def indentation_lost(draft: Draft, rng: random.Random) -> None:
    """Each hunk begins at the left margin."""
    draft.loose = True
    for hunk in draft.hunks:
        full = [text for _, text in hunk.lines if text.strip()]
        margin = min((len(text) - len(text.lstrip(" ")) for text in full), default=0)
        hunk.lines = [(sign, text[margin:] if text.strip() else text) for sign, text in hunk.lines]


def space_after_sign(draft: Draft, rng: random.Random) -> None:
    draft.loose = True

    def spaced(line: str) -> str:
        return f"{line[0]} {line[1:]}" if line[:1] in ("+", "-") and line[:4] not in ("+++ ", "--- ") else line

    draft.write.append(lambda lines: [spaced(line) for line in lines])


def dots_in_context(draft: Draft, rng: random.Random) -> None:
    """A long run of context between two changes becomes a line of dots."""
    for hunk in draft.hunks:
        signs = [sign for sign, _ in hunk.lines]
        for at in range(1, len(signs) - 5):
            if signs[at - 1] != " " and signs[at : at + 5] == [" "] * 5:
                hunk.lines[at + 2 : at + 3] = [(" ", "    # ... existing code ...")]
                break


def fenced(text: str) -> str:
    return f"Here is the change.\n\n```diff\n{text}```\n\nIt should lower the loss:\n- less noise\n- more steps\n"


def fence(draft: Draft, rng: random.Random) -> None:
    if fenced not in draft.around:
        draft.around.append(fenced)


def reasoning(draft: Draft, rng: random.Random) -> None:
    decoy = "\n".join(["@@ -1,1 +1,1 @@", *(f"-{text}" for sign, text in draft.hunks[0].lines if sign == " ")][:3])
    draft.around.append(lambda text: f"<think>\nMaybe this:\n```diff\n{decoy}\n+import nothing\n```\n</think>\n{text}")


def reasoning_closed_only(draft: Draft, rng: random.Random) -> None:
    decoy = "\n".join(["@@ -1,1 +1,1 @@", *(f"-{text}" for sign, text in draft.hunks[0].lines if sign == " ")][:3])
    draft.around.append(lambda text: f"I could write\n{decoy}\n+import nothing\nbut no.\n</think>\n\n{text}")


def no_last_newline(draft: Draft, rng: random.Random) -> None:
    draft.around.append(lambda text: text.rstrip("\n"))


def fence_unclosed(draft: Draft, rng: random.Random) -> None:
    draft.around.append(lambda text: f"```diff\n{text}")


def _block(hunk: DraftHunk) -> list[str]:
    old, new = ([text for sign, text in hunk.lines if sign != other] for other in ("+", "-"))
    return ["<<<<<<< SEARCH", *old, "=======", *new, ">>>>>>> REPLACE"]


def blocks_of_aider(draft: Draft, rng: random.Random) -> None:
    draft.form = lambda d: "\n".join(
        line for hunk in d.hunks for line in (d.path, "```python", *_block(hunk), "```", "")
    )


def blocks_of_openevolve(draft: Draft, rng: random.Random) -> None:
    draft.form = lambda d: "Less noise.\n\n" + "\n".join(line for hunk in d.hunks for line in (*_block(hunk), ""))


def blocks_without_trailing_space(draft: Draft, rng: random.Random) -> None:
    draft.form = lambda d: "\n".join(line.rstrip() for hunk in d.hunks for line in (*_block(hunk), ""))


def block_cut_off(draft: Draft, rng: random.Random) -> None:
    """The last block ends before its last line."""
    blocks_of_openevolve(draft, rng)
    draft.around.append(lambda text: text[: text.rindex(">>>>>>> REPLACE")])


def whole_file(draft: Draft, rng: random.Random) -> None:
    draft.form = lambda d: f"The new file:\n\n```python\n{d.after.rstrip(chr(10))}\n```\n"


def _without_lines(draft: Draft, rng: random.Random, put: Callable[[list[str]], list[str]]) -> None:
    """The whole file, where ``put`` replaces a run of 4 to 12 lines."""
    lines = draft.after.rstrip("\n").split("\n")
    size = min(rng.randint(4, 12), len(lines) // 2)
    at = rng.randrange(len(lines) - size)
    draft.after = "\n".join([*lines[:at], *put(lines[at : at + size]), *lines[at + size :]])
    whole_file(draft, rng)


def file_with_dots(draft: Draft, rng: random.Random) -> None:
    words = ("# ... existing code ...", "...", "# rest of the code unchanged", "# same as before")
    _without_lines(draft, rng, lambda gone: [gone[0][: len(gone[0]) - len(gone[0].lstrip())] + rng.choice(words)])


def file_without_end(draft: Draft, rng: random.Random) -> None:
    lines = draft.after.rstrip("\n").split("\n")
    draft.after = "\n".join(lines[: len(lines) * rng.randint(55, 95) // 100])
    whole_file(draft, rng)


def file_without_definition(draft: Draft, rng: random.Random) -> None:
    """A function or class of the top level, defined once, is left out."""
    heads = [node for node in ast.parse(draft.after).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    heads = [node for node in heads if sum(node.name == other.name for other in heads) == 1]
    if heads:
        gone, lines = rng.choice(heads), draft.after.rstrip("\n").split("\n")
        draft.after = "\n".join([*lines[: gone.lineno - 1], *lines[gone.end_lineno :]])
    whole_file(draft, rng)


Kind = Callable[[Draft, random.Random], None]
KINDS: dict[str, tuple[Kind, ...]] = {
    "correct": (correct,),
    "numbers shifted": (numbers_shifted,),
    "numbers random": (numbers_random,),
    "@@ ... @@": (numbers_dots,),
    "@@": (numbers_none,),
    "counts wrong": (counts_wrong,),
    "one line of context": (one_line_of_context,),
    "no file header": (no_file_header,),
    "no a/ b/": (no_prefixes,),
    "diff --git header": (git_header,),
    "header per hunk": (header_per_hunk,),
    "blank context bare": (blank_context_bare,),
    "blank added bare": (blank_added_bare,),
    "trailing space lost": (trailing_space_lost,),
    "trailing space added": (trailing_space_added,),
    "CRLF": (carriage_returns,),
    "blank line dropped": (blank_line_dropped,),
    "context unmarked": (context_unmarked,),
    "tabs for spaces": (tabs_for_spaces,),
    "indentation lost": (indentation_lost,),
    "space after sign": (space_after_sign,),
    "dots in context": (dots_in_context,),
    "fence and prose": (fence,),
    "fence unclosed": (fence_unclosed,),
    "reasoning": (reasoning,),
    "reasoning, closed only": (reasoning_closed_only,),
    "no last newline": (no_last_newline,),
    "@@ + one line + fence": (numbers_none, one_line_of_context, fence),
    "shifted + one line": (one_line_of_context, numbers_shifted),
    "shifted + counts + bare": (numbers_shifted, counts_wrong, blank_context_bare),
    "dots + CRLF + no header": (numbers_dots, carriage_returns, no_file_header),
    "@@ + bare + fence + think": (numbers_none, blank_context_bare, fence, reasoning),
    "random + one + bare": (numbers_random, one_line_of_context, blank_context_bare),
    "counts + tabs + no a/ b/": (counts_wrong, tabs_for_spaces, no_prefixes),
    "@@ + one + indentation": (numbers_none, one_line_of_context, indentation_lost),
    "@@ + unmarked + one": (numbers_none, one_line_of_context, context_unmarked),
}
FORMS: dict[str, tuple[Kind, ...]] = {  # the edit in other forms than a diff
    "blocks, aider": (blocks_of_aider,),
    "blocks, openevolve": (blocks_of_openevolve,),
    "blocks, trailing space lost": (blocks_without_trailing_space,),
    "blocks + one line": (one_line_of_context, blocks_of_openevolve),
    "blocks + blank dropped": (blank_line_dropped, blocks_of_aider),
    "blocks + tabs": (tabs_for_spaces, blocks_of_aider),
    "blocks + indentation lost": (indentation_lost, blocks_of_openevolve),
    "blocks + dots": (dots_in_context, blocks_of_openevolve),
    "blocks + think": (blocks_of_openevolve, reasoning),
    "block cut off": (block_cut_off,),
    "whole file": (whole_file,),
    "whole file + think": (whole_file, reasoning),
}
PARTIAL: dict[str, tuple[Kind, ...]] = {  # parts of a file in place of the whole; no result is right
    "file with dots": (file_with_dots,),
    "file without its end": (file_without_end,),
    "file without a definition": (file_without_definition,),
}
SINGLE: tuple[Kind, ...] = tuple(kinds[0] for name, kinds in KINDS.items() if len(kinds) == 1 and name != "correct")
EXCLUSIVE: tuple[tuple[Kind, ...], ...] = (
    (numbers_shifted, numbers_random, numbers_dots, numbers_none),
    (no_file_header, no_prefixes, git_header),
    (context_unmarked, fence, fence_unclosed),
    (context_unmarked, tabs_for_spaces, indentation_lost, space_after_sign),
    (blank_context_bare, blank_added_bare),
    (reasoning, reasoning_closed_only),
    (no_file_header, header_per_hunk),
)  # kinds that exclude each other


def combination(rng: random.Random) -> tuple[Kind, ...]:
    """Two to four compatible kinds, in the order in which they apply."""
    while True:
        kinds = rng.sample(SINGLE, rng.randint(2, 4))
        if all(sum(kind in kinds for kind in group) < 2 for group in EXCLUSIVE):
            return tuple(sorted(kinds, key=SINGLE.index))
