"""``GetShadowDifferences``: the first requests that a module and its shadow answered differently, as the device keeps them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from edge_agent.methods.answer import Answer
from edge_agent.methods.errors import NoSuchModule
from edge_agent.methods.payload import Request, read_payload
from hedgerow.contracts.shadow import ShadowDifference

GET_SHADOW_DIFFERENCES = "GetShadowDifferences"


class DifferencesQuery(Request, frozen=True, kw_only=True):
    """``id`` is a module's name or display name."""

    id: str


class ShadowDifferences:
    """``modules`` gives names and display names of the desired state's modules, ``differences`` what is kept of one."""

    def __init__(self, modules: Callable[[], Mapping[str, str]], differences: Callable[[str], list[ShadowDifference]]) -> None:
        self._modules, self._differences = modules, differences

    def __call__(self, payload: object, answer: Answer) -> int:
        asked = read_payload(GET_SHADOW_DIFFERENCES, payload, DifferencesQuery)
        names = [name for name, shown in self._modules().items() if asked.id in (name, shown)]
        if not names:
            raise NoSuchModule(module=repr(asked.id[:80]))
        answer.write("[")
        for number, difference in enumerate(self._differences(names[0])):
            answer.write(("," if number else "") + msgspec.json.encode(difference).decode())
        answer.write("]")
        return 200
