"""Reads search and replace blocks, as aider and openevolve ask for them, as hunks.

    <<<<<<< SEARCH
    lines of the file
    =======
    the lines that replace them
    >>>>>>> REPLACE

Blocks may be inside or outside of fences, with the file name on the line before. Each block becomes its own diff,
so ``agent.patch.locate`` places it by the same rules as a hunk. An incomplete or ambiguous block rejects the reply.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from agent.errors import PatchRejected
from agent.patch.parse import MAX_HUNKS, FileDiff, Hunk, Line

_HEAD = re.compile(r"<{5,9} ?SEARCH>?\s*")
_DIVIDER = re.compile(r"={5,9}\s*")
_TAIL = re.compile(r">{5,9} ?REPLACE\s*")
_FENCE = re.compile(r"[ \t]*(?:`{3,}|~{3,})[ \t]*(?P<info>\S*).*")
_NAME = re.compile(r"[\w./~-]*\w\.[A-Za-z]\w{0,7}")


def read_blocks(answer: str, reply: str) -> tuple[list[FileDiff], str]:
    """The blocks of an answer as diffs of one hunk each, and the answer without them.

    ``answer`` is the ``reply`` of a model without its reasoning. Raises PatchRejected.
    """
    lines = answer.split("\n")
    found: list[FileDiff] = []
    rest: list[str] = []
    at = 0
    while at < len(lines):
        if not _HEAD.fullmatch(lines[at]):
            rest.append(lines[at])
            at += 1
            continue
        end = next((k for k in range(at + 1, len(lines)) if _TAIL.fullmatch(lines[k])), None)
        if end is None:
            raise PatchRejected("the reply was cut off inside a search and replace block: >>>>>>> REPLACE is missing")
        if "\n".join(lines[at : end + 1]) not in reply:
            raise PatchRejected("a reasoning tag is inside a search and replace block: the block is ambiguous")
        found.append(FileDiff(_name_before(lines, at), [_hunk(lines[at], lines[at + 1 : end])]))
        at = end + 1
    if len(found) > MAX_HUNKS:
        raise PatchRejected(f"the reply holds more than {MAX_HUNKS} blocks; send one small change")
    return found, "\n".join(rest)


def _hunk(head: str, body: list[str]) -> Hunk:
    if any(_HEAD.fullmatch(line) for line in body):
        raise PatchRejected("a search and replace block begins inside another one")
    dividers = [at for at, line in enumerate(body) if _DIVIDER.fullmatch(line)]
    if len(dividers) > 1:  # the file may have underlines of this form
        dividers = [at for at in dividers if len(body[at].rstrip()) == head.count("<")]
    if len(dividers) != 1:
        raise PatchRejected(f"a search and replace block has {len(dividers)} lines ======= and needs exactly one")
    old, new = body[: dividers[0]], body[dividers[0] + 1 :]
    if _is_fenced(old) and (not new or _is_fenced(new)):
        old, new = old[1:-1], new[1:-1]
    return hunk_between(old, new)


def _is_fenced(lines: list[str]) -> bool:
    last = _FENCE.fullmatch(lines[-1]) if len(lines) > 1 and _FENCE.fullmatch(lines[0]) else None
    return last is not None and not last["info"]


def _name_before(lines: list[str], at: int) -> list[str]:
    """The file name before a block, behind the opening of a fence or on the line before; [] if there is none."""
    before = [line for line in lines[max(0, at - 3) : at] if line.strip()]
    if before and (fence := _FENCE.fullmatch(before[-1])):
        if named := names_in(fence["info"].rpartition(":")[2]):
            return named
        before.pop()
    return names_in(before[-1]) if before else []


def names_in(line: str) -> list[str]:
    """The file name, if a line holds nothing else but marks of Markdown."""
    text = re.sub(r"^(?:file(?:name)?|path)\s*:\s*", "", line.strip(" \t#*`:"), flags=re.IGNORECASE).strip(" *`:")
    return [text] if _NAME.fullmatch(text) else []


def hunk_between(old: Sequence[str], new: Sequence[str]) -> Hunk:
    """The hunk that turns the lines ``old`` into ``new``. Lines that both have are context."""
    matcher = SequenceMatcher(None, [line.rstrip() for line in old], [line.rstrip() for line in new], autojunk=False)
    lines: list[Line] = []
    for kind, begin, end, new_begin, new_end in matcher.get_opcodes():
        if kind == "equal":
            lines += [Line(" ", text, text or " ") for text in old[begin:end]]
        else:
            lines += [Line("-", text, f"-{text}") for text in old[begin:end]]
            lines += [Line("+", text, f"+{text}") for text in new[new_begin:new_end]]
    return Hunk(tuple(lines), exact=True)
