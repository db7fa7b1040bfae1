"""Fills prompt templates, and fences untrusted text in prompts.

A template is ``prompts/NAME.md`` with variables in double braces; ``prompts/README.md`` lists them. A missing or an
unknown variable is a ValueError, and filled-in text is not searched for variables.

Output of trials and text of models is data in a prompt: without control characters, cut to size, unable to close its
fence or to imitate a special token of a chat template.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from importlib import resources

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_VARIABLE = re.compile(r"\{\{([a-z][a-z0-9_]*)\}\}")
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # OSC and other strings up to their end: titles, links
    r"|\x1b[ -/]*[0-~]?"  # shorter sequences
    r"|\x9b[0-?]*[ -/]*[@-~]",
    re.MULTILINE,
)
# A server tokenizes special tokens anywhere in the text, so one in a log could end the user's turn.
_SPECIAL = re.compile(
    r"<(?=[|｜])"
    r"|<(?=/?(?:s|bos|eos|pad|think|thinking|start_of_turn|end_of_turn|tool_call|tool_response)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|THINK)\])"
    r"|<(?=</?SYS>>)",
    re.IGNORECASE,
)
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # controls, directions, surrogates, unassigned
NOTES_LIMIT = 40_000  # characters of notes.md in a prompt


def fill(name: str, **values: object) -> str:
    """The template ``prompts/NAME.md`` with every variable replaced.

    Raises:
        ValueError: there is no such template, or ``values`` are not exactly its variables.
    """
    text, wanted = template(name), variables(name)
    if missing := wanted - values.keys():
        raise ValueError(f"prompts/{name}.md needs {', '.join(sorted(missing))}")
    if extra := values.keys() - wanted:
        raise ValueError(f"prompts/{name}.md has no variable {', '.join(sorted(extra))}")
    return _VARIABLE.sub(lambda match: str(values[match.group(1)]), text)


def variables(name: str) -> frozenset[str]:
    """The variables of a template. Raises ValueError for double braces that hold no variable."""
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
    """``text`` without terminal escapes, invisible characters and special tokens of chat templates.

    Line ends become ``\\n``. Of lines that overwrite each other with carriage returns, the last one stays.
    """
    text = _ESCAPES.sub("", text).replace("\r\n", "\n")
    text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in _INVISIBLE)
    return _SPECIAL.sub(lambda match: match.group(0) + " ", text)


def one_line(text: str, limit: int = 200) -> str:
    """``clean`` text on one line of at most ``limit`` characters, without runs of backticks."""
    line = re.sub(r"`{2,}", "`", " ".join(clean(text).split()))
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def fence(text: str, limit: int = 4000, info: str = "text") -> str:
    """The last ``limit`` characters of ``clean`` text in a fenced block."""
    text = clean(text).strip("\n")
    if len(text) > limit:
        cut = len(text) - limit
        text = f"[{cut} characters before this are left out]\n{text[cut:].lstrip()}"
    return block(text, info)


def block(text: str, info: str = "") -> str:
    """``text`` unchanged, in a fence that is longer than any run of backticks in ``text``."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{info}\n{text.rstrip(chr(10))}\n{ticks}"


def cut_notes(text: str) -> str:
    """The user's notes.md, cut to ``NOTES_LIMIT`` characters."""
    text = text.strip()
    return text if len(text) <= NOTES_LIMIT else text[:NOTES_LIMIT] + "\n[the rest of the notes is left out]"
