"""What stands before every request: the Host, the token, the origin, the size of a body, and headers on the way out.

The server listens on loopback alone. A foreign Host is refused, so that a page elsewhere cannot reach it by a name
that it points here (DNS rebinding); there is no CORS header, so that it cannot read an answer; the token keeps other
users of the machine out.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlencode

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MOST_BYTES = 256 * 1024
POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self' data:",
    "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
))  # fmt: skip
# A report brings its own policy of hashes; the sandbox gives it an origin of its own, so that a page from a run
# folder, whoever wrote it, can neither ask the bench nor read other runs.
REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads allow-popups; connect-src 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "x-frame-options": "DENY",
    "cache-control": "no-store", "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}  # fmt: skip


class TooLarge(Exception):
    """A body has more bytes than are read; whoever reads it answers 413."""


class Guard:
    """An ASGI application around another one, which refuses what may not come in.

    Args:
        app: What answers.
        token: The secret of this server.
        port: Where it listens; part of the Host that is expected.
        most_bytes: Longest body that is read.
    """

    def __init__(self, app: Any, token: str, port: int, most_bytes: int = MOST_BYTES) -> None:
        self.app, self.token, self.most_bytes = app, token, most_bytes
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        self.cookie = f"tunescope-{port}"  # cookies do not know ports; two servers must not share one

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no web sockets here: the connection closes
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        if headers.get("host", "").lower() not in self.hosts:
            await _say(send, 403, "This Host is not served here.")
            return
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if given and self._is_token(given) and scope["method"] == "GET":
            await self._welcome(scope, send)
            return
        if not self._is_token(_cookie(headers.get("cookie", ""), self.cookie)):
            await _say(
                send, 403, "The token is missing or wrong: open the address that `tunescope serve` printed."
            )
            return
        origin = headers.get("origin")
        foreign = origin is not None and origin.lower() not in {f"http://{host}" for host in self.hosts}
        if scope["method"] not in ("GET", "HEAD") and (
            foreign or headers.get("sec-fetch-site") == "cross-site"
        ):
            await _say(send, 403, "Other origins may not ask here.")
            return
        await self._bounded(scope, receive, send, headers.get("content-length", "0"))

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())

    async def _welcome(self, scope: Scope, send: Send) -> None:
        """Keep the token in a cookie that no script reads, and take it out of the address."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        rest = urlencode({key: values for key, values in query.items() if key != "token"}, doseq=True)
        path = "/" + scope["raw_path"].decode("latin-1").partition("?")[0].lstrip("/")
        cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Lax"
        headers = {**HEADERS, "location": path + (f"?{rest}" if rest else ""), "set-cookie": cookie}
        await _send(send, 303, headers, b"")

    async def _bounded(self, scope: Scope, receive: Receive, send: Send, length: str) -> None:
        if not length.isdigit() or int(length) > self.most_bytes:
            await _say(send, 413, f"The request is larger than {self.most_bytes:,} bytes.")
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.most_bytes:
                raise TooLarge(f"The request is larger than {self.most_bytes:,} bytes.")
            return message

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = dict(message.get("headers", []))
                extra = {**HEADERS, "content-security-policy": POLICY}
                more = [(k.encode(), v.encode()) for k, v in extra.items() if k.encode() not in own]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        await self.app(scope, counted, dressed)


def _cookie(header: str, name: str) -> str:
    for part in header.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return ""


async def _say(send: Send, status: int, sentence: str) -> None:
    headers = {**HEADERS, "content-security-policy": POLICY, "content-type": "text/plain; charset=utf-8"}
    await _send(send, status, headers, sentence.encode())


async def _send(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    pairs.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
