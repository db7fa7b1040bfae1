"""The server: routes, events, and which requests are refused.

Read-only: every route answers GET. The page of another site can neither read an answer nor reach the server under
another name (DNS rebinding): the Host must be an address, localhost or this machine, and an Origin must be the Host.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from agent.web.pages import Pages, Stamp

LOOK = 0.25  # seconds between looks at the files
GRACE = 10  # longest wait for open requests at the end, in seconds
COOKIE = "overnight_token"


def make_app(root: Path, host: str, token: str, ending: Callable[[], bool]) -> Starlette:
    """The server over the runs below ``root``.

    Args:
        root: folder of the run directories.
        host: name or address that the server listens on.
        token: secret that a browser must know; "" asks for none.
        ending: whether the server is to end: open streams of events end with it.
    """
    pages = Pages(root)

    async def runs(_request: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(pages.runs))

    async def run(request: Request) -> Response:
        return _found(await run_in_threadpool(pages.run, request.path_params["tag"]))

    async def now(request: Request) -> Response:
        return _found(await run_in_threadpool(pages.now, request.path_params["tag"]))

    async def events(request: Request) -> Response:
        return StreamingResponse(_changes(pages, request, ending), media_type="text/event-stream")

    routes = [
        Route("/", runs), Route("/run/{tag}", run), Route("/run/{tag}/live", now), Route("/events", events),
    ]  # fmt: skip
    return Starlette(routes=routes, middleware=[Middleware(_Guard, host=host, token=token)])


def serve(root: Path, host: str, port: int, token: str) -> None:
    """Serve until Ctrl-C. Raises OSError if the address cannot be used."""
    servers: list[uvicorn.Server] = []
    app = make_app(root, host, token, lambda: any(server.should_exit for server in servers))
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=GRACE, server_header=False,
        access_log=False,
    )  # fmt: skip
    servers.append(uvicorn.Server(config))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listening:
        print(f"http://{shown(host)}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else ""), flush=True)
        servers[0].run(sockets=[listening])


async def _changes(pages: Pages, request: Request, ending: Callable[[], bool]) -> AsyncIterator[str]:
    """One event for each run at first, and for each that changed: its tag, and the stamp of its ledger as text."""
    known: dict[str, Stamp] = {}
    yield "retry: 1000\n\n"
    while not ending() and not await request.is_disconnected():
        found = await run_in_threadpool(pages.stamps)
        for tag, stamp in found.items():
            if stamp != known.get(tag):
                yield f"data: {json.dumps({'tag': tag, 'ledger': str(stamp[0])})}\n\n"
        known = found
        await asyncio.sleep(LOOK)


def _found(page: str | None) -> Response:
    return PlainTextResponse("no such session\n", 404) if page is None else HTMLResponse(page)


class _Guard(BaseHTTPMiddleware):
    """Refuses foreign hosts, foreign origins and requests without the token."""

    def __init__(self, app: Any, host: str, token: str):
        super().__init__(app)
        self._names = {"localhost", host.lower(), socket.gethostname().lower()}
        self._token = token

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
        origin = request.headers.get("origin")
        if not (_is_address(host) or host.lower() in self._names):
            return PlainTextResponse("this Host is not served here\n", 421)
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            return PlainTextResponse("requests of other sites are refused\n", 403)
        if self._token:
            given = request.query_params.get("token")
            if given is not None and hmac.compare_digest(given.encode(), self._token.encode()):
                answer: Response = RedirectResponse(request.url.path, 303)  # so that the token leaves the address bar
                answer.set_cookie(COOKIE, given, httponly=True, samesite="strict")
                return answer
            if not hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), self._token.encode()):
                return PlainTextResponse("open the address with ?token=… once\n", 401)
        answer = await call_next(request)
        answer.headers.update(
            {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
             "Referrer-Policy": "no-referrer"}
        )  # fmt: skip
        return answer


def _is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
