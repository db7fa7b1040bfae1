"""Prompt templates, and the fences around text that nobody vouches for.

A template is ``prompts/NAME.md`` with variables in double braces, all listed in ``prompts/README.md``. Filling is
strict: a variable too many or too few is a bug, and text that was filled in is never searched for variables again.

What a trial printed, and what a model said about its own edit, goes into the next prompt as data: without control
characters, cut to size, and unable to close its fence or to speak as somebody else in the conversation.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from importlib import resources
from pathlib import Path

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_VARIABLE = re.compile(r"\{\{([a-z][a-z0-9_]*)\}\}")
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # OSC and other strings up to their end: titles, links
    r"|\x1b[ -/]*[0-~]?"  # everything shorter
    r"|\x9b[0-?]*[ -/]*[@-~]",
    re.MULTILINE,
)
# Special tokens of chat templates. A server tokenizes them wherever they stand, so text with such a token in it could
# end the user's turn and speak as the system.
_SPECIAL = re.compile(
    r"<(?=[|｜])"
    r"|<(?=/?(?:s|bos|eos|pad|think|thinking|start_of_turn|end_of_turn|tool_call|tool_response)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|THINK)\])"
    r"|<(?=</?SYS>>)",
    re.IGNORECASE,
)
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # controls, directions, surrogates, unassigned
NOTES_LIMIT = 40_000  # characters of notes.md that reach a prompt


def fill(name: str, **values: object) -> str:
    """The template ``prompts/NAME.md`` with every variable replaced.

    Raises:
        ValueError: there is no such template, or ``values`` are not exactly its variables.
    """
    text = template(name)
    wanted = variables(name)
    if missing := wanted - values.keys():
        raise ValueError(f"prompts/{name}.md needs {', '.join(sorted(missing))}")
    if extra := values.keys() - wanted:
        raise ValueError(f"prompts/{name}.md has no variable {', '.join(sorted(extra))}")
    return _VARIABLE.sub(lambda match: str(values[match.group(1)]), text)


def variables(name: str) -> frozenset[str]:
    """The variables of a template. Raises ValueError for braces that are no variable."""
    text = template(name)
    if "{{" in (rest := _VARIABLE.sub("", text)) or "}}" in rest:
        raise ValueError(f"prompts/{name}.md has double braces that are no variable: write {{{{name}}}} in lower case")
    return frozenset(_VARIABLE.findall(text))


@cache
def template(name: str) -> str:
    """The text of ``prompts/NAME.md``. Raises ValueError."""
    file = resources.files("prompts").joinpath(f"{name}.md")
    if not _NAME.fullmatch(name) or not file.is_file():
        raise ValueError(f"there is no template prompts/{name}.md")
    return file.read_text(encoding="utf-8").strip() + "\n"


def clean(text: str) -> str:
    """``text`` without terminal escapes, control and invisible characters, and special tokens of chat templates.

    Line ends become ``\\n``; a progress bar's carriage returns leave what was written last. Other text is unchanged.
    """
    text = _ESCAPES.sub("", text).replace("\r\n", "\n")
    text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in _INVISIBLE)
    return _SPECIAL.sub(lambda match: match.group(0) + " ", text)


def one_line(text: str, limit: int = 200) -> str:
    """``clean`` text on one line of at most ``limit`` characters, without backticks in a row."""
    line = re.sub(r"`{2,}", "`", " ".join(clean(text).split()))
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def fence(text: str, limit: int = 4000, info: str = "text") -> str:
    """The last ``limit`` characters of untrusted ``text`` as a fenced block that nothing inside can close."""
    text = clean(text).strip("\n")
    if len(text) > limit:
        cut = len(text) - limit
        text = f"[{cut} characters before this are left out]\n{text[cut:].lstrip()}"
    return block(text, info)


def block(text: str, info: str = "") -> str:
    """``text`` as it is, in a fence longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{info}\n{text.rstrip(chr(10))}\n{ticks}"


def load_notes(path: Path) -> str:
    """The user's notes.md: the text that steers the model; empty if there is no such file. A very long one is cut."""
    try:
        return cut_notes(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return ""


def cut_notes(text: str) -> str:
    text = text.strip()
    return text if len(text) <= NOTES_LIMIT else text[:NOTES_LIMIT] + "\n[the notes go on; the rest is left out]"
