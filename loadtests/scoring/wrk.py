"""One load by wrk (keep-alive, one thread): writes its requests and its script, and reads what it counted."""

from __future__ import annotations

import json
import re
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.scoring import heads
from loadtests.scoring.heads import HeadKind
from loadtests.scoring.models import Sent

SLOW_MS = 10.0
_FIGURES = "figures: "
# The percentiles are wrk's own: a pause is counted for the requests that it kept from being sent, too.
_SCRIPT = """
local parts = {}
local file = io.open("%(file)s", "rb")
while true do
  local size = file:read(12)
  if not size then break end
  local whole = file:read(tonumber(size))
  local pieces, from = {}, 1
  while true do
    local at, last = whole:find("%(number)s", from, true)
    if not at then break end
    pieces[#pieces + 1] = whole:sub(from, at - 1)
    from = last + 1
  end
  pieces[#pieces + 1] = whole:sub(from)
  parts[#parts + 1] = pieces
end
file:close()
local sent = 0
request = function()
  sent = sent + 1
  local pieces = parts[sent %% #parts + 1]
  if #pieces == 1 then return pieces[1] end
  return table.concat(pieces, string.format("%%012x", sent))
end
done = function(summary, latency, requests)
  local slow = 0
  for i = 1, #latency do
    local value, count = latency(i)
    if value > %(slow_us)d then slow = slow + count end
  end
  local errors = summary.errors
  local wrong = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    '%(figures)s{"requests": %%d, "duration_us": %%d, "p50": %%.0f, "p99": %%.0f, "p999": %%.0f, "max": %%.0f, '
      .. '"slow": %%d, "wrong": %%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    latency.max, slow, wrong))
end
"""


@dataclass(frozen=True)
class Counted:
    """What wrk counted. ``slow``: answers that took over 10 ms; ``wrong``: not 2xx, cut, or never answered."""

    requests: int
    per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    slow: int
    wrong: int
    own_cpu_us: float


class WrkFailed(RuntimeError):
    """wrk ended with an error, or without an answer."""


def script_for(folder: Path, name: str, sent: Sequence[Sent], kind: HeadKind, path: str, port: int) -> Path:
    """A script that sends these bodies in turn."""
    data = folder / f"{name}.requests"
    with data.open("wb") as file:
        for number, one in enumerate(sent):
            whole = heads.request(kind, path, port, one, number)
            file.write(f"{len(whole):012d}".encode() + whole)
    script = folder / f"{name}.lua"
    words = {"file": data, "number": heads.NUMBER, "slow_us": SLOW_MS * 1000, "figures": _FIGURES}
    script.write_text(_SCRIPT % words)
    return script


def load(port: int, script: Path, connections: int, seconds: float) -> Counted:
    """Send for ``seconds`` over that many connections."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", "--latency", "--timeout", "10s", "-s", str(script)]
    before = _children_cpu_s()
    done = subprocess.run([*argv, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise WrkFailed(f"wrk: {(done.stderr or done.stdout).strip()}")
    return figures_in(done.stdout, _children_cpu_s() - before)


def figures_in(text: str, own_cpu_s: float) -> Counted:
    """From the line that the script writes at the end."""
    found = re.search(rf"^{re.escape(_FIGURES)}(.*)$", text, re.MULTILINE)
    if found is None:
        raise WrkFailed(f"wrk told no figures: {text[-300:]}")
    told = json.loads(found[1])
    if not told["requests"]:
        raise WrkFailed("nothing was answered while wrk sent; give it more seconds")
    return Counted(
        requests=told["requests"],
        per_s=told["requests"] / told["duration_us"] * 1e6,
        p50_ms=told["p50"] / 1000,
        p99_ms=told["p99"] / 1000,
        p999_ms=told["p999"] / 1000,
        max_ms=told["max"] / 1000,
        slow=told["slow"],
        wrong=told["wrong"],
        own_cpu_us=own_cpu_s / told["requests"] * 1e6,
    )


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
