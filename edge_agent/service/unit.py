"""The systemd unit of the agent, as text. Pure: where things are in, the file out. ``ops/systemd/`` has it for the usual places.

What matters: modules live in the unit's control group and outlive the agent (KillMode=process; a module killed for want of
memory ends nobody else: OOMPolicy=continue), a new agent may be started for ever, nothing waits for the network, and no
hardening takes away from modules what they had (a private /tmp would vanish under them with every restart of the agent).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NAME = "hedgerow-agent.service"
WATCHDOG_S = 60
# Read-only and closed for the agent and its process modules alike. Not here: what would end a restart or a module
# (PrivateTmp, PrivateDevices, ProtectHome, ProtectControlGroups, RestrictNamespaces, MemoryDenyWriteExecute), nor what would
# take its pins and lamps in /sys from one (ProtectKernelTunables).
_HARDENING = (
    "NoNewPrivileges=yes",
    "ProtectSystem=full",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectHostname=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
)


@dataclass(frozen=True)
class Service:
    """``argv`` runs the agent. ``state_dir`` None: systemd's own (``/var/lib/hedgerow-agent``). ``user``: a user's service.

    ``releases``: the folder that the launcher and the agent write the trial of a release to. ``enrolls``: the agent makes its
    ``config`` itself, with an enrolment key.
    """

    argv: Sequence[str]
    config: Path
    state_dir: Path | None = None
    user: bool = False
    releases: Path | None = None
    enrolls: bool = False


# Where a device that was set up by hand or by a system image has things.
USUAL = Service(["/opt/hedgerow/bin/python", "-P", "-m", "edge_agent", "run"], Path("/etc/hedgerow/device.toml"))


def unit_text(service: Service) -> str:
    """The content of ``hedgerow-agent.service``."""
    target = "default.target" if service.user else "multi-user.target"
    return "\n".join(
        [
            "[Unit]",
            "Description=Hedgerow edge agent: keeps modules alive and ships their telemetry",
            "Documentation=man:systemd.service(5)",
            # Not network-online.target: a device without a network starts its modules all the same.
            "After=local-fs.target docker.service",
            # Restarted for ever: nobody may be there to do it by hand.
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            *_running(service),
            "",
            "[Install]",
            f"WantedBy={target}",
            "",
        ]
    )


def _running(service: Service) -> list[str]:
    state = "%S/hedgerow-agent" if service.state_dir is None else _value(str(service.state_dir))
    command = [*(_exec(word) for word in service.argv), "--config", _exec(str(service.config)), "--state-dir"]
    own_state = ["StateDirectory=hedgerow-agent", "StateDirectoryMode=0700"] if service.state_dir is None else []
    # ProtectSystem=full closes /etc, where a device.toml and what lies beside it may well be.
    folders = (service.state_dir, service.releases, service.config.parent if service.enrolls else None)
    written = [] if service.user else [path for path in folders if path is not None]
    opened = [f"ReadWritePaths={_value(f'-{path}')}" for path in written]
    return [
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={' '.join(command)} {state if service.state_dir is None else _exec(str(service.state_dir))}",
        "Restart=always",
        "RestartSec=1",
        f"WatchdogSec={WATCHDOG_S}",
        "TimeoutStartSec=120",
        "TimeoutStopSec=30",
        "KillMode=process",
        "OOMPolicy=continue",
        "Delegate=yes",
        # systemd 254 and later: the agent gets a group of its own below the unit's, so that modules can have theirs beside it.
        "DelegateSubgroup=agent",
        "TasksMax=infinity",
        "LimitNOFILE=65536",
        "UMask=0077",
        *own_state,
        *opened,
        *(_HARDENING[:1] if service.user else _HARDENING),
    ]


def _value(text: str) -> str:
    """A word as systemd reads it back: specifiers doubled, quoted where it has to be."""
    text = text.replace("%", "%%")
    if not text or any(character in text for character in " \t\"'\\;"):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


def _exec(text: str) -> str:
    """The same in a command line, where ``$`` begins a variable."""
    return _value(text.replace("$", "$$"))
