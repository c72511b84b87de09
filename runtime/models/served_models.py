"""Which models answer now: their lanes, their newest versions, and what became of those that do not.

A lane that is replaced or unloaded is *retired*: it gets no more requests, finishes those that it has, and is closed. All of it
belongs to the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from runtime.models.errors import UnknownModel, UnknownModelVersion
from runtime.models.model_lane import ModelLane
from runtime.observing.metrics import ModelKey

VersionState = Literal["LOADING", "READY", "UNAVAILABLE"]


@dataclass(frozen=True)
class Standing:
    """How one version of a model stands, in the words of the repository index."""

    name: str
    version: str
    state: VersionState
    reason: str = ""


class ServedModels:
    """``planned``: names and versions that will be there once everything is loaded."""

    def __init__(self, planned: Iterable[ModelKey]) -> None:
        self._lanes: dict[ModelKey, ModelLane] = {}
        self._newest: dict[str, ModelLane] = {}
        self._only: ModelLane | None = None
        self._retired: list[ModelLane] = []
        self._standings: dict[ModelKey, Standing] = {key: Standing(*key, "LOADING") for key in planned}

    # Looking ----------------------------------------------------------------------------------------------------------

    def find(self, name: str, version: str | None) -> ModelLane | None:
        """The lane of a version; of the newest that is ready when none is named."""
        return self._newest.get(name) if version is None else self._lanes.get((name, version))

    def only(self) -> ModelLane | None:
        """The newest version of the one model that is ready; None when there are several, or none."""
        return self._only

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are served, or will be once they are loaded; oldest first."""
        ready = [version for other, version in self._lanes if other == name]
        coming = [version for (other, version), one in self._standings.items() if other == name and one.state == "LOADING"]
        # While a model is loaded again, its other versions to be are nobody's business yet.
        return sorted(ready or coming, key=int)

    def names(self) -> list[str]:
        """The models that are served, or will be once they are loaded, in the order in which they came."""
        return list(dict.fromkeys(name for name, _ in self._standings if self.versions(name)))

    def check_known(self, name: str, version: str | None) -> None:
        """Raises UnknownModel or UnknownModelVersion."""
        known = self.versions(name)
        if not known:
            raise UnknownModel(model=name, known=", ".join(self.names()) or "none")
        if version is not None and version not in known:
            raise UnknownModelVersion(version=version, model=name, known=", ".join(known))

    def standings(self) -> list[Standing]:
        """Every version that was ever asked for, by name and number."""
        return sorted(self._standings.values(), key=lambda one: (one.name, int(one.version)))

    def ready(self) -> Iterator[ModelLane]:
        """The lanes that take requests."""
        return iter(list(self._lanes.values()))

    def all_lanes(self) -> Iterator[ModelLane]:
        """Those and the retired ones that still have work."""
        yield from self._lanes.values()
        yield from self._retired

    # Changing ---------------------------------------------------------------------------------------------------------

    def put(self, lanes: Sequence[ModelLane]) -> None:
        """From now on these answer for their model, in place of whatever did: all of them or, before this call, none."""
        for name in {lane.model.name for lane in lanes}:
            self._retire(name, "unloaded")
        for lane in lanes:
            key = (lane.model.name, lane.model.version)
            self._lanes[key] = lane
            self._standings[key] = Standing(*key, "READY")
            newest = self._newest.get(lane.model.name)
            if newest is None or int(lane.model.version) > int(newest.model.version):
                self._newest[lane.model.name] = lane
        self._look_for_only()

    def take_away(self, name: str) -> bool:
        """The model takes no more requests; those under way are answered. False when it was not served."""
        return self._retire(name, "unloaded")

    def loading(self, name: str, version: str) -> None:
        """A version is being loaded. What was served before, is until then."""
        if (name, version) not in self._lanes:
            self._standings[name, version] = Standing(name, version, "LOADING")

    def failed(self, name: str, version: str, reason: str) -> None:
        """A version could not be loaded. What was served before, is."""
        if (name, version) not in self._lanes:
            self._standings[name, version] = Standing(name, version, "UNAVAILABLE", reason)

    def close_retired(self) -> None:
        """Let go of what has finished."""
        if self._retired:
            for lane in [lane for lane in self._retired if not lane.busy]:
                lane.close()
                self._retired.remove(lane)

    def _retire(self, name: str, reason: str) -> bool:
        self._newest.pop(name, None)
        gone = [key for key in self._lanes if key[0] == name]
        for key in gone:
            self._retired.append(self._lanes.pop(key))
        for key in [key for key in self._standings if key[0] == name]:
            self._standings[key] = Standing(*key, "UNAVAILABLE", reason)
        self._look_for_only()
        return bool(gone)

    def _look_for_only(self) -> None:
        self._only = next(iter(self._newest.values())) if len(self._newest) == 1 else None
