"""What every answer carries against misuse in a browser, and whose requests are refused."""

from __future__ import annotations

import ipaddress
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import KINDS, CrossSite, Misdirected, problem_response

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:@/\[\]]+))(?::[0-9]*)?")
"""A ``Host`` header: an IPv6 address in brackets, or an IPv4 address or name; then any port."""

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Security:
    """ASGI middleware: sets ``HEADERS`` and refuses what pages of other sites ask for.

    A page anywhere may send simple POST requests to a service on the reader's own machine. Browsers
    say so in ``Sec-Fetch-Site`` or ``Origin``, which no page can forge and other clients need not
    send. A site may also let its own name point to this machine, to pass for the service; but then
    ``Host`` has that name, so only names are answered that no site can have.

    host: where the service listens, which is answered beside the names of the loopback.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._host = host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(scope) or self._app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0].lower()):
            named = ", ".join(map(repr, hosts)) or "none"
            detail = (
                f"the Host header must name this machine, as 127.0.0.1 or localhost, not {named}"
            )
            return problem_response(KINDS[Misdirected], detail)
        if scope["method"] not in SAFE_METHODS and _from_another_site(headers):
            asked = f"{scope['method']} {scope['path']}"
            return problem_response(
                KINDS[CrossSite], f"{asked} was asked for by a page of another site"
            )
        return None

    def _is_ours(self, authority: str) -> bool:
        parts = AUTHORITY.fullmatch(authority)
        if parts is None:
            return False
        name = parts[1] or parts[2]
        if name in ("localhost", self._host):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


def _from_another_site(headers: Headers) -> bool:
    if headers.get("sec-fetch-site", "none") in ("cross-site", "same-site"):
        return True
    host = headers["host"].lower()
    return any(o.lower().partition("://")[2] != host for o in headers.getlist("origin"))
