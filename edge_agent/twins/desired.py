"""What is desired of a module, as it is told: its properties, and which version of them these are."""

from __future__ import annotations

from collections.abc import Mapping

from hedgerow.contracts.edge import DesiredState

# As IoT Hub names it; counts the changes of these properties.
VERSION = "$version"


def twin_of(state: DesiredState | None, module: str) -> Mapping[str, object]:
    """The desired properties of a module with their version; without it when the hub does not count them."""
    if state is None:
        return {}
    properties = state.twins.get(module, {})
    version = state.twin_versions.get(module)
    return properties if version is None else {**properties, VERSION: version}
