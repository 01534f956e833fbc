"""Signs requests to Amazon OpenSearch Service and OpenSearch Serverless by AWS Signature Version 4.

The credentials are those that botocore finds: in the environment, in the files of the AWS tools, or those of the role
of a machine, container or function. They are renewed before they expire.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from hybridsearch.adapters.lucene.wire.connection import Address, short
from hybridsearch.errors import BackendError, MissingExtraError

_ENDPOINT = re.compile(r"(?:^|\.)(?P<region>[a-z]{2,}(?:-[a-z0-9]+)+)\.(?P<service>es|aoss)\.amazonaws\.com(?:\.cn)?")
_quiet: ContextVar[bool] = ContextVar("_quiet", default=False)


class Signer:
    """Signs requests for one address.

    Raises:
        MissingExtraError: botocore is not installed.
        BackendError: There are no credentials, or the region is not known.
    """

    def __init__(self, address: Address) -> None:
        try:
            import botocore.session
            from botocore.exceptions import BotoCoreError
        except ImportError:
            raise MissingExtraError("botocore", "aws", "auth='aws'") from None
        self._address, self._error = address, BotoCoreError
        logging.getLogger("botocore.auth").addFilter(_shows_no_tokens)
        endpoint = _ENDPOINT.search(address.hosts[0][0].lower())
        self._service = endpoint["service"] if endpoint else "es"
        try:
            session: Any = botocore.session.get_session()
            configured = os.environ.get("AWS_REGION") or session.get_config_variable("region")
            self._region = endpoint["region"] if endpoint else configured
            self._credentials = session.get_credentials()
        except BotoCoreError as error:
            raise self._failed(error) from None
        if self._credentials is None:
            raise BackendError(
                f"auth='aws' found no AWS credentials for {address}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or AWS_PROFILE, or give this machine a role."
            )
        if not self._region:
            raise BackendError(
                f"auth='aws' does not know the AWS region of {address}: set AWS_REGION, such as eu-central-1."
            )

    def headers(self, method: str, url: str, body: bytes | None) -> dict[str, str]:
        """The headers that sign a request.

        Args:
            method: HTTP method.
            url: The whole URL, as it is sent.
            body: Body, as it is sent.

        Raises:
            BackendError: The credentials could not be renewed.
        """
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        parts = urlsplit(url)
        data = body or b""
        request: Any = AWSRequest(
            method=method,
            url=f"{parts.scheme}://{parts.netloc}{parts.path}",
            params=dict(parse_qsl(parts.query, keep_blank_values=True)),
            data=data,
            headers={"X-Amz-Content-SHA256": hashlib.sha256(data).hexdigest()},  # Serverless needs it
        )
        try:
            credentials = self._credentials.get_frozen_credentials()  # so that a key and its token fit together
        except self._error as error:
            raise self._failed(error) from None
        with _silenced():
            SigV4Auth(credentials, self._service, self._region).add_auth(request)
        return dict(request.headers.items())

    def _failed(self, error: Exception) -> BackendError:
        return BackendError(
            f"auth='aws' could not read the AWS credentials for {self._address} ({short(error)}): check AWS_PROFILE, "
            "the files of the AWS tools, or the role of this machine."
        )


@contextmanager
def _silenced() -> Iterator[None]:
    """Let botocore not log what it signs here, because that has the session token."""
    before = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(before)


def _shows_no_tokens(record: logging.LogRecord) -> bool:
    return not _quiet.get()
