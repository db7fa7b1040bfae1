"""The form of the code proposer's answer as a grammar (EBNF that vLLM reads): header, then one unified diff.

It holds the form, not the content: whether the lines exist in the file is for ``agent.patch.apply`` to find out.
"""

from __future__ import annotations

import json

from agent.proposers.code.history import CATEGORIES

_TEMPLATE = r"""
root ::= "Category: " category "\nSubject: " subject "\nRationale: " rationale "\n\n```diff\n" files hunk+ "```"
category ::= {categories}
subject ::= [^ \n] [^\n]{{0,79}}
rationale ::= [^ \n] [^\n]{{0,599}}
files ::= {files}
hunk ::= "@@ " [^\n@]{{0,40}} " @@" [^\n]{{0,80}} "\n" context* change line*
context ::= " " [^\n]* "\n"
change ::= [+-] [^\n]* "\n"
line ::= context | change
"""


def answer_grammar(path: str) -> str:
    """A grammar of answers that change ``path``."""
    categories = " | ".join(json.dumps(name) for name in CATEGORIES)
    return _TEMPLATE.format(categories=categories, files=json.dumps(f"--- a/{path}\n+++ b/{path}\n")).strip() + "\n"
