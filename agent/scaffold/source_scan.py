"""What a training script says about itself to one who reads it and does not run it: its metric, constants and paths.

Everything here is a guess from the syntax tree, and returned as such; ``agent.scaffold.project`` writes it down for a
person.
"""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agent.space.block import literal_value
from agent.types import Goal, Value

# one group; "nan" counts, so that no older value stands in for it
NUMBER = r"([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?|[Nn]a[Nn]|[-+]?[Ii]nf(?:inity)?)"
_HIGHER = (
    r"acc\d?|accuracy|f1|auc|auroc|r2|bleu|rouge\w?|rewards?|returns?|precision|recall|m?iou|dice|psnr|ssim|mcc|kappa"
    r"|map|ndcg|mrr|top.?\d|scores?|wins?|hits?|success|likelihood|elbo"
)
_LOWER = (
    r"bpb|bpc|bits|loss|losses|ppl|perplexity|err|errors?|r?mse|mae|mape|nll|entropy|logloss|wer|cer|fid|kl"
    r"|divergence|deviance|negative|neg"
)
_SOUGHT = ((r"val_bpb|bpb|bits", 4), (r"loss|acc", 3), (r".", 2))  # which of several metrics is most likely meant
_HELD_OUT = re.compile(r"(?<![a-z])(val|valid|validation|test|dev|eval|held|holdout)(?![a-z])|(val|test)(loss|acc)")
_NO_METRIC = re.compile(
    r"(^|_)(times?|seconds?|secs?|steps?|epochs?|lr|(?<!error_)(?<!win_)(?<!hit_)(?<!success_)rate)$"
)
_PRINTS = re.compile(r"p?print\w*|\w*print0?|info|warning|error|critical|echo|secho|log|log0")
_PERCENT = re.compile(r"%[-+ #0-9.*]*([a-zA-Z%])")


def _among(words: str) -> re.Pattern[str]:
    """Finds any of these as a word of a name like ``val_loss``, or as the end of one like ``valloss``."""
    return re.compile(rf"(?:(?<![a-z])|val|valid|test|train|eval)(?:{words})(?![a-z])")


_UP, _DOWN = _among(_HIGHER), _among(_LOWER)


@dataclass(frozen=True)
class Metric:
    """A printed number that looks like what the training is about."""

    name: str
    pattern: str
    goal: Goal
    line: int
    sure_of_goal: bool


@dataclass(frozen=True)
class Constant:
    """``NAME = literal``, once at module level and nowhere else in the file."""

    name: str
    value: Value
    line: int


@dataclass(frozen=True)
class _Number:
    """A value in a printed line; ``said`` is what is printed, if that has a name."""

    said: str
    readable: bool = True  # and not 12,345.6, say


_Part = str | _Number


# --- the metric -----------------------------------------------------------------------------------------------------


def find_metric(tree: ast.Module) -> Metric | None:
    """The printed number with the likeliest name, the last one of several equals; None if none looks like a metric."""
    best: tuple[int, int, Metric] | None = None
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and _prints(node)):
            continue
        line: list[_Part] = []
        for part in _printed(node):
            if isinstance(part, str):
                before = line.pop() if line and isinstance(line[-1], str) else ""
                text = f"{before}{part}"
                line = [text.rpartition("\n")[2]] if "\n" in text else [*line, text]
                continue
            if found := _metric(line, part, node.lineno, anchored=_called(node).startswith("print")):
                rank = (found[0], node.lineno)
                if best is None or rank >= best[:2]:
                    best = (*rank, found[1])
            line = [*line, part]
    return best[2] if best else None


def _metric(line: list[_Part], number: _Number, at: int, anchored: bool) -> tuple[int, Metric] | None:
    """How likely this number is the metric, and what it would be. ``anchored``: nothing is printed before the line."""
    label = line[-1] if line and isinstance(line[-1], str) else ""
    words = re.findall(r"[A-Za-z_][\w-]*", re.sub(r"\bR(\^2|²)", "R2", label))
    words = [w.strip("_").lower() for w in words if w.lower() not in ("is", "of", "the", "final", "best", "with")][-3:]
    labelled = bool(words)
    name = re.sub(r"\W+", "_", "_".join(words) if labelled else number.said.lower()).strip("_")
    up, down = _UP.search(name), _DOWN.search(name)
    if not (number.readable and (up or down) and (labelled or anchored)) or _NO_METRIC.search(name):
        return None
    score = next(weight for sought, weight in _SOUGHT if re.search(sought, name))
    score += 4 if _HELD_OUT.search(name) else -4 if "train" in name else 0
    goal: Goal = "maximize" if up and not down else "minimize"
    if not labelled:  # its place in the line has to tell it from others
        start, told = "^" + "".join(map(_shape, line)), ""
    elif anchored and len(line) == 1:
        start, told = r"^\s*" if label != label.lstrip() else "^", label.strip()
    else:
        told = label.strip().lstrip(",;|([{ ")
        start = r"\b" if re.match(r"\w", told) else ""
    pattern = f"{start}{_escape(told)}\\s*{NUMBER}"
    return score, Metric(name, pattern, goal, at, bool(up) != bool(down))


def _shape(part: _Part) -> str:
    return r"\s*\S+?" if isinstance(part, _Number) else _escape(part)


def _escape(text: str) -> str:
    return re.sub(r"(\\?\s)+", r"\\s+", re.escape(text))


def _called(node: ast.Call) -> str:
    function = node.func
    return (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )


def _prints(node: ast.Call) -> bool:
    """Whether a call puts its arguments on the screen: not ``math.log``, ``wandb.log`` or ``file.write``."""
    owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
    if _called(node) in ("write", "log") and owner:
        return bool(re.search(r"std(out|err)$|log(ger)?$", owner))
    return bool(_PRINTS.fullmatch(_called(node)))


def _printed(node: ast.Call) -> Iterator[_Part]:
    """The text that a call prints, with its numbers in place."""
    arguments = node.args
    if len(arguments) > 1 and not _called(node).startswith("print") and isinstance(form := arguments[0], ast.Constant):
        yield from _late(str(form.value), node)  # a logger puts the values in
        return
    for k, argument in enumerate(arguments):
        if k:
            yield " "
        yield from _parts(argument)


def _late(form: str, node: ast.Call) -> Iterator[_Part]:
    """``log.info("accuracy %.3f", value)``, or with braces as loguru has it."""
    values = node.args[1:]
    if "{" in form and "%" not in form:
        yield from _formatted(form, ast.Call(node.func, values, node.keywords))
    else:
        yield from _filled(form, values)


def _parts(node: ast.expr) -> Iterator[_Part]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        for value in node.values:
            yield from _parts(value)
    elif isinstance(node, ast.FormattedValue):
        if isinstance(node.value, ast.Constant):
            yield str(node.value.value)
        else:
            spec = node.format_spec.values if isinstance(node.format_spec, ast.JoinedStr) else []
            yield _number(node.value, "".join(str(v.value) for v in spec if isinstance(v, ast.Constant)))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from _parts(node.left)
        yield from _parts(node.right)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant):
        given = node.right.elts if isinstance(node.right, ast.Tuple) else [node.right]
        yield from _filled(str(node.left.value), given)
    elif isinstance(node, ast.Dict):
        yield from _pairs(node, "'")
    elif isinstance(node, ast.Call) and _called(node) == "dumps" and node.args:
        yield from _pairs(node.args[0], '"')
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        form = node.func.value
        if isinstance(form, ast.Constant) and isinstance(form.value, str):
            yield from _formatted(form.value, node)
    elif isinstance(node, ast.Call) and _called(node) in ("str", "round", "float") and node.args:
        yield _number(node.args[0])
    else:
        yield _number(node)


def _number(node: ast.expr, form: str = "") -> _Number:
    """What is printed of an expression: a variable, what it holds, or ``loss.item()`` has a name."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args:
        node = node.func.value
    while isinstance(node, ast.Subscript):
        node = node.slice if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str) else node.value
    said = {ast.Name: "id", ast.Attribute: "attr", ast.Constant: "value"}.get(type(node), "")
    return _Number(str(getattr(node, said, "")), not re.search(r"[,_]", form))


def _pairs(node: ast.expr, quote: str) -> Iterator[_Part]:
    """A dictionary as it is printed, or written as JSON."""
    pairs: list[tuple[object, ast.expr]] = []
    if isinstance(node, ast.Dict):
        keyed = zip(node.keys, node.values, strict=True)
        pairs = [(key.value, value) for key, value in keyed if isinstance(key, ast.Constant)]
    elif isinstance(node, ast.Call) and _called(node) == "dict":
        pairs = [(item.arg, item.value) for item in node.keywords if item.arg]
    for k, (key, value) in enumerate(pairs):
        yield f"{', ' if k else '{'}{quote}{key}{quote}: "
        yield from _parts(value)


def _filled(form: str, given: list[ast.expr]) -> Iterator[_Part]:
    """``"accuracy %.3f" % value``."""
    at, rest = 0, iter(given)
    for match in _PERCENT.finditer(form):
        yield form[at : match.start()]
        at = match.end()
        value = None if match[1] == "%" else next(rest, None)
        yield "%" if value is None else _number(value)
    yield form[at:]


def _formatted(form: str, node: ast.Call) -> Iterator[_Part]:
    """``"accuracy {:.3f}".format(value)``."""
    try:
        pieces = list(string.Formatter().parse(form))
    except ValueError:
        return
    rest = iter(node.args)
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    for text, field, form_spec, _conversion in pieces:
        yield text
        if field is not None:
            value = next(rest, None) if not field else given.get(field)
            yield _number(value, form_spec or "") if value is not None else _Number(field)


# --- constants ------------------------------------------------------------------------------------------------------


def find_constants(tree: ast.Module) -> list[Constant]:
    """Literals that are assigned to a name once, at module level, on one line."""
    assigned: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)) and _at_module_level(node, tree):
            assigned[node.id] = assigned.get(node.id, 0) + 1
        elif isinstance(node, ast.Global):
            assigned.update(dict.fromkeys(node.names, 2))
    found = []
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, expression = statement.targets[0], statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            target, expression = statement.target, statement.value
        else:
            continue
        value = literal_value(expression)
        if not isinstance(target, ast.Name) or value is None or statement.lineno != expression.end_lineno:
            continue
        if assigned.get(target.id) == 1:
            found.append(Constant(target.id, value, statement.lineno))
    return found


def _at_module_level(name: ast.Name, tree: ast.Module) -> bool:
    """Whether a name belongs to the module and not to a function or a class."""
    return not any(
        isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda))
        and scope.lineno <= name.lineno <= (scope.end_lineno or scope.lineno)
        for scope in tree.body
    )


# --- paths ----------------------------------------------------------------------------------------------------------


def find_paths(tree: ast.Module) -> list[str]:
    """Every text that can be read off the source, whole expressions only: ``~`` stands for the home directory."""
    single = [node for node in tree.body if isinstance(node, ast.Assign) and len(node.targets) == 1]
    named = {node.targets[0].id: node.value for node in single if isinstance(node.targets[0], ast.Name)}
    found: list[str] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        text = _text(node, named) if isinstance(node, ast.expr) else None
        if text is not None:
            found.append(text)
        else:
            waiting.extend(ast.iter_child_nodes(node))
    return found


def _text(node: ast.AST, named: Mapping[str, ast.expr], depth: int = 0) -> str | None:
    """The text that an expression must have, if that much can be told: literals, joined paths, the home directory."""
    if depth > 20:
        return None
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.Name) and node.id in named:
        return _text(named[node.id], named, depth + 1)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Div)):
        sides = [_text(side, named, depth + 1) for side in (node.left, node.right)]
        known = [side for side in sides if side is not None]
        return ("/" if isinstance(node.op, ast.Div) else "").join(known) if len(known) == 2 else None
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name.endswith("Path.home"):
            return "~"
        if name.endswith(("environ.get", "getenv")) and len(node.args) == 2:
            return _text(node.args[1], named, depth + 1)
        words = [_text(argument, named, depth + 1) for argument in node.args]
        known = [word for word in words if word is not None]
        if len(known) == len(words) and known and re.search(r"(^|\.)(join|expanduser|Path|abspath|realpath)$", name):
            return "/".join(known)
    return None
