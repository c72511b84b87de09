"""PUT of a file to a blob store's signed address (SAS), only to hosts that this device's own settings allow."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
from pathlib import Path
from urllib.parse import quote

from edge_agent.methods.errors import UploadFailed, UploadForbidden
from hedgerow.egress import EgressPolicy, Target, check_url, connect, tls_context
from hedgerow.errors import InvalidSetting

TIMEOUT_S = 60.0
# Azure's signed addresses have about 300 characters.
_LONGEST_URL = 4000
_REASON_CHARS = 200


def parse_hosts(text: str) -> EgressPolicy:
    """The setting ``upload_hosts``: host names, addresses or networks, separated by commas. Raises InvalidSetting."""
    try:
        return EgressPolicy.parse(text)
    except InvalidSetting as problem:
        source = "--upload-hosts or the environment variable HEDGEROW_AGENT_UPLOAD_HOSTS"
        raise InvalidSetting(name="upload_hosts", value=text[:200], problem=problem.fields["problem"], source=source) from None


class Uploads:
    """``allowed`` are the hosts that may get anything; the default is none."""

    def __init__(self, allowed: EgressPolicy) -> None:
        self._allowed = allowed

    def check(self, sas_url: str) -> Target:
        """Raises UploadForbidden, EgressRefused."""
        target = check_url(sas_url, self._allowed, longest=_LONGEST_URL)
        if target.host not in self._allowed.hosts and not self._by_address(target):
            raise UploadForbidden(host=target.host)
        return target

    def put(self, sas_url: str, blob: str, content: Path) -> None:
        """Write ``content`` as the blob of this name in the container that ``sas_url`` names.

        Raises UploadForbidden, EgressRefused, UploadFailed.
        """
        target = self.check(sas_url)
        path, mark, query = target.path.partition("?")
        address = f"{path.rstrip('/')}/{quote(blob)}{mark}{query}"
        try:
            with contextlib.closing(connect(target, self._allowed, timeout_s=TIMEOUT_S, tls=lambda: tls_context(None))) as sock:
                _put(target, sock, address, content)
        except (OSError, http.client.HTTPException) as problem:
            said = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
            raise UploadFailed(host=target.host, problem=said or type(problem).__name__) from None

    def _by_address(self, target: Target) -> bool:
        try:
            return self._allowed.allows_network(ipaddress.ip_address(target.host))
        except ValueError:
            return False


def _put(target: Target, sock: socket.socket, address: str, content: Path) -> None:
    connection = http.client.HTTPConnection(target.host, target.port, timeout=TIMEOUT_S)
    # Connected by the egress policy, to an address that it checked.
    connection.sock = sock
    size = content.stat().st_size
    with content.open("rb") as file:
        headers = {
            "Host": target.authority,
            "x-ms-blob-type": "BlockBlob",
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size),
        }
        connection.request("PUT", address, body=file, headers=headers)
        response = connection.getresponse()
        response.read(_REASON_CHARS)
    # A redirect would be another address, which nobody allowed.
    if not 200 <= response.status < 300:
        raise UploadFailed(host=target.host, problem=f"it answered {response.status} {response.reason}")
