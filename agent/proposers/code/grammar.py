"""Grammar of the code proposer's answer (EBNF as vLLM reads it): header lines, then one unified diff.

The grammar fixes the form. ``agent.patch.apply`` checks whether the lines of the diff are in the file.
"""

from __future__ import annotations

import json

from agent.proposers.code.history import CATEGORIES

_TEMPLATE = r"""
root ::= "Category: " category "\nSubject: " subject "\nRationale: " rationale idea? "\n\n```diff\n" files hunk+ "```"
category ::= {categories}
subject ::= [^ \n] [^\n]{{0,79}}
rationale ::= [^ \n] [^\n]{{0,599}}
idea ::= "\nIdea: " [^ \n] [^\n]{{0,79}}
files ::= {files}
hunk ::= "@@ " [^\n@]{{0,40}} " @@" [^\n]{{0,80}} "\n" context* change line*
context ::= " " [^\n]* "\n"
change ::= [+-] [^\n]* "\n"
line ::= context | change
"""


def answer_grammar(path: str) -> str:
    """The grammar of answers that change the file ``path``."""
    categories = " | ".join(json.dumps(name) for name in CATEGORIES)
    return _TEMPLATE.format(categories=categories, files=json.dumps(f"--- a/{path}\n+++ b/{path}\n")).strip() + "\n"
