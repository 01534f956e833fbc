"""Forward proxies that the environment names: HTTPS_PROXY, HTTP_PROXY and NO_PROXY.

Neither client of the engines knows proxies. Each of their connections has a `pool` of urllib3, or a `session` of
aiohttp in an event loop. `ProxiedPool` and `ProxiedSession` take the places of these.

The proxy of an HTTPS server gets CONNECT and passes the encrypted bytes on. The proxy of an HTTP server gets whole
URLs, and sees everything.
"""

from __future__ import annotations

import base64
import ipaddress
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import urllib3

from hybridsearch.errors import InvalidArgumentError


@dataclass(frozen=True, slots=True)
class Proxy:
    """A forward proxy.

    Attributes:
        url: URL, without credentials.
        user: User name. None if the proxy needs none.
        password: Password of the user. No message shows it.
    """

    url: str
    user: str | None = None
    password: str = field(default="", repr=False)

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers with the credentials."""
        if self.user is None:
            return {}
        pair = f"{self.user}:{self.password}".encode()
        return {"proxy-authorization": f"Basic {base64.b64encode(pair).decode()}"}


def proxy_for(scheme: str, host: str, port: int) -> Proxy | None:
    """The proxy for requests to a node. None if they go to the node itself.

    As in other programs, `https_proxy` counts before `HTTPS_PROXY`, and NO_PROXY has names and suffixes of hosts, or
    "*". This machine itself (localhost and loopback addresses) is always asked without a proxy.

    Raises:
        InvalidArgumentError: The variable is not the URL of an HTTP proxy.
    """
    given = getproxies_environment().get(scheme, "").strip()
    if not given or _is_here(host) or proxy_bypass(f"{host}:{port}"):
        return None
    try:
        parts = urlsplit(given if "://" in given else f"http://{given}")
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.path in ("", "/")
        at = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        usable = at = ""
    if not usable:  # the value is not shown, because it may contain a password
        raise InvalidArgumentError(
            f"{scheme.upper()}_PROXY is not the URL of an HTTP proxy: set it to a URL such as "
            f"http://proxy.example.org:3128, or name {host} in NO_PROXY."
        )
    name = parts.netloc.rpartition("@")[2].removesuffix(at)
    user = None if parts.username is None else unquote(parts.username)
    return Proxy(f"{parts.scheme}://{name}{at}", user, unquote(parts.password or ""))


class ProxiedPool:
    """The connections of threads to one node through a proxy, in place of a pool of urllib3."""

    def __init__(
        self, proxy: Proxy, host: str, port: int, context: ssl.SSLContext | None, *, maxsize: int, timeout: float
    ) -> None:
        settings: dict[str, Any] = {} if context is None else {"ssl_context": context}
        manager = urllib3.ProxyManager(
            proxy.url, proxy_headers=dict(proxy.headers), maxsize=maxsize, timeout=timeout, **settings
        )
        self._pool = manager.connection_from_host(host.strip("[]"), port, "http" if context is None else "https")
        self._server = "" if context is not None else f"http://{host}" if port == 80 else f"http://{host}:{port}"

    def urlopen(self, method: str, target: str, body: bytes | None = None, **options: Any) -> Any:
        """Make a request, as `urllib3.HTTPConnectionPool.urlopen` does."""
        return self._pool.urlopen(method, self._server + target, body=body, assert_same_host=False, **options)

    def close(self) -> None:
        self._pool.close()


class ProxiedSession:
    """The connections of an event loop to one node through a proxy, in place of a session of aiohttp."""

    def __init__(self, proxy: Proxy, session: Any, scheme: str) -> None:
        self._session = session
        tunnel = scheme == "https"
        self._options = {"proxy": proxy.url, **({"proxy_headers": proxy.headers} if tunnel else {})}
        self._headers = {} if tunnel else proxy.headers

    def request(self, method: str, url: Any, *, headers: Mapping[str, str], **options: Any) -> Any:
        """Make a request, as `aiohttp.ClientSession.request` does."""
        return self._session.request(method, url, headers={**headers, **self._headers}, **options, **self._options)

    async def close(self) -> None:
        await self._session.close()


def _is_here(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host.lower().rstrip(".") == "localhost"
