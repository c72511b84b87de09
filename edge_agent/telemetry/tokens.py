"""By which a module proves to the local ports that it is that module."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from edge_agent.errors import ModuleGone, NotAModule


class Tokens:
    """Module tokens, derived from the device's key: nothing to store or to lose, and the same after a restart of the agent.

    ``admits`` says whose tokens are good now (``admission.py``).
    """

    def __init__(self, device_key: bytes, admits: Callable[[str], bool] = lambda _module: True) -> None:
        self._admits = admits
        self._secret = hmac.digest(device_key, b"hedgerow-module-tokens-v1", "sha256")

    def of(self, module: str) -> str:
        """``MODULE.MAC``."""
        proof = hmac.digest(self._secret, module.encode(), "sha256")
        return f"{module}.{proof.hex()}"

    def module(self, authorization: str) -> str:
        """The module that an Authorization header belongs to. Raises NotAModule, ModuleGone."""
        token = authorization.removeprefix("Bearer ")
        module = token.rpartition(".")[0]
        if not module or not hmac.compare_digest(token.encode(), self.of(module).encode()):
            raise NotAModule
        if not self._admits(module):
            raise ModuleGone(module=module)
        return module
