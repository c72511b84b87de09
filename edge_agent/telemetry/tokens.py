"""By which a module proves to the local ports that it is that module."""

from __future__ import annotations

import hmac
from hashlib import sha256

from edge_agent.errors import NotAModule


class Tokens:
    """Module tokens, derived from the device's key: nothing to store or to lose, and the same after a restart of the agent."""

    def __init__(self, device_key: bytes) -> None:
        self._secret = hmac.digest(device_key, b"hedgerow-module-tokens-v1", sha256)

    def of(self, module: str) -> str:
        """``MODULE.MAC``."""
        return f"{module}.{hmac.new(self._secret, module.encode(), sha256).hexdigest()}"

    def module(self, authorization: str) -> str:
        """The module that an Authorization header belongs to. Raises NotAModule."""
        token = authorization.removeprefix("Bearer ")
        module = token.rpartition(".")[0]
        if not module or not hmac.compare_digest(token.encode(), self.of(module).encode()):
            raise NotAModule
        return module
