"""Who is connected to the local hub, and what the hub knows of the agent around it. Values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edge_agent.telemetry.mqtt.server import Connection
from edge_agent.telemetry.mqtt.topics import Identity, Meaning
from edge_agent.telemetry.routing.message import ModuleMessage
from edge_agent.twins.reported import ReportedTwins

# Messages of one commit.
PORTION_MAX = 4096
# Messages for one commit, with the tickets of their acknowledgements.
Batch = list[tuple[int, ModuleMessage]]


@dataclass(frozen=True)
class Surroundings:
    """What the hub asks the agent. ``names`` are all names of a module beside its own, ``twin`` its desired properties.

    ``twins`` take what modules report, and tell it on (``ReportedTwins.on_reported``).
    """

    device: str
    device_names: frozenset[str]
    names: Callable[[str], frozenset[str]]
    twin: Callable[[str], Mapping[str, object]]
    on_heartbeat: Callable[[str], None]
    twins: ReportedTwins


@dataclass(eq=False)
class Client:
    """A connection that was let in. ``twin`` is the text it was sent last, ``patched`` the one that the next patch is made to,
    ``twin_asked_s`` when (monotonic) it asked for one that it has not got yet.

    ``waiting`` is for its next commit.
    """

    connection: Connection
    me: Identity
    meanings: dict[str, Meaning] = field(default_factory=dict)
    twin: str | None = None
    patched: str | None = None
    twin_asked_s: float | None = None
    twin_due: bool = False
    waiting: Batch = field(default_factory=list)
    storing: bool = False
    portion: int = PORTION_MAX
    warned: set[str] = field(default_factory=set)

    @property
    def patterns(self) -> dict[str, int]:
        return self.connection.session.subscriptions
