"""The address of an index, the credentials, and the connections to the engine."""

from __future__ import annotations

import base64
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import Any, Literal, Protocol, TypeAlias
from urllib.parse import quote, unquote

from hybridsearch.arguments import number
from hybridsearch.errors import BackendError, InvalidArgumentError

Json: TypeAlias = Any
Answer: TypeAlias = tuple[int, "bytes | str"]
"""The HTTP status and the body of an answer."""

DEFAULT_PORT = 9200
_AWS_PORT = 443

_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")
_NOT_IN_NAMES = '\\/*?"<>|, #:'


@dataclass(frozen=True, slots=True)
class Address:
    """The address of an index, and what is needed to connect to it.

    Attributes:
        engine: Name of the engine, as messages show it.
        scheme: "http" or "https".
        hosts: Name and port of each node.
        prefix: Start of every path, for an engine behind a proxy: empty, or "/...".
        index: Name of the index.
        headers: HTTP headers with the credentials. No message shows them.
        auth: "aws" if requests are signed by AWS Signature Version 4, see `aws`. Otherwise None.
        ca_file: Certificate of the authority that signed the nodes' certificates. None for the authorities that the
            system trusts.
        verify: Whether certificates are checked.
        timeout: Seconds to wait for an answer.
    """

    engine: str
    scheme: Literal["http", "https"]
    hosts: tuple[tuple[str, int], ...]
    prefix: str
    index: str
    headers: Mapping[str, str] = field(repr=False)
    auth: Literal["aws"] | None = None
    ca_file: str | None = None
    verify: bool = True
    timeout: float = 30.0

    @classmethod
    def parse(
        cls,
        location: str,
        engine: str,
        *,
        user: str | None = None,
        password: str | None = None,
        api_key: str | None = None,
        auth: str | None = None,
        ca_file: str | Path | None = None,
        verify: bool = True,
        timeout: float = 30.0,
    ) -> Address:
        """The address that a URL such as `opensearch+https://host:9200/name` means.

        A URL without a host, such as `opensearch:///name`, uses the server in HYBRIDSEARCH_<ENGINE>_URL. Credentials
        come from the arguments, else from the URL (`user:password@`), else from the environment variables
        HYBRIDSEARCH_<ENGINE>_USER, _PASSWORD and _API_KEY. If neither the arguments nor the URL have any, `auth` comes
        from HYBRIDSEARCH_<ENGINE>_AUTH. The CA file comes from the argument, else from HYBRIDSEARCH_<ENGINE>_CA.

        Raises:
            InvalidArgumentError: The URL or an argument is not usable. Secrets are not in the message.
        """
        scheme, _, rest = str(location).partition("://")
        kind, _, transport = scheme.partition("+")
        shown = f"{scheme}://{rest.rpartition('@')[2]}"
        example = f"{engine.lower()}://host:{DEFAULT_PORT}/name"
        if kind != engine.lower() or transport not in ("", "http", "https"):
            raise InvalidArgumentError(
                f"{shown!r} is not the URL of an index in {engine}: write {example}, or {kind}+https:// for TLS."
            )
        environment = f"HYBRIDSEARCH_{engine.upper()}_"
        if rest.startswith("/"):
            url_scheme, rest = _server(environment + "URL", shown, rest, example)
            transport = transport or url_scheme
            shown = f"{kind}+{transport}://{rest.rpartition('@')[2]}"
        netloc, _, path = rest.partition("/")
        if "@" in path:
            raise InvalidArgumentError(
                "The user name or the password in the URL contains '/', so the host is not clear: write '/' as %2F, or "
                f"give the password as {environment}PASSWORD. An '@' in the name of the index must be %40."
            )
        userinfo, _, netloc = netloc.rpartition("@")
        given = bool(userinfo) or any(value is not None for value in (user, password, api_key))
        if auth is None and not given:
            auth = os.environ.get(environment + "AUTH") or None
        if auth is not None:
            _check_auth(auth, engine, given)
        default_port = DEFAULT_PORT if auth is None else _AWS_PORT
        matches = [_HOST.fullmatch(host) for host in netloc.split(",")]
        hosts = tuple((match["host"], int(match["port"] or default_port)) for match in matches if match is not None)
        if len(hosts) != len(matches) or any(port > 65535 for _, port in hosts):
            raise InvalidArgumentError(
                f"{shown!r} has no usable host: write {example}. Separate several hosts by commas, and write special "
                "characters of a user name or password as %XX."
            )
        *prefix, name = path.split("/")
        tls = transport == "https"
        url_user, colon, url_password = userinfo.partition(":")
        if auth is None and user is None and password is None and api_key is None:
            if userinfo:
                user, password = unquote(url_user), unquote(url_password) if colon else None
            else:
                user, password, api_key = (
                    os.environ.get(environment + key) or None for key in ("USER", "PASSWORD", "API_KEY")
                )
        if user is not None and password is None:
            password = os.environ.get(environment + "PASSWORD")
        ca = ca_file if ca_file is not None or not tls else os.environ.get(environment + "CA")
        if ca is not None:
            _check_ca(ca, tls, shown)
        return cls(
            engine=engine,
            scheme="https" if tls else "http",
            hosts=hosts,
            prefix="".join(f"/{part}" for part in prefix),
            index=check_name(unquote(name), f"The name of the index in {shown!r}", f" (the form is {example})"),
            headers=_headers(user, password, api_key, engine),
            auth="aws" if auth == "aws" else None,
            ca_file=None if ca is None else str(ca),
            verify=verify,
            timeout=float(number("timeout", timeout, above=0, most=TIMEOUT_MAX, unit="seconds")),
        )

    def request_headers(self, content_type: str) -> dict[str, str]:
        """The headers of a request with a body of this type. They ask for an answer in JSON."""
        return {"accept": "application/json", "content-type": content_type, **self.headers}

    @property
    def urls(self) -> list[str]:
        """The URL of each node, without credentials."""
        return [f"{self.scheme}://{host}:{port}{self.prefix}" for host, port in self.hosts]

    def __str__(self) -> str:
        return f"{', '.join(self.urls)}"

    @property
    def path(self) -> str:
        """The path of the index."""
        return f"/{quote(self.index, safe='')}"

    def ssl_context(self) -> ssl.SSLContext | None:
        """The settings of TLS connections. None for plain HTTP.

        Raises:
            BackendError: The certificates cannot be read.
        """
        if self.scheme == "http":
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            where = "of this machine" if self.ca_file is None else f"in {self.ca_file!r}"
            raise BackendError(f"The certificates {where} for {self} cannot be read ({short(error)}).") from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class Transport(Protocol):
    """The official client of an engine, reduced to raw requests. It raises the errors of `refusals.no_answer`."""

    def send(self, method: str, path: str, body: bytes | None, content_type: str, timeout: float) -> Answer:
        """Send a request and wait for the answer. Any number of threads may do so at the same time."""
        ...

    def close(self) -> None: ...

    async def asend(self, method: str, path: str, body: bytes | None, content_type: str, timeout: float) -> Answer:
        """Send a request in the running event loop. Cancelling it closes its connection."""
        ...

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        ...


def check_name(name: str, where: str = "The name", hint: str = "") -> str:
    """`name`. Raises InvalidArgumentError if the engines do not allow it for an index or an alias."""
    problem = ""
    if not name:
        problem = "is missing"
    elif name != name.lower():
        problem = f"{name!r} has upper case: use lower case, such as {name.lower()!r}"
    elif bad := sorted(set(name) & set(_NOT_IN_NAMES)):
        problem = f"{name!r} contains {bad[0]!r}: use letters, digits, '-', '_' and '.'"
    elif name[0] in "-_+" or name in (".", ".."):
        problem = f"{name!r} does not start with a letter or digit"
    elif not name.isprintable():
        problem = f"{name!r} contains a character that cannot be printed"
    elif len(name.encode()) > 255:
        problem = f"{name[:40]!r}... is longer than 255 bytes"
    if problem:
        raise InvalidArgumentError(f"{where} {problem}{hint}.")
    return name


def check_switches(**switches: object) -> None:
    """Raises InvalidArgumentError if one of these options is neither True nor False."""
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise InvalidArgumentError(f"{name} is {value!r}, but it must be True or False.")


def _server(variable: str, shown: str, path: str, example: str) -> tuple[str, str]:
    """The scheme and the rest of the server's URL in an environment variable. `path` is added to the rest."""
    url = os.environ.get(variable, "").strip()
    if not url:
        raise InvalidArgumentError(
            f"{shown!r} names no host, and {variable} is not set: write {example}, or set {variable} to the URL of the "
            f"server, such as https://host:{DEFAULT_PORT}."
        )
    scheme, _, rest = url.rstrip("/").partition("://")
    if scheme not in ("http", "https") or not rest:
        raise InvalidArgumentError(  # the value is not shown, because it may contain a password
            f"{variable} (the host of {shown!r}) is not the URL of a server: set it to a URL such as "
            f"https://host:{DEFAULT_PORT}. Separate several hosts by commas."
        )
    return scheme, rest + path


def _check_auth(auth: str, engine: str, given: bool) -> None:
    if auth != "aws":
        raise InvalidArgumentError(f"auth is {auth!r:.80}, but it must be 'aws', or be left out.")
    if engine != "OpenSearch":
        raise InvalidArgumentError(
            f"auth='aws' is for OpenSearch, because AWS offers no {engine} of a version that hybridsearch supports: "
            "leave auth out, or write opensearch+https:// for Amazon OpenSearch Service."
        )
    if given:
        raise InvalidArgumentError("Give either auth='aws', or user and password, or api_key.")


def _check_ca(path: str | Path, tls: bool, shown: str) -> None:
    if not tls:
        scheme, _, rest = shown.partition("://")
        raise InvalidArgumentError(
            f"ca_file is for TLS, but {shown!r} is plain HTTP: write {scheme.partition('+')[0]}+https://{rest}."
        )
    try:
        ssl.create_default_context(cafile=str(path))
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(
            f"The CA file {str(path)!r} cannot be used ({short(error)}): give a PEM file with the authority's "
            "certificate."
        ) from None


def _headers(user: str | None, password: str | None, api_key: str | None, engine: str) -> dict[str, str]:
    if api_key is not None and (user is not None or password is not None):
        raise InvalidArgumentError("Give either user and password, or api_key, not both.")
    if (user is None) != (password is None):
        missing = "password" if password is None else "user"
        raise InvalidArgumentError(
            f"The {missing} is missing: give it as an argument, in the URL, or as "
            f"HYBRIDSEARCH_{engine.upper()}_{missing.upper()}."
        )
    if api_key is not None:
        api_key = str(api_key).strip()  # a key from a file ends with a newline
        if not re.fullmatch("[!-~]+", api_key):
            raise InvalidArgumentError(
                f"The API key for {engine} is empty or has a character that no key has. A key is printable ASCII "
                "without spaces: give it exactly as the server showed it."
            )
        return {"authorization": f"ApiKey {api_key}"}
    if user is not None and password is not None:
        pair = f"{str(user).strip()}:{str(password).strip()}"
        return {"authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    return {}


def short(error: BaseException) -> str:
    """The message of an error, without the addresses of Python objects."""
    text = re.sub(r"<[^<>]*object at 0x[0-9a-f]+>:?\s*", "", str(error)) or type(error).__name__
    return text.splitlines()[0][:200].strip(" .")
