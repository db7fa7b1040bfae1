"""Self-contained HTML pages from the templates: no network, one style sheet, one small script.

Texts of models and logs may be hostile. Every value in a template is sanitised and escaped, and a content security
policy allows only the page's own script, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from agent import text
from agent.errors import EnvironmentProblem
from agent.files import replace_file
from agent.rundir.directory import writing
from sandbox.packages import install_command

TEMPLATES = Path(__file__).with_name("templates")
WIDE, NARROW = 960, 420  # widths of a chart in pixels: on a desktop, on a phone


def render_page(name: str, live: bool = False, **values: Any) -> str:
    """Return a page.

    Args:
        name: Its template, a file in ``TEMPLATES``.
        live: Whether a server sends the page: its script then follows the server's events.

    Raises:
        EnvironmentProblem: Jinja2 is not installed.
    """
    return _template(name, live)(**values)


@cache  # to compile a template takes as long as to render it for a hundred trials
def _template(name: str, live: bool) -> Callable[..., str]:
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError:
        raise EnvironmentProblem(f"the report needs Jinja2: {install_command('overnight[report]')}") from None
    parts = ("report.js", *(("live.js",) if live else ()), "report.css")
    *scripts, style = ((TEMPLATES / part).read_text(encoding="utf-8") for part in parts)
    script = "\n".join(scripts)
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=partial(_sanitised, Markup),
    )
    environment.filters.update(
        number=text.number, gain=text.gain, duration=text.duration, count=text.count, moment=text.moment
    )
    environment.globals.update(own=Markup, script=script, style=style, live=live, script_hash=script_hash)
    return environment.get_template(name).render


def write_page(place: Path, content: str) -> None:
    """Write a page atomically.

    Raises:
        EnvironmentProblem: The file cannot be written.
    """
    with writing(place):
        replace_file(place, content)


def _sanitised(markup: type, value: Any) -> Any:
    """Sanitise a value of a template before it is escaped."""
    return text.clean(value) if isinstance(value, str) and not isinstance(value, markup) else value
