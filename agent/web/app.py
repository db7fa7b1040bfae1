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
from collections.abc import AsyncIterator
from pathlib import Path
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
HEADERS = {
    "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}  # fmt: skip


def make_app(root: Path, host: str, token: str) -> Starlette:
    """The server over the runs below ``root``, without a secret if ``token`` is "".

    ``state.server`` of the result is to be set before the first request.
    """
    pages = Pages(root)
    names = {"localhost", host.lower(), socket.gethostname().lower()}

    # Starlette runs functions that are not coroutines in threads
    def runs(_request: Request) -> Response:
        return HTMLResponse(pages.runs())

    def run(request: Request) -> Response:
        return _found(pages.run(request.path_params["tag"]))

    def now(request: Request) -> Response:
        return _found(pages.now(request.path_params["tag"]))

    async def events(request: Request) -> Response:
        return StreamingResponse(_changes(pages, request), media_type="text/event-stream")

    async def guard(request: Request, call_next: RequestResponseEndpoint) -> Response:
        if (refusal := _refusal(request, names, token)) is not None:
            return refusal
        answer = await call_next(request)
        answer.headers.update(HEADERS)
        return answer

    routes = [
        Route("/", runs), Route("/run/{tag}", run), Route("/run/{tag}/live", now), Route("/events", events),
    ]  # fmt: skip
    return Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)])


def serve(root: Path, host: str, port: int, token: str) -> None:
    """Serve until Ctrl-C. Raises OSError if the address cannot be used."""
    app = make_app(root, host, token)
    server = app.state.server = uvicorn.Server(
        uvicorn.Config(
            app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=GRACE, server_header=False,
            access_log=False,
        )
    )  # fmt: skip
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listening:
        print(f"http://{shown(host)}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else ""), flush=True)
        server.run(sockets=[listening])


async def _changes(pages: Pages, request: Request) -> AsyncIterator[str]:
    """One event for each run at first, and for each that changed: its tag, and the stamp of its ledger as text."""
    known: dict[str, Stamp] = {}
    yield "retry: 1000\n\n"
    while not request.app.state.server.should_exit and not await request.is_disconnected():
        found = await run_in_threadpool(pages.stamps)
        for tag, stamp in found.items():
            if stamp != known.get(tag):
                yield f"data: {json.dumps({'tag': tag, 'ledger': str(stamp[0])})}\n\n"
        known = found
        await asyncio.sleep(LOOK)


def _found(page: str | None) -> Response:
    return PlainTextResponse("no such session\n", 404) if page is None else HTMLResponse(page)


def _refusal(request: Request, names: set[str], token: str) -> Response | None:
    """The answer to a foreign host, a foreign origin, or a request without the token or with it in its address."""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    origin = request.headers.get("origin")
    if not (_is_address(host) or host.lower() in names):
        return PlainTextResponse("this Host is not served here\n", 421)
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return PlainTextResponse("requests of other sites are refused\n", 403)
    given = request.query_params.get("token")
    if token and given is not None and hmac.compare_digest(given.encode(), token.encode()):
        answer = RedirectResponse(request.url.path, 303)  # so that the token leaves the address bar
        answer.set_cookie(COOKIE, given, httponly=True, samesite="strict")
        return answer
    if token and not hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), token.encode()):
        return PlainTextResponse("open the address with ?token=… once\n", 401)
    return None


def _is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
