"""The story of services: look at both sides, plan, act, look again, route, say how it is. No round remembers another.

:meth:`Services.settle` is called when anything may have changed: a wake-up, a replica that ended, an image that was unpacked,
a time that was waited for. It is cheap when nothing is to be done.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from sqlalchemy import Connection

from hedgerow.contracts.service import Deployment, Endpoint
from registry.controller.balancer.port import Balancer, Routed
from registry.controller.jobs import JobTools
from registry.controller.services.deploys import Deploys, Key
from registry.controller.services.hands import Hands
from registry.controller.services.judge import judge
from registry.controller.services.plan import plan
from registry.controller.services.routing import routes
from registry.controller.services.situation import Situation
from registry.controller.services.steps import Step, Wait
from registry.controller.services.told import tell
from registry.store import services
from registry.store.services import Progress
from registry.wakeups import FEED

log = logging.getLogger(__name__)
# A ready file has no descriptor to wait on: looked for while a replica starts.
_LOOK_S = 0.05
_FAILED_STEP_S = 1.0
_STOPPED = Progress("degraded", "the control plane was stopped; its replicas start again with it", ())


@dataclass(frozen=True)
class Limits:
    """What bounds the starting of replicas."""

    starting_at_once: int
    ready_timeout_s: float


class Services:
    """Everything about services in one controller. ``look_again`` asks for another :meth:`settle` as soon as possible."""

    def __init__(self, tools: JobTools, hands: Hands, balancer: Balancer, limits: Limits, look_again: Callable[[], None]) -> None:
        self._tools, self._hands, self._balancer, self._limits = tools, hands, balancer, limits
        self._look_again = look_again
        self._watched: set[str] = set()
        self.deploys = Deploys(tools)

    def begin(self) -> None:
        """Once, before the first :meth:`settle`: clear away what nobody can adopt."""
        self._hands.images.sweep()
        self._hands.replicas.sweep()

    def settle(self) -> float | None:
        """One round; returns the seconds after which the next one is due (None: when something happens).

        Raises DatabaseUnavailable, LeaseLost.
        """
        endpoints, situation, routed = self._look()
        steps = plan(situation)
        done = self._hands.do(steps, situation.now)
        if any(not isinstance(step, Wait) for step in steps):
            endpoints, situation, routed = self._look()
        self._watch_ends(situation)
        self._report(endpoints, situation, routed)
        return _due(plan(situation), situation, routed, done=done)

    def stop(self, grace_s: float) -> None:
        """End balancer and replicas because somebody asked for it, and say so. Raises LeaseLost, DatabaseUnavailable."""
        give_up_s = self._tools.clock.monotonic_s() + grace_s
        # First the balancer: it takes nothing new and finishes what is inside, for which it needs the replicas.
        self._balancer.stop(grace_s)
        found = self._hands.replicas.look()
        processes = [self._hands.replicas.process(replica.record.id) for replica in found]
        for process in processes:
            process.signal(signal.SIGTERM)
        for process in processes:
            process.stop(max(0.0, give_up_s - self._tools.clock.monotonic_s()))
        for replica in found:
            self._hands.replicas.forget(replica.record.id)
        self._hands.images.sweep()
        with self._tools.database.write() as connection:
            for endpoint in services.everything(connection):
                for deployment in endpoint.deployments:
                    if deployment.state != "deleting":
                        self._write(connection, deployment, _STOPPED)

    def _look(self) -> tuple[list[Endpoint], Situation, Routed]:
        """Both sides as they are now, and the balancer told about it."""
        with self._tools.database.read() as connection:
            endpoints = services.everything(connection)
        seen = Situation(
            deployments=tuple(deployment for endpoint in endpoints for deployment in endpoint.deployments),
            replicas=self._hands.replicas.look(),
            images=self._hands.images.look(),
            single_replica=self._balancer.single_replica,
            routing_is_stale=False,
            starting_at_once=self._limits.starting_at_once,
            ready_timeout_s=self._limits.ready_timeout_s,
            now=self._tools.clock.now(),
        )
        routed = self._balancer.apply(routes(endpoints, seen))
        return endpoints, replace(seen, routing_is_stale=routed.stale), routed

    def _watch_ends(self, situation: Situation) -> None:
        """Hear of the end of every replica, whoever started it."""
        for replica in situation.replicas:
            replica_id = replica.record.id
            if replica.life == "ended" or replica_id in self._watched:
                continue
            exit_fd = self._hands.replicas.process(replica_id).exit_fd()
            if exit_fd is None:
                self._look_again()
                continue
            self._watched.add(replica_id)
            self._tools.loop.watch_end(exit_fd, partial(self._replica_ended, replica_id))

    def _replica_ended(self, replica_id: str) -> None:
        self._watched.discard(replica_id)
        self._look_again()

    def _report(self, endpoints: list[Endpoint], situation: Situation, routed: Routed) -> None:
        """Write what has changed, and end the activities that have their answer, in one transaction."""
        deployments: dict[Key, Deployment] = {(one.endpoint, one.name): one for one in situation.deployments}
        progress = {key: judge(one, situation, routed) for key, one in deployments.items()}
        answers = self.deploys.outcomes(deployments, progress, situation, routed)
        changed = [
            key for key, one in deployments.items() if progress[key] != Progress(one.state, one.reason, tuple(one.replicas))
        ]
        urls = {one.name: routed.urls.get(one.name, one.scoring_url) for one in endpoints}
        moved = [one for one in endpoints if urls[one.name] != one.scoring_url]
        if not (changed or moved or answers):
            return
        with self._tools.database.write() as connection:
            for key in changed:
                self._write(connection, deployments[key], progress[key])
            for endpoint in moved:
                services.report_url(connection, self._tools.lease(), endpoint.name, urls[endpoint.name])
            self.deploys.finish(connection, answers, urls)
        self.deploys.forget(answers)
        for reader in ("server", FEED):
            self._tools.wakeups.wake(reader)

    def _write(self, connection: Connection, deployment: Deployment, progress: Progress) -> None:
        written = services.report(connection, self._tools.lease(), deployment, progress)
        if written and progress.state != deployment.state:
            tell(connection, deployment, progress.state, self._tools.clock.now(), reason=progress.reason)


def _due(steps: list[Step], situation: Situation, routed: Routed, *, done: bool) -> float | None:
    """Seconds until there is something to do although nothing happens."""
    waits = [(step.until - situation.now).total_seconds() for step in steps if isinstance(step, Wait)]
    if len(waits) < len(steps):
        # What is still to be done now was not possible a moment ago.
        waits.append(_LOOK_S if done else _FAILED_STEP_S)
    if any(replica.life == "starting" for replica in situation.replicas):
        waits.append(_LOOK_S)
    if routed.again_s is not None:
        waits.append(routed.again_s)
    return max(0.0, min(waits)) if waits else None
