"""Regular expressions in a process of their own: one that never ends costs this process, not the agent.

Run as a program, with the standard library alone. First line in: ``{"pattern", "cpu_s", "memory_bytes"}`` as JSON. First line
out: ``ok``, or what is wrong with the pattern. Then, again and again: a batch of lines comes (4 bytes: how many bytes follow,
big-endian; the lines between newlines), and one byte for each line goes: ``1`` where the pattern was found, else ``0``.
"""

import json
import os
import re
import resource
import sys


def _main() -> None:
    take, give = sys.stdin.buffer, sys.stdout.buffer
    asked = json.loads(take.readline())
    resource.setrlimit(resource.RLIMIT_CPU, (asked["cpu_s"], asked["cpu_s"]))
    resource.setrlimit(resource.RLIMIT_AS, (asked["memory_bytes"], asked["memory_bytes"]))
    os.nice(10)
    try:
        found = re.compile(asked["pattern"]).search
    except (re.error, OverflowError, RecursionError, MemoryError) as problem:
        give.write(" ".join(f"{problem or type(problem).__name__}".split()).encode() + b"\n")
        return
    give.write(b"ok\n")
    give.flush()
    while len(head := take.read(4)) == 4:
        lines = take.read(int.from_bytes(head, "big")).decode(errors="replace").split("\n")
        give.write(b"".join(b"1" if found(line) else b"0" for line in lines))
        give.flush()


if __name__ == "__main__":
    _main()
