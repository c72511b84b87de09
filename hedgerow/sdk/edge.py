"""Edge deployments: what devices that match a condition should run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from hedgerow.contracts.api import Page
from hedgerow.contracts.api_fleet import EdgePlan
from hedgerow.contracts.edge import AgentRelease, EdgeDeployment
from hedgerow.contracts.rollout import DeviceOutcome, Rollout, RolloutDevice, SteerRollout
from hedgerow.sdk.addresses import address
from hedgerow.sdk.blobs import upload_missing
from hedgerow.sdk.edge_shadows import EdgeShadows
from hedgerow.sdk.pages import PAGE_ITEMS, WALK_ITEMS, walk
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/edge-deployments"
_DRY_RUN = {"dry_run": True}


class EdgeDeployments(EdgeShadows):
    """``client.edge``. What is about shadows is in ``edge_shadows.py``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def deploy(self, deployment: EdgeDeployment) -> EdgeDeployment:
        """Create or replace; devices get it at once, or when they are back. Image references are resolved to digests."""
        return self._transport.call("PUT", address(_PATH, deployment.name), EdgeDeployment, body=deployment)

    def plan(self, deployment: EdgeDeployment) -> EdgePlan:
        """What :meth:`deploy` would change, device by device; nothing is changed."""
        return self._transport.call("PUT", address(_PATH, deployment.name), EdgePlan, body=deployment, query=_DRY_RUN)

    def plan_steps(self, deployment: EdgeDeployment, device: str | None = None) -> EdgePlan:
        """Like :meth:`plan`, with the steps that each device (or only ``device``) would take, in their order."""
        query = {**_DRY_RUN, "steps": True, "device": device}
        return self._transport.call("PUT", address(_PATH, deployment.name), EdgePlan, body=deployment, query=query)

    def get(self, name: str) -> EdgeDeployment:
        return self._transport.call("GET", address(_PATH, name), EdgeDeployment)

    def list(self, limit: int = PAGE_ITEMS, after: str | None = None, *, name: str | None = None) -> Page[EdgeDeployment]:
        """By name; ``name`` may end with a star."""
        query = {"limit": limit, "after": after, "name": name}
        return self._transport.call("GET", _PATH, Page[EdgeDeployment], query=query)

    def iterate(self, *, name: str | None = None) -> Iterator[EdgeDeployment]:
        """Every edge deployment that fits, read page by page."""
        return walk(lambda after: self.list(WALK_ITEMS, after, name=name))

    def delete(self, name: str) -> None:
        """Its devices get the next deployment that matches them, or none."""
        self._transport.delete(address(_PATH, name))

    def upload_agent_release(self, wheel: str | os.PathLike[str]) -> AgentRelease:
        """Bring a wheel of Hedgerow into the workspace; the answer is what a deployment's ``agent`` takes.

        Raises AgentWheelInvalid, FileChanged, OSError.
        """
        from hedgerow.sdk.agent_release import read_release

        release, file = read_release(Path(wheel))
        upload_missing(self._transport, [file])
        return release

    def plan_delete(self, name: str) -> EdgePlan:
        """What :meth:`delete` would change, device by device; nothing is changed."""
        return self._transport.call("DELETE", address(_PATH, name), EdgePlan, query=_DRY_RUN)

    def rollout(self, name: str) -> Rollout:
        """The newest rollout of this edge deployment, with its groups in numbers of devices. Raises ApiError (no_rollout)."""
        return self._transport.call("GET", address(_PATH, name, "rollout"), Rollout)

    def rollouts(self, name: str, limit: int = PAGE_ITEMS, after: str | None = None) -> Page[Rollout]:
        """Newest first."""
        query = {"limit": limit, "after": after}
        return self._transport.call("GET", address(_PATH, name, "rollouts"), Page[Rollout], query=query)

    def rollout_devices(
        self, name: str, limit: int = PAGE_ITEMS, after: str | None = None, *, state: DeviceOutcome | None = None
    ) -> Page[RolloutDevice]:
        """The devices of the newest rollout, by name: to which group each belongs and how it does."""
        query = {"limit": limit, "after": after, "state": state}
        return self._transport.call("GET", address(_PATH, name, "rollout", "devices"), Page[RolloutDevice], query=query)

    def iterate_rollouts(self, name: str) -> Iterator[Rollout]:
        """All of them, read page by page."""
        return walk(lambda after: self.rollouts(name, WALK_ITEMS, after))

    def iterate_rollout_devices(self, name: str, *, state: DeviceOutcome | None = None) -> Iterator[RolloutDevice]:
        """All of them, read page by page."""
        return walk(lambda after: self.rollout_devices(name, WALK_ITEMS, after, state=state))

    def pause_rollout(self, name: str, reason: str = "") -> Rollout:
        """No other group is told until somebody resumes it."""
        return self._steer(name, SteerRollout(action="pause", reason=reason))

    def resume_rollout(self, name: str, reason: str = "") -> Rollout:
        """Go on, also past a group that failed."""
        return self._steer(name, SteerRollout(action="resume", reason=reason))

    def skip_rollout_group(self, name: str, reason: str = "") -> Rollout:
        """Tell the next group without waiting for the one that it is at."""
        return self._steer(name, SteerRollout(action="skip", reason=reason))

    def reverse_rollout(self, name: str, reason: str = "") -> Rollout:
        """Every device gets what it had before, as the deployment's next revision."""
        return self._steer(name, SteerRollout(action="reverse", reason=reason))

    def wait_for_rollout(self, name: str, on_look: Callable[[Rollout], None] | None = None, *, every_s: float = 1.0) -> Rollout:
        """Look until the newest rollout has ended, or is paused and needs somebody. Returns it, however it ended."""
        while True:
            found = self.rollout(name)
            if on_look:
                on_look(found)
            if found.state not in ("running", "reversing"):
                return found
            threading.Event().wait(every_s)

    def _steer(self, name: str, wanted: SteerRollout) -> Rollout:
        return self._transport.call("POST", address(_PATH, name, "rollout"), Rollout, body=wanted)
