"""A program of its own: answers uv's questions about an interpreter as one on 32-bit ARM would.

uv knows 32-bit ARM as a machine that it runs on but has no name by which one could ask for its wheels from elsewhere. So
`uv_command.py` shows it an interpreter that says it stood there. Started as `PYTHON -I -B answer_as_armv7.py STAND_IN PYTHON
ARGUMENTS…`: asks PYTHON the same question and changes the machine in the answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

# Raspberry Pi OS since 2021, Debian 11, Ubuntu 20.04; what the tools that build such wheels aim at.
GLIBC_MINOR = 31


def main(stand_in: str, python: str, arguments: list[str]) -> int:
    """Exit code for uv; it takes anything but 0 as "this interpreter is broken" and shows our words."""
    done = subprocess.run([python, *arguments], capture_output=True, check=False)
    if done.returncode != 0:
        sys.stderr.buffer.write(done.stderr)
        return done.returncode
    answer = changed(json.loads(done.stdout), stand_in)
    if answer is None:
        sys.stderr.write("this uv asks for an interpreter's machine in a way that is not known here")
        return 1
    sys.stdout.write(json.dumps(answer))
    return 0


def changed(answer: dict[str, Any], stand_in: str) -> dict[str, Any] | None:
    """``answer`` of a machine with armv7; None when it has no place for a machine where we know it."""
    machine = {"os": {"name": "manylinux", "major": 2, "minor": GLIBC_MINOR}, "arch": "armv7l"}
    if isinstance(answer.get("platform"), dict):  # uv up to 0.9
        answer["platform"] |= machine
    elif "arch" in answer and "os" in answer:
        answer |= machine
    else:
        return None
    if "pointer_size" in answer:
        answer["pointer_size"] = "32"
    answer["manylinux_compatible"] = True
    answer["markers"]["platform_machine"] = "armv7l"
    # Else uv goes on with the interpreter that it finds there.
    answer["sys_executable"] = answer["sys_base_executable"] = stand_in
    return answer


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
