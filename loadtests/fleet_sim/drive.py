"""Drives a fleet: connects, lets every device speak at its rate, disturbs some, waits for the last acknowledgement."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hedgerow.contracts.device import DeviceConfig
from loadtests.fleet_sim.connection import KEEPALIVE_S, Line
from loadtests.fleet_sim.device import SimDevice
from loadtests.fleet_sim.tally import Figures, Tally

# Connecting is spread, so that a fleet's hellos are no storm; nothing of it is measured.
CONNECTS_PER_S = 400.0
_TICK_S = 0.01
_LOOK_ROUND_S = 1.0
_DRAIN_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Load:
    """``rate`` messages of ``size`` bytes per device and second for ``duration_s``; ``churn`` connections cut per second."""

    rate: float
    size: int
    duration_s: float
    churn: float = 0.0


def run(configs: Sequence[DeviceConfig], load: Load, say: Callable[[str], None]) -> Figures:
    """Raises RuntimeError when the devices do not all get a session, or would need certificates for one."""
    if any(config.broker_login == "certificate" for config in configs):
        raise RuntimeError("simulated devices have no certificates: start the control plane with --mosquitto alone")
    return asyncio.run(_run(configs, load, say))


async def _run(configs: Sequence[DeviceConfig], load: Load, say: Callable[[str], None]) -> Figures:
    tally, body = Tally(), '{"v":"' + "x" * max(0, load.size - 8) + '"}'
    starts = int(time.time())
    lines = [Line(SimDevice(config, tally, body, starts), tally) for config in configs]
    spread_s = len(lines) / CONNECTS_PER_S
    keeping = [asyncio.create_task(line.stay_connected(n / CONNECTS_PER_S)) for n, line in enumerate(lines)]
    looking = asyncio.create_task(_look_round(lines))
    try:
        say(f"connecting {len(lines)} devices")
        await _until(lambda: all(line.device.in_session for line in lines), spread_s + _DRAIN_PATIENCE_S, "sessions")
        figures = await _measure(lines, load, tally, say)
    finally:
        for line in lines:
            line.close()
        looking.cancel()
        await asyncio.wait(keeping, timeout=5.0)
        for task in keeping:
            task.cancel()
    return figures


async def _measure(lines: list[Line], load: Load, tally: Tally, say: Callable[[str], None]) -> Figures:
    before = tally.acknowledged
    began_s = time.monotonic()
    await _speak(lines, load, tally, say)
    spoke_s = time.monotonic() - began_s
    stored = tally.acknowledged - before
    say("waiting for what is on its way")
    await _until(lambda: not any(line.device.waiting for line in lines), _DRAIN_PATIENCE_S, "acknowledgements", strict=False)
    return Figures(
        devices=len(lines),
        seconds=round(spoke_s, 2),
        sent_per_s=round(tally.made / spoke_s, 1),
        stored_per_s=round(stored / spoke_s, 1),
        p50_s=tally.percentile_s(0.5),
        p95_s=tally.percentile_s(0.95),
        p99_s=tally.percentile_s(0.99),
        made=tally.made,
        acknowledged=tally.acknowledged,
        lost=tally.made - tally.acknowledged,
        repeats=tally.repeats,
        reconnects=tally.reconnects,
        contradictions=tally.contradictions,
        hellos=tally.hellos,
        reports=tally.reports,
        refusals=dict(tally.refusals),
    )


async def _speak(lines: list[Line], load: Load, tally: Tally, say: Callable[[str], None]) -> None:
    """Every device has a place in the period of its rate: the load is even, as a large fleet's is."""
    loop = asyncio.get_running_loop()
    order = random.sample(lines, len(lines))
    began_s, spoken, told_s, cut = loop.time(), 0, 0.0, 0
    while (passed_s := loop.time() - began_s) < load.duration_s:
        now_ms = int(time.time() * 1000)
        due = int(passed_s * load.rate * len(order))
        for place in range(spoken, due):
            order[place % len(order)].device.make(loop.time(), now_ms)
        spoken = due
        while cut < int(passed_s * load.churn):
            random.choice(lines).cut()
            cut += 1
        if passed_s >= told_s + 5.0:
            told_s = passed_s
            waiting = sum(line.device.waiting for line in lines)
            say(f"{passed_s:5.0f} s: {tally.made} made, {waiting} on their way, p95 {tally.percentile_s(0.95):.3f} s")
        await asyncio.sleep(_TICK_S)


async def _look_round(lines: list[Line]) -> None:
    """Each device looks at its clock once a second, all of them spread over it."""
    loop, parts, at, pinged_s = asyncio.get_running_loop(), 20, 0, asyncio.get_running_loop().time()
    while True:
        for line in lines[at::parts]:
            line.device.due(loop.time())
        at = (at + 1) % parts
        if loop.time() - pinged_s > KEEPALIVE_S / 2:
            pinged_s = loop.time()
            for line in lines:
                line.ping()
        await asyncio.sleep(_LOOK_ROUND_S / parts)


async def _until(done: Callable[[], bool], patience_s: float, what: str, *, strict: bool = True) -> None:
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + patience_s
    while not done():
        if loop.time() > deadline_s:
            if strict:
                raise RuntimeError(f"waited {patience_s:.0f} s for {what}")
            return
        await asyncio.sleep(0.05)
