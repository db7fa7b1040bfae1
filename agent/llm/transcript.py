"""Replies of a model as Markdown files, and the check whether a reply holds an answer."""

from __future__ import annotations

from agent.llm.chat import Reply
from agent.llm.prompts import one_line


def no_answer(reply: Reply) -> str:
    """Why a reply holds no answer; "" if it may hold one."""
    if reply.refusal or reply.finish_reason == "content_filter":
        return f"the model refused: {one_line(reply.refusal or reply.text or 'content filter')}"
    if reply.finish_reason == "length":  # half a diff can be a valid diff of something else
        reasoning = "" if reply.text.strip() else ", all of it reasoning"
        return f"the reply was cut off after {reply.tokens_out} tokens{reasoning}; think less and answer shorter"
    return "" if reply.text.strip() else "the reply is empty"


def transcript(reply: Reply) -> str:
    """A reply as a Markdown file: facts about the request, the reasoning, the text."""
    facts = [
        f"model: {reply.model}",
        f"finish: {reply.finish_reason}",
        f"tokens: {reply.tokens_in} in, {reply.tokens_out} out{', estimated' if reply.estimated else ''}",
        f"seconds: {reply.seconds:.1f}",
        f"attempts: {reply.attempts}",
        *(f"failed: {failure}" for failure in reply.failures),
        *([f"refusal: {reply.refusal}"] if reply.refusal else []),
    ]
    parts = ["<!--\n" + "\n".join(facts).replace("--", "- -") + "\n-->"]
    if reply.reasoning:
        parts.append(f"<details><summary>reasoning</summary>\n\n{reply.reasoning.strip()}\n\n</details>")
    return "\n\n".join([*parts, reply.text]) + "\n"
