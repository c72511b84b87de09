"""The client: one object per workspace, its nouns as attributes."""

from __future__ import annotations

from types import TracebackType

from hedgerow.contracts.api import WorkspaceInfo
from hedgerow.sdk.activities import Activities
from hedgerow.sdk.backup import Backups
from hedgerow.sdk.blobs import Blobs
from hedgerow.sdk.devices import Devices
from hedgerow.sdk.edge import EdgeDeployments
from hedgerow.sdk.enrollment import EnrollmentKeys
from hedgerow.sdk.environments import Environments
from hedgerow.sdk.events import Events
from hedgerow.sdk.images import Images
from hedgerow.sdk.lineage import LineageGraph
from hedgerow.sdk.local_server import LocalServer
from hedgerow.sdk.models import Models
from hedgerow.sdk.runs import Runs
from hedgerow.sdk.secrets import Secrets
from hedgerow.sdk.services import Services
from hedgerow.sdk.signing import SigningKeys
from hedgerow.sdk.telemetry import Telemetry
from hedgerow.sdk.tokens import Tokens
from hedgerow.sdk.transport import Transport
from hedgerow.sdk.webhooks import Webhooks

API = "/api/v1"


class Client:
    """A workspace as seen from a program; use it as a context manager or call :meth:`close`.

    Every method raises :class:`hedgerow.sdk.errors.ApiError` for an answer that is an error and
    :class:`hedgerow.sdk.errors.ServerUnreachable` when nothing answers.
    """

    def __init__(self, transport: Transport, server: LocalServer | None = None) -> None:
        self.transport = transport
        self._server = server
        self.activities = Activities(transport)
        self.models = Models(transport)
        self.blobs = Blobs(transport)
        self.environments = Environments(transport)
        self.images = Images(transport)
        self.lineage = LineageGraph(transport)
        self.services = Services(transport)
        self.devices = Devices(transport)
        self.enrollment_keys = EnrollmentKeys(transport)
        self.signing_keys = SigningKeys(transport)
        self.edge = EdgeDeployments(transport)
        self.runs = Runs(transport)
        self.telemetry = Telemetry(transport)
        self.tokens = Tokens(transport)
        self.events = Events(transport)
        self.webhooks = Webhooks(transport)
        self.secrets = Secrets(transport)
        self.backups = Backups(transport)

    def info(self) -> WorkspaceInfo:
        """Who this workspace is and which of its processes run."""
        return self.transport.call("GET", f"{API}/workspace", WorkspaceInfo)

    def close(self) -> None:
        """Close the connection; a control plane that was started for this client ends too."""
        self.transport.close()
        if self._server:
            self._server.stop()
            self._server = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
