"""Twins of modules: what each one is told and what it reports, and changes of the former on one device."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any

from hedgerow.contracts.api import Page
from hedgerow.contracts.twins import ModuleTwin, PatchTwin
from hedgerow.sdk.addresses import address
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/devices"


class ModuleTwins:
    """The part of ``client.devices`` about twins of modules."""

    _transport: Transport

    def modules(self, device: str) -> builtins.list[ModuleTwin]:
        """The device's modules by name, each with its twin."""
        return self._transport.call("GET", address(_PATH, device, "modules"), Page[ModuleTwin]).items

    def module_twin(self, device: str, module: str) -> ModuleTwin:
        """What a module is told (``desired``) and what it reports (``reported``), with the versions of both."""
        return self._transport.call("GET", _twin(device, module), ModuleTwin)

    def patch_module_twin(
        self, device: str, module: str, desired: Mapping[str, Any], *, revision: int | None = None
    ) -> ModuleTwin:
        """Change a module's desired properties on this device, above what deployments say; None takes a change away again.

        With ``revision`` (of the twin that the caller saw) only if nobody patched it since. Raises ApiError:
        ``twin_invalid``, ``not_found`` (the device should run no such module), ``precondition_failed``.
        """
        if_match = None if revision is None else str(revision)
        body = PatchTwin(desired=dict(desired))
        return self._transport.call("PATCH", _twin(device, module), ModuleTwin, body=body, if_match=if_match)

    def reset_module_twin(self, device: str, module: str, *, revision: int | None = None) -> ModuleTwin:
        """Take all changes of :meth:`patch_module_twin` away: the module is told what its deployments say."""
        if_match = None if revision is None else str(revision)
        return self._transport.call("DELETE", _twin(device, module), ModuleTwin, if_match=if_match)


def _twin(device: str, module: str) -> str:
    return address(_PATH, device, "modules", module, "twin")
