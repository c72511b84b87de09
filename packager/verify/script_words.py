"""What a scoring script did wrong, out of the log of the server that loaded it. Pure: text in, one sentence out.

The runtime writes one line that says what raised, and below it, indented, the traceback cut down to the user's own frames.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_RAISED = re.compile(r" - (?P<script>[^:\n]+): (?P<where>init\(\)|run\(\)|its import) raised (?P<kind>\w+)\s*$")
_NO_JSON = re.compile(r" - (?P<script>[^:\n]+): (?P<what>run\(\) returned what JSON has no form for: .*)$")
_REFUSED = re.compile(r" - (?P<what>Scoring script \S+ cannot be used: .*?)\. Correct the script")
_ENDED = re.compile(r" - script process \d+ ended: (?P<how>.*)$")
_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)')
_WORDS_MAX = 400
_BY_THE_KERNEL = "signal 9"


def script_problem(log: str) -> str | None:
    """The last complaint about a script in ``log``, or None. Names the user's file and line where there is one."""
    lines = log.splitlines()
    for at in reversed(range(len(lines))):
        line = lines[at]
        if found := _RAISED.search(line):
            said = _traceback(lines[at + 1 :])
            return f"{found['where']} of {found['script']} raised {said or found['kind']}"[:_WORDS_MAX]
        if found := _NO_JSON.search(line):
            return f"{found['what']} ({found['script']})"[:_WORDS_MAX]
        if found := _REFUSED.search(line):
            return found["what"][:_WORDS_MAX]
        if found := _ENDED.search(line):
            why = ", as the kernel does when memory runs out" if _BY_THE_KERNEL in found["how"] else ""
            return f"its process ended with {found['how']}{why}"
    return None


def last_words(log: str, *, most: int = 1500) -> str:
    """The end of a log for people who have nothing better to go by."""
    return log[-most:].strip() or "nothing"


def _traceback(lines: list[str]) -> str:
    """`ValueError: boom (score.py, line 3: raise ValueError("boom"))` of an indented traceback that begins ``lines``."""
    block = []
    for line in lines:
        if line and not line.startswith("    "):
            break
        block.append(line[4:])
    frame, at, code = "", -1, ""
    for number, line in enumerate(block):
        if found := _FRAME.match(line):
            frame, at = f"{PurePosixPath(found['file']).name}, line {found['line']}", number
            following = block[number + 1].strip() if number + 1 < len(block) else ""
            code = "" if following.startswith("File ") else following
    # The error itself stands without an indent below the last frame; what follows are further lines of its message.
    said = [line for line in block[at + 1 :] if line and not line.startswith(" ")]
    if not said:
        return ""
    place = f" ({frame}: {code})" if frame and code != said[0] else f" ({frame})" if frame else ""
    return " ".join(said)[: _WORDS_MAX // 2] + place
