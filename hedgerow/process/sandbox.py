"""Foreign code gets a user of its own, limits and an empty environment. Pure: a ProcessSpec in, a ProcessSpec out."""

from __future__ import annotations

import msgspec

from hedgerow.process.spec import ProcessSpec, ResourceLimits

SANDBOX_UID = 64999
SANDBOX_LIMITS = ResourceLimits(
    memory_bytes=4 << 30,
    open_files=1024,
    cpu_time_s=3600,
    processes=256,
    file_size_bytes=8 << 30,
)
_KEPT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


def sandboxed(spec: ProcessSpec, *, running_as_root: bool, sandbox_uid: int = SANDBOX_UID) -> ProcessSpec:
    """The same command for code that is not ours.

    Only PATH and LANG of its environment stay (defaults where missing); limits that the spec leaves open are filled, those it
    sets stay; as root it runs under ``sandbox_uid`` (also as group, no other groups). The caller makes the folders that
    the process may write to belong to that uid. Without root it keeps the uid of the starter: only limits and environment
    protect then. Network and file system are not closed off here.
    """
    limits = ResourceLimits(
        **{
            name: default if (own := getattr(spec.limits, name)) is None else own
            for name, default in msgspec.structs.asdict(SANDBOX_LIMITS).items()
        }
    )
    user = {"uid": sandbox_uid, "gid": sandbox_uid} if running_as_root else {}
    environment = {name: spec.environment.get(name, default) for name, default in _KEPT.items()}
    return msgspec.structs.replace(spec, environment=environment, limits=limits, **user)
