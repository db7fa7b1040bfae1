"""Find the printed number that is most likely the metric of a training script, from its syntax tree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from agent.types import Goal

_PRINTS = re.compile(r"p?print\w*|\w*print0?|info|warning|echo")
_HELD_OUT = re.compile(r"(?<![a-z])(val|valid|validation|test|dev|eval|holdout)(?![a-z])|(val|test|eval)(loss|acc)")
_FILLERS = ("is", "of", "the", "final", "best", "with")  # words of a label that do not name the metric
_PERCENT = r"%%|%[-+ #0-9.*]*[a-zA-Z]"
_BRACES = r"\{[^{}]*\}"
_HOLE = "\0"  # stands for a printed number


def _words(alternatives: str) -> re.Pattern[str]:
    """Matches a word of a name such as ``val_loss``, or the end of one such as ``valloss``."""
    return re.compile(rf"(?:(?<![a-z])|val|valid|test|train|eval)(?:{alternatives})(?![a-z])")


_UP = _words(
    r"acc\d?|accuracy|f1|auc|auroc|r2|bleu|rouge\w?|rewards?|returns?|precision|recall|m?iou|dice|psnr|ssim|mcc|kappa"
    r"|map|ndcg|mrr|top.?\d|scores?|likelihood|elbo"
)
_DOWN = _words(
    r"bpb|bpc|bits|loss|losses|ppl|perplexity|err|errors?|r?mse|mae|mape|nll|entropy|logloss|wer|cer|fid|kl"
    r"|divergence|deviance|negative"
)


@dataclass(frozen=True)
class Metric:
    """A printed number that looks like a metric. ``pattern`` has one group: the whole printed token."""

    name: str
    pattern: str
    line: int

    @property
    def goal(self) -> Goal:
        return "maximize" if _UP.search(self.name) and not _DOWN.search(self.name) else "minimize"

    @property
    def rank(self) -> int:
        """3: held-out data; 2: accuracy or bits per byte; 1: another metric; 0: training data."""
        if "train" in self.name:
            return 0
        return 3 if _HELD_OUT.search(self.name) else 2 if _UP.search(self.name) or "bpb" in self.name else 1


def find_metric(tree: ast.Module) -> Metric | None:
    """Return the candidate with the highest rank, the last one of several; None if nothing looks like a metric."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _PRINTS.fullmatch(_called(node))]
    lines = [(_line(call).split(_HOLE), call) for call in calls]
    found = [metric for pieces, call in lines for metric in _labelled(pieces, call)]
    labels = (label for pieces, _ in lines for label in pieces[:-1])
    if any(not re.search(r"[a-z](?<!metrics)(?<!results)\W*$", label, re.I) for label in labels):
        # print(metrics) may print any dictionary
        found += [m for key, line in _keys(tree) if (m := _metric(key, rf"[\"']{key}[\"']:\s*([^\s,}}]+)", line))]
    return max(found, key=lambda metric: (metric.rank, metric.line), default=None)


def _metric(label: str, pattern: str, line: int) -> Metric | None:
    words = [word.strip("_").lower() for word in re.findall(r"[A-Za-z_][\w-]*", label)]
    name = re.sub(r"\W+", "_", "_".join([word for word in words if word not in _FILLERS][-3:]))
    return Metric(name, pattern, line) if _UP.search(name) or _DOWN.search(name) else None


def _labelled(pieces: list[str], call: ast.Call) -> Iterator[Metric]:
    """Numbers between ``pieces`` whose label, the text before them, names a metric."""
    for k, (before, after) in enumerate(pairwise(pieces)):
        text = before.rpartition("\n")[2].strip().lstrip(",;|([{ ")
        first = k == 0 and before.startswith(text) and _called(call).startswith("print")  # a logger prefixes the line
        start = r"^\s*" if first else r"\b" if re.match(r"\w", text) else ""
        end = re.escape(after[:1].strip())
        token = r"(\S+)" if not end else rf"(\S+){end}" if end in (r"\.", r"\-") else rf"([^\s{end}]+)"
        pattern = start + r"\s+".join(map(re.escape, text.split())) + r"\s*" + token
        if before and (metric := _metric(text, pattern, call.lineno)):
            yield metric


def _keys(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Keys of dictionaries that are printed, returned or assigned; not of arguments of other functions."""
    nodes = list(ast.walk(tree))
    calls = [node for node in nodes if isinstance(node, ast.Call) and not _PRINTS.fullmatch(_called(node))]
    elsewhere = {id(argument) for call in calls if _called(call) != "dumps" for argument in call.args}
    for node in nodes:
        if isinstance(node, ast.Call) and _called(node) == "dict":
            yield from ((keyword.arg, node.lineno) for keyword in node.keywords if keyword.arg)
        elif (isinstance(node, ast.Dict) and id(node) not in elsewhere) or isinstance(node, ast.Subscript):
            keys = node.keys if isinstance(node, ast.Dict) else [node.slice] if isinstance(node.ctx, ast.Store) else []
            constants = [key.value for key in keys if isinstance(key, ast.Constant)]
            yield from ((key, node.lineno) for key in constants if isinstance(key, str))


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func).rpartition(".")[2]


def _line(call: ast.Call) -> str:
    """What a call prints, with ``_HOLE`` for each number."""
    if len(call.args) > 1 and not _called(call).startswith("print"):  # a logger fills in its arguments
        return _filled(call.args[0], _BRACES if "{" in ast.unparse(call.args[0]) else _PERCENT)
    return " ".join(map(_template, call.args))


def _template(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(map(_template, values))
        case ast.FormattedValue(value=value):
            return _template(value)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _template(left) + _template(right)
        case ast.BinOp(left=left, op=ast.Mod()):
            return _filled(left, _PERCENT)
        case ast.Call(func=ast.Attribute(value=form, attr="format")):
            return _filled(form, _BRACES)
    return _HOLE


def _filled(form: ast.expr, holes: str) -> str:
    """A text with holes for numbers, such as ``"accuracy %.3f"``."""
    text = str(form.value) if isinstance(form, ast.Constant) else ""
    return re.sub(holes, lambda hole: "%" if hole[0] == "%%" else _HOLE, text)
