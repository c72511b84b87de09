"""Foreign code gets a user of its own, limits, and an environment of nothing but what it needs. ProcessSpec in, ProcessSpec out.

Who starts foreign code has a sandbox.py for it, on top of this one:

    registry/controller   training runs and replicas: `SANDBOX_UID`, long-lived
    packager/verify       an image under test: one of `TEST_UIDS`, lent to one test at a time
    packager/convert      a model that is opened and converted: `CONVERT_UID`, without network and with a file system of its own

Limits count processes by user, so the three have different ones. They share one group, to which a workspace opens the way
through its folders (reach.py); an image under test has one of its own besides, so that no other test enters its folder, and
training runs and replicas have `RUN_GID`, without which nobody enters the folder of what is deployed.
"""

from __future__ import annotations

import msgspec

from hedgerow.process.limits import within_ours
from hedgerow.process.spec import ProcessSpec, ResourceLimits

SANDBOX_UID = 64999
SANDBOX_GID = 64999
RUN_GID = SANDBOX_GID - 101
TEST_UIDS = range(SANDBOX_UID - 64, SANDBOX_UID)
CONVERT_UID = SANDBOX_UID - 100
SANDBOX_LIMITS = ResourceLimits(
    memory_bytes=4 << 30,
    open_files=1024,
    cpu_time_s=3600,
    processes=256,
    file_size_bytes=8 << 30,
)
_ALWAYS = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


def sandboxed(spec: ProcessSpec, *, uid: int | None) -> ProcessSpec:
    """The same command for code that is not ours, as user ``uid`` in the sandboxes' group and no other.

    None (whoever starts it is not root): it keeps the user of its starter; only limits and environment protect then. Limits
    that the spec leaves open are filled, and none is above what we may set. The caller makes the folders that the process may
    write to belong to ``uid``. Network and file system are not closed off here.
    """
    limits = ResourceLimits(
        **{
            name: default if (own := getattr(spec.limits, name)) is None else own
            for name, default in msgspec.structs.asdict(SANDBOX_LIMITS).items()
        }
    )
    return msgspec.structs.replace(
        spec,
        environment={**_ALWAYS, **spec.environment},
        limits=within_ours(limits),
        uid=uid,
        gid=SANDBOX_GID if uid is not None else None,
    )
