"""Fills prompt templates, and fences untrusted text in prompts.

A template is ``prompts/NAME.md`` with variables in double braces; ``prompts/README.md`` lists them. A missing or an
unknown variable is a ValueError, and filled-in text is not searched for variables.

Output of trials and text of models is data in a prompt: cleaned as for a terminal, cut to size, unable to close its
fence or to imitate a special token of a chat template.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

from agent import text as terminal

_COLOUR = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # and movements of the cursor
_VARIABLE = re.compile(r"\{\{([a-z][a-z0-9_]*)\}\}")
# A server tokenizes special tokens anywhere in the text, so one in a log could end the user's turn.
_SPECIAL = re.compile(
    r"<(?=[|｜])"
    r"|<(?=/?(?:s|bos|eos|pad|think|thinking|start_of_turn|end_of_turn|tool_call|tool_response)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|THINK)\])"
    r"|<(?=</?SYS>>)",
    re.IGNORECASE,
)
NOTES_LIMIT = 40_000  # characters of notes.md in a prompt


def fill(name: str, **values: object) -> str:
    """The template ``prompts/NAME.md`` with its variables replaced. Raises ValueError for others than exactly these."""
    if values.keys() != variables(name):
        raise ValueError(f"prompts/{name}.md has the variables {', '.join(sorted(variables(name)))}")
    return _VARIABLE.sub(lambda match: str(values[match.group(1)]), template(name))


def variables(name: str) -> frozenset[str]:
    """The variables of a template."""
    return frozenset(_VARIABLE.findall(template(name)))


@cache
def template(name: str) -> str:
    """The text of ``prompts/NAME.md``."""
    return resources.files("prompts").joinpath(f"{name}.md").read_text(encoding="utf-8").strip() + "\n"


def clean(text: str) -> str:
    """``agent.text.clean`` without colours and special tokens of chat templates.

    Of lines that overwrite each other with carriage returns, the last one stays.
    """
    text = _COLOUR.sub("", text)  # first: after a carriage return it is no text that overwrites the line
    text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return _SPECIAL.sub(lambda match: match.group(0) + " ", terminal.clean(text))


def one_line(text: str, limit: int = 200) -> str:
    """``clean`` text on one line of at most ``limit`` characters, without runs of backticks."""
    return terminal.line(re.sub(r"`{2,}", "`", clean(text)), limit)


def title(category: str, subject: str) -> str:
    """Category and subject of a trial, cleaned and cut."""
    return (f"[{one_line(category, 30)}] " if category else "") + one_line(subject or "no subject", 100)


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
