"""Shadows of modules: how they do on each device, and making one the module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from hedgerow.contracts.api import Page
from hedgerow.contracts.api_fleet import Device, EdgePlan
from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.contracts.image import ImageRecord
from hedgerow.contracts.names import KnownName
from hedgerow.contracts.status import ShadowStatus
from hedgerow.errors import ConflictError, NotFoundError
from hedgerow.sdk.addresses import address
from hedgerow.sdk.pages import WALK_ITEMS, walk
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/edge-deployments"
MAX_DIFFERENT = 0.01
MIN_COMPARED = 100


class NoShadow(NotFoundError):
    """A module without a shadow was meant."""

    key = "no_shadow"
    message = "Module {module} of edge deployment {name} has no shadow"
    remedy = "See which modules there are: hedgerow edge show {name}. A shadow is part of the manifest."


class ShadowNotConvincing(ConflictError):
    """A shadow that was compared too little, or differs too much, to become the module."""

    key = "shadow_not_convincing"
    message = "The shadow of module {module} of edge deployment {name} is not promoted: {problem}"
    remedy = "Let it run on, allow more (--max-different, --min-compared), or promote it all the same with --force."


class DeviceShadow(msgspec.Struct, frozen=True, kw_only=True):
    """One module's shadow on one device. ``status`` is None while the device has not told of this shadow."""

    device: KnownName
    module: KnownName
    image: str
    online: bool
    status: ShadowStatus | None = None


class EdgeShadows:
    """The part of ``client.edge`` that is about shadows."""

    _transport: Transport

    def shadows(self, name: str, module: str | None = None) -> list[DeviceShadow]:
        """How the shadows of a deployment (or of one of its modules) do, by device and module.

        Raises NoShadow for a ``module`` without one.
        """
        deployment = self._transport.call("GET", address(_PATH, name), EdgeDeployment)
        wanted = {one: spec.shadow.image for one, spec in deployment.modules.items() if spec.shadow and module in (None, one)}
        if module is not None and not wanted:
            raise NoShadow(module=module, name=name)
        digests = {image: self._digest(image) for image in set(wanted.values())}
        found = []
        for device in self._devices(deployment) if wanted else ():
            statuses = device.reported.modules if device.reported else {}
            for one, image in wanted.items():
                status = statuses[one].shadow if one in statuses else None
                told = status is not None and status.image_digest == digests[image]
                if told or not deployment.layered:
                    # What a device says of another shadow, of a layer or of before, is not about this one.
                    shown = status if told else None
                    found.append(DeviceShadow(device=device.name, module=one, image=image, online=device.online, status=shown))
        return found

    def promote(
        self,
        name: str,
        module: str,
        *,
        max_different: float = MAX_DIFFERENT,
        min_compared: int = MIN_COMPARED,
        force: bool = False,
    ) -> EdgeDeployment:
        """The shadow's image becomes the module's, the shadow goes: the next revision, with the trial of any update.

        Raises NoShadow; ShadowNotConvincing when more than ``max_different`` (a share) of the compared requests had other
        answers, or fewer than ``min_compared`` were compared, on all devices together; ApiError (``precondition_failed``) when
        somebody changed the deployment meanwhile.
        """
        promoted = self._promoted(name, module)
        if not force:
            problem = why_not(self.shadows(name, module), max_different, min_compared)
            if problem:
                raise ShadowNotConvincing(module=module, name=name, problem=problem)
        return self._transport.call("PUT", address(_PATH, name), EdgeDeployment, body=promoted, if_match=str(promoted.revision))

    def plan_promotion(self, name: str, module: str) -> EdgePlan:
        """What :meth:`promote` would do, device by device, step by step; nothing is changed. Raises NoShadow."""
        query = {"dry_run": True, "steps": True}
        return self._transport.call("PUT", address(_PATH, name), EdgePlan, body=self._promoted(name, module), query=query)

    def _promoted(self, name: str, module: str) -> EdgeDeployment:
        deployment = self._transport.call("GET", address(_PATH, name), EdgeDeployment)
        spec = deployment.modules.get(module)
        if spec is None or spec.shadow is None:
            raise NoShadow(module=module, name=name)
        promoted = msgspec.structs.replace(spec, image=spec.shadow.image, shadow=None)
        return msgspec.structs.replace(deployment, modules={**deployment.modules, module: promoted})

    def _devices(self, deployment: EdgeDeployment) -> Iterator[Device]:
        # A layer is on devices that are named after what it lies on.
        narrowed = None if deployment.layered else deployment.name
        return walk(
            lambda after: self._transport.call(
                "GET",
                "/api/v1/devices",
                Page[Device],
                query={"limit": WALK_ITEMS, "after": after, "edge_deployment": narrowed},
            )
        )

    def _digest(self, image: str) -> str:
        return self._transport.call("GET", address("/api/v1/images", image), ImageRecord).digest


def why_not(found: Iterable[DeviceShadow], max_different: float, min_compared: int) -> str:
    """Why shadows that did so should not be promoted, "" when they may."""
    told = [one for one in found if one.status is not None]
    compared = sum(one.status.compared for one in told if one.status)
    different = sum(one.status.different + one.status.failed for one in told if one.status)
    if compared < min_compared:
        return f"{compared} requests were compared, {min_compared} are wanted"
    if different > max_different * compared:
        share = f"{different / compared:.2%}, {max_different:.2%} are allowed"
        return f"{different} of {compared} requests had other answers or failed ({share})"
    return ""
