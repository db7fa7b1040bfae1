"""Find the printed number that is most likely the metric of a training script, from its syntax tree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from agent.types import Goal

TOKEN = r"\s*([^\s,;|(){}%]+)"  # trials refuse a part of a number, such as 1 of 1,003
_PRINTS = re.compile(r"p?print\w*|info|warning|echo|dumps")
_HELD_OUT = re.compile(r"(?<![a-z])(val|valid|validation|test|dev|eval|holdout)(?![a-z])|(val|test|eval)(loss|acc)")
_FILLERS = ("is", "of", "the", "final", "best", "with")  # words of a label that do not name the metric
_FORMAT = re.compile(r"%[-+#0-9.*]*[a-zA-Z]|\{[^{}]*\}")
_HOLE = "\0"  # stands for a printed number
_UP, _DOWN = (
    re.compile(rf"(?:(?<![a-z])|val|valid|test|train|eval)(?:{words})(?![a-z])")  # val_loss, valloss
    for words in (
        r"acc\d?|accuracy|f1|auc|auroc|r2|bleu|rouge\w?|rewards?|returns?|precision|recall|m?iou|dice|psnr|ssim|mcc"
        r"|kappa|map|ndcg|mrr|top.?\d|scores?|likelihood|elbo",
        r"bpb|bpc|bits|loss|losses|ppl|perplexity|err|errors?|r?mse|mae|mape|nll|entropy|logloss|wer|cer|fid|kl"
        r"|divergence|deviance|negative",
    )
)


@dataclass(frozen=True)
class Metric:
    """A printed number that looks like a metric. ``pattern`` has one group: the printed token."""

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
    labels: list[tuple[str, str, int]] = []
    others: set[ast.expr] = set()
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        called = ast.unparse(call.func).rpartition(".")[2]
        if not _PRINTS.fullmatch(called):
            others.update(call.args)
            continue
        for k, label in enumerate(" ".join(map(_template, call.args)).split(_HOLE)[:-1]):
            words = re.sub(r"^\W+", "", label.rpartition("\n")[2]).split()
            start = r"^\W*" if k == 0 and "print" in called else r"(?<!\w)"  # a logger prefixes its lines
            labels.append((label, start + r"\s+".join(map(re.escape, words)) + TOKEN, call.lineno))
    if any(not re.search(r"[a-z](?<!metrics)(?<!results)\W*$", label, re.I) for label, _, _ in labels):
        labels += [(key, rf"[\"']{re.escape(key)}[\"']:{TOKEN}", line) for key, line in _keys(tree, others)]
    found = [Metric(_name(label), pattern, line) for label, pattern, line in labels]
    found = [metric for metric in found if _UP.search(metric.name) or _DOWN.search(metric.name)]
    return max(found, key=lambda metric: (metric.rank, metric.line), default=None)


def _name(label: str) -> str:
    words = [word.strip("_").lower() for word in re.findall(r"[A-Za-z_][\w-]*", label.rpartition("\n")[2])]
    return re.sub(r"\W+", "_", "_".join([word for word in words if word not in _FILLERS][-3:]))


def _keys(tree: ast.Module, others: set[ast.expr]) -> Iterator[tuple[str, int]]:
    """Keys of dictionaries, which print(metrics) may print, without the arguments of other functions."""
    for node in ast.walk(tree):
        keys: list[ast.expr | None] = []
        if isinstance(node, ast.Dict) and node not in others:
            keys = list(node.keys)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            keys = [node.slice]
        constants = [key for key in keys if isinstance(key, ast.Constant)]
        yield from ((key.value, key.lineno) for key in constants if isinstance(key.value, str))


def _template(node: ast.expr) -> str:
    """What an expression prints, with ``_HOLE`` for each number."""
    match node:
        case ast.Constant(value=str(text)):  # % or a logger may fill it in
            return "%".join(_FORMAT.sub(_HOLE, piece) for piece in text.split("%%"))
        case ast.JoinedStr(values=values):
            return "".join(str(v.value) if isinstance(v, ast.Constant) else _template(v) for v in values)
        case ast.FormattedValue(value=inner) | ast.BinOp(left=inner, op=ast.Mod()):
            return _template(inner)
        case ast.Call(func=ast.Attribute(value=inner, attr="format")):
            return _template(inner)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _template(left) + _template(right)
    return _HOLE
