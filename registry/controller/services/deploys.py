"""Activities of kind ``service.deploy``: each only waits until its deployment is ready, or will never be."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from hedgerow.contracts.document import decode
from hedgerow.contracts.service import Deployment
from hedgerow.contracts.work import Activity
from hedgerow.errors import HedgerowError
from registry.controller.balancer.port import Routed
from registry.controller.errors import as_problem
from registry.controller.jobs import JobTools
from registry.controller.services.judge import Outcome, outcome
from registry.controller.services.situation import Situation
from registry.controller.teller import Teller
from registry.store import activities
from registry.store.services import DEPLOY, DeployTask, Progress

log = logging.getLogger(__name__)
_ALMOST = 0.9
Key = tuple[str, str]


@dataclass
class _Waiting:
    activity: Activity
    task: DeployTask
    teller: Teller

    @property
    def key(self) -> Key:
        return self.task.endpoint, self.task.deployment


class Deploys:
    """Those that wait now."""

    def __init__(self, tools: JobTools) -> None:
        self._tools = tools
        self._waiting: dict[str, _Waiting] = {}

    def take(self) -> None:
        """Begin all that are queued. Raises DatabaseUnavailable, LeaseLost."""
        while True:
            with self._tools.database.write() as connection:
                claimed = activities.claim(connection, self._tools.lease(), [DEPLOY], self._tools.clock.now())
            if claimed is None:
                return
            self._begin(*claimed)

    def cancel(self, connection: Connection, activity_ids: set[str]) -> None:
        """Stop waiting for these; their deployments go on towards what they are. Raises LeaseLost."""
        for activity_id in activity_ids & self._waiting.keys():
            activities.finish(connection, self._tools.lease(), activity_id, state="cancelled", now=self._tools.clock.now())
            del self._waiting[activity_id]

    def outcomes(
        self, deployments: Mapping[Key, Deployment], progress: Mapping[Key, Progress], situation: Situation, routed: Routed
    ) -> dict[str, Outcome]:
        """Tell the followers how far it is; returns those that have their answer."""
        found: dict[str, Outcome] = {}
        for activity_id, waiting in self._waiting.items():
            key = waiting.key
            answer = outcome(
                waiting.task,
                deployments.get(key),
                progress.get(key),
                waiting_since=waiting.activity.started_at or situation.now,
                situation=situation,
                routed=routed,
            )
            if answer is not None:
                found[activity_id] = answer
            elif key in progress:
                self._tell(waiting, deployments[key], progress[key])
        return found

    def finish(self, connection: Connection, found: Mapping[str, Outcome], urls: Mapping[str, str | None]) -> None:
        """End these activities in the caller's transaction. Raises LeaseLost."""
        for activity_id, answer in found.items():
            url = urls.get(self._waiting[activity_id].task.endpoint)
            activities.finish(
                connection,
                self._tools.lease(),
                activity_id,
                state=answer.state,
                result={"scoring_url": url} if answer.state == "succeeded" and url else {},
                problem=answer.problem,
                now=self._tools.clock.now(),
            )

    def forget(self, found: Mapping[str, Outcome]) -> None:
        """After the commit."""
        for activity_id, answer in found.items():
            waiting = self._waiting.pop(activity_id)
            log.info("Deployment %s/%s %s", *waiting.key, answer.state)

    def _begin(self, activity: Activity, request: bytes) -> None:
        tools = self._tools
        try:
            task = decode(request, DeployTask)
        except HedgerowError as problem:
            # Of another version of Hedgerow; left as it is it would come back for ever.
            with tools.database.write() as connection:
                now = tools.clock.now()
                activities.finish(connection, tools.lease(), activity.id, state="failed", problem=as_problem(problem), now=now)
            return
        teller = Teller(tools.database, tools.wakeups, tools.clock, tools.lease, activity.id)
        self._waiting[activity.id] = _Waiting(activity, task, teller)

    def _tell(self, waiting: _Waiting, deployment: Deployment, progress: Progress) -> None:
        wanted = max(1, deployment.settings.replicas)
        ready = sum(replica.state == "ready" for replica in progress.replicas)
        waiting.teller.show(_ALMOST * min(1.0, ready / wanted), progress.reason.partition(";")[0] or progress.state)
        waiting.teller.tell()
