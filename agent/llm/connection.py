"""HTTP requests to one model server. Every failure is a ``RequestFailed`` with the server's reason."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import (  # type: ignore[attr-defined]
    getproxies_environment,
    proxy_bypass_environment,
)

from agent.errors import ModelMisconfigured
from agent.llm.api_keys import remember, scrub
from agent.llm.error_bodies import ErrorBody, read_error
from agent.text import without_password

if TYPE_CHECKING:
    from httpx2 import Response
    from openai import OpenAI


class RequestFailed(Exception):
    """A request that brought no usable answer.

    Attributes:
        status: of the HTTP response, 0 if there is none.
        body: what the response says.
        retry_after: seconds that the server asks to wait, None if it does not ask.
    """

    def __init__(self, message: str, status: int = 0, body: ErrorBody | None = None, retry_after: float | None = None):
        super().__init__(message)
        self.status, self.body, self.retry_after = status, body or ErrorBody(message), retry_after

    @property
    def overflow(self) -> bool:
        """Whether the request is longer than the context window."""
        known = self.status in (0, 401, 403, 404, 408, 409, 429)  # the words of these may look alike
        return not known and (self.status == 413 or self.body.overflow)

    @property
    def transient(self) -> bool:
        """Whether another attempt may succeed."""
        if self.body.code == "insufficient_quota" or self.overflow:
            return False
        return self.status in (0, 200, 408, 409, 425, 429) or (self.status >= 500 and self.status != 501)


class Proxy(NamedTuple):
    url: str
    variable: str  # environment variable that holds the URL

    def __str__(self) -> str:
        return f"the proxy {without_password(self.url).rstrip('/')} of {self.variable}"


class Connection:
    """Requests to the server at ``base_url`` through the openai client, which opens with the first request.

    Args:
        base_url: ends without a slash.
        key: API key, None for a server without keys.
        timeout: seconds without a byte of the answer after which a request fails.
    """

    def __init__(self, base_url: str, key: str | None, timeout: float) -> None:
        self.base_url, self._key, self._timeout = base_url, key, timeout
        self.root = base_url.removesuffix("/v1")
        remember(urlsplit(base_url).password)
        self.proxy = proxy_for(base_url)

    def __str__(self) -> str:
        through = f" through {self.proxy}" if self.proxy else ""
        return f"the model server at {self.scrub(self.base_url)}{through}"

    def scrub(self, text: str) -> str:
        """``text`` without the API key and the password of the address."""
        return scrub(text, self._key)

    def get(self, path: str) -> str:
        """The body of the answer to a GET request. Raises RequestFailed, ModelMisconfigured."""
        with self._failures():
            return self._client.get(path, cast_to=str)

    def post(self, path: str, body: dict[str, Any]) -> str:
        """The body of the answer to a POST request. Raises RequestFailed, ModelMisconfigured."""
        with self._failures():
            return self._client.post(path, cast_to=str, body=body)

    def version(self) -> str:
        """The version of the server software by vLLM's /version, else ""."""
        try:
            return str(json.loads(self.get(self.root + "/version"))["version"])[:40]
        except (RequestFailed, ValueError, KeyError, TypeError):
            return ""

    @contextmanager
    def streamed(self, path: str, body: dict[str, Any]) -> Iterator[Response]:
        """The response to a POST request, whose body has not been read. Raises RequestFailed, ModelMisconfigured."""
        from openai import Stream

        kind = Stream[object]
        with (
            self._failures(),
            self._client.post(path, cast_to=object, body=body, stream=True, stream_cls=kind) as reply,
        ):
            yield reply.response

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn every exception of a request into RequestFailed."""
        from openai import APIStatusError

        try:
            yield
        except (RequestFailed, ModelMisconfigured):
            raise
        except APIStatusError as error:
            body = read_error(error.response.text)
            reason = f"HTTP {error.status_code}{f': {body.reason}' if body.reason else ''}"
            wait = seconds_to_wait(error.response.headers.get("retry-after"))
            raise RequestFailed(self.scrub(reason), error.status_code, body, wait) from None
        except Exception as error:  # the exceptions of openai and of its HTTP library have no common base
            cause = f" ({error.__cause__})" if error.__cause__ is not None and str(error.__cause__) else ""
            reason = f"{str(error).rstrip('.') or type(error).__name__}{cause}"
            raise RequestFailed(self.scrub(" ".join(reason.split()))) from None

    @cached_property
    def _client(self) -> OpenAI:
        import openai

        # Without a proxy for this server, proxies of the environment must not even be looked at: one that the HTTP
        # library cannot use would raise.
        options: dict[str, Any] = {}
        try:
            if self.proxy is not None:
                options = {"proxy": self.proxy.url}
            elif getproxies_environment():
                options = {"trust_env": False, "verify": ssl.create_default_context()}
            return openai.OpenAI(
                api_key=self._key or "EMPTY",
                base_url=self.base_url,
                timeout=self._timeout,
                max_retries=0,  # ChatModel retries: bounded and recorded
                http_client=openai.DefaultHttpxClient(**options),
            )
        except Exception as error:  # of openai, its HTTP library, ssl and packages that are not installed
            why, host = str(error).rstrip("."), urlsplit(self.base_url).hostname
            names = ("SSL_CERT_FILE", "SSL_CERT_DIR", "OPENAI_CUSTOM_HEADERS")
            found = ", ".join(name for name in names if os.environ.get(name))
            what, hint = "open a client", f" Check {found}." if found else ""
            if self.proxy is not None:
                what, variable = f"use {self.proxy}", self.proxy.variable
                hint = f" Unset {variable}, add {host} to NO_PROXY, or for SOCKS: pip install socksio."
            raise ModelMisconfigured(f"cannot {what} for the model server at {host}: {why}.{hint}") from None


def proxy_for(base_url: str) -> Proxy | None:
    """The proxy that the environment sets for a server; None if there is none or NO_PROXY covers the server."""
    parts = urlsplit(base_url)
    names = [form for name in (f"{parts.scheme}_proxy", "all_proxy") for form in (name, name.upper())]
    variable = next((name for name in names if os.environ.get(name, "").strip()), "")
    if not variable or covered_by_no_proxy(parts.hostname or "", parts.port):
        return None
    value = os.environ[variable].strip()
    return Proxy(value if "://" in value else f"http://{value}", variable)


def covered_by_no_proxy(host: str, port: int | None) -> bool:
    """Whether NO_PROXY names a host: as urllib reads it, with schemes and ``*.``; or an address or a network."""
    words = re.split(r"[,\s]+", os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "")
    entries = [word.rpartition("://")[2].removeprefix("*.") for word in words]
    if proxy_bypass_environment(f"{host}:{port}", {"no": ",".join(entries)}):
        return True
    for entry in entries:
        with suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(re.sub(r"\[(.*)\].*", r"\1", entry), strict=False):
                return True
    return False


def seconds_to_wait(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date; None for anything else."""
    try:
        seconds = float(value or "")
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value or "").timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds < 1e9 else None
