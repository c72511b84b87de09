"""Ports of the device that two modules of one deployment want."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.contracts.edge_finding import Finding, error, note

_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, not bound


class _Taken(NamedTuple):
    module: str
    address: str
    port: str
    protocol: str


def port_findings(deployment: EdgeDeployment) -> Iterator[Finding]:
    """An error for each port that two running modules want; a note for what is open to everybody."""
    taken: list[_Taken] = []
    for name, spec in deployment.modules.items():
        if spec.status == "stopped":
            continue
        for one in _ports(name, spec):
            other = next((there for there in taken if there.module != name and _meet(one, there)), None)
            if other is not None:
                text = f"port {one.port}/{one.protocol} of the device is also wanted by module {other.module}"
                yield error(f"$.modules.{name}", text, "Give one of them another port.")
            taken.append(one)
        opened = sorted({one.port for one in taken if one.module == name and one.address in _EVERYWHERE})
        if opened:
            yield note(
                f"$.modules.{name}", f"port {', '.join(opened)} is open to every network of the device", "Add HostIp 127.0.0.1."
            )


def _ports(name: str, spec: ModuleSpec) -> Iterator[_Taken]:
    if spec.port is not None:
        yield _Taken(name, "127.0.0.1", str(spec.port), "tcp")
    host = next((value for key, value in spec.create_options.items() if key.lower() == "hostconfig"), None)
    folded = {str(key).lower(): value for key, value in host.items()} if isinstance(host, Mapping) else {}
    bindings = folded.get("portbindings")
    for inner, places in bindings.items() if isinstance(bindings, Mapping) else ():
        protocol = str(inner).partition("/")[2] or "tcp"
        for place in places if isinstance(places, list) else []:
            fields = {str(key).lower(): value for key, value in place.items()} if isinstance(place, Mapping) else {}
            if str(fields.get("hostport") or ""):
                yield _Taken(name, str(fields.get("hostip") or ""), str(fields["hostport"]), protocol)


def _meet(one: _Taken, other: _Taken) -> bool:
    same = one.address == other.address or one.address in _EVERYWHERE or other.address in _EVERYWHERE
    return same and (one.port, one.protocol) == (other.port, other.protocol)
