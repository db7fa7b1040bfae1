"""Removes a model's reasoning from its reply.

Reasoning has tags: ``<think>`` and similar, ``[THINK]``, or the channels of gpt-oss. Without a closing tag it runs to
the end of the reply, without an opening tag from the start. A tag in quotes is text. A tag inside a line that a diff
adds or deletes makes the reply ambiguous, and it is rejected.
"""

from __future__ import annotations

import re

from agent.errors import PatchRejected

_NAMES = r"(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad|analysis|inner_monologue|seed:think)"
_TAG = re.compile(
    rf"<(?P<a>/?)\s*{_NAMES}(?:\s[^<>\n]{{0,80}})?\s*>|\[(?P<b>/?)THINK\]|◁(?P<c>/?)think▷|<\|(?P<d>begin|end)_of_thought\|>",
    re.IGNORECASE,
)
_FINAL = re.compile(r"<\|channel\|>\s*final\s*(?:<\|constrain\|>[^<\n]*)?<\|message\|>")
_CHANNEL = re.compile(r"<\|channel\|>\s*(?:analysis|commentary)")


def strip_reasoning(reply: str) -> str:
    """The reply with a line break in place of each tagged piece. Raises PatchRejected."""
    finals = list(_FINAL.finditer(reply))
    if finals:
        reply = re.split(r"<\|(?:end|return|start|call)\|>", reply[finals[-1].end() :], maxsplit=1)[0]
    elif opened := _CHANNEL.search(reply):
        reply = reply[: opened.start()]
    kept: list[str] = []
    depth = position = 0
    for tag in _TAG.finditer(reply):
        before, after = reply[max(0, tag.start() - 1) : tag.start()], reply[tag.end() : tag.end() + 1]
        if before and before in "\"'`" and before == after:
            continue  # quoted
        closing = "/" in tag.group(0)[:2] or (tag.group("d") or "").lower() == "end"
        if depth == 0:
            _refuse_tag_in_change(reply, tag, closing)
            kept.append(reply[position : tag.start()] + "\n")
            if closing:
                kept.clear()  # the reply begins inside its reasoning
        depth = max(0, depth - 1) if closing else depth + 1
        position = tag.end()
    if depth == 0:
        kept.append(reply[position:])
    return "".join(kept)


def _refuse_tag_in_change(reply: str, tag: re.Match[str], closing: bool) -> None:
    start = reply.rfind("\n", 0, tag.start()) + 1
    end = reply.find("\n", tag.end())
    before, after = reply[start : tag.start()], reply[tag.end() : end if end >= 0 else len(reply)]
    if before[:1] in ("+", "-") and before.strip("+- \t") and (after.strip() or not closing):
        raise PatchRejected(
            f"the reasoning tag {tag.group(0)!r} is inside a changed line: the end of the reasoning is ambiguous"
        )
