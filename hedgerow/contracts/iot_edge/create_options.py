"""Docker's ContainerCreate JSON of a module: as text, as an object, or in pieces of 512 characters.

IoT Edge's hub took no longer texts, so its tools split them into ``createOptions``, ``createOptions01`` … ``createOptions99``
(``TwinValueMaxSize``, ``TwinValueMaxChunks`` in its DockerConfig).
"""

from __future__ import annotations

import json
import re

from hedgerow.contracts.iot_edge.errors import wrong
from hedgerow.contracts.iot_edge.part import Part
from hedgerow.contracts.plain_values import UnboundedValue, check_bounds

_KEY = re.compile(r"createoptions(\d{0,2})", re.IGNORECASE)
MAX_CHARACTERS = 256 * 1024


def is_options_key(key: str) -> bool:
    return _KEY.fullmatch(key) is not None


def read_create_options(settings: Part) -> dict[str, object]:
    """The options, whatever their form; empty for none. Raises IotEdgeInvalid."""
    place = f"{settings.place}.createOptions"
    pieces = _pieces(settings, place)
    if len(pieces) == 1 and isinstance(pieces[0], dict):
        return _bounded(pieces[0], place)
    if not all(isinstance(piece, str) for piece in pieces):
        raise wrong(place, "it is neither text nor an object", "Write Docker's options as an object, or as its JSON text.")
    text = "".join(str(piece) for piece in pieces)
    if len(text) > MAX_CHARACTERS:
        raise wrong(place, f"it has more than {MAX_CHARACTERS} characters", "Shorten it.")
    if not text.strip():
        return {}
    try:
        # Twice encoded text is what some tools make of an object.
        found = json.loads(text)
        found = json.loads(found) if isinstance(found, str) and found.strip() else found
    except (ValueError, RecursionError) as problem:
        words = "it is nested too deeply" if isinstance(problem, RecursionError) else f"its text is not JSON ({problem})"
        raise wrong(place, words, "Correct the text: it is the body of Docker's ContainerCreate.") from None
    if found is None or found == "":
        return {}
    if not isinstance(found, dict):
        raise wrong(place, "its text is JSON, but no object", "Write { … } in it.")
    return _bounded(found, place)


def _pieces(settings: Part, place: str) -> list[object]:
    """In their order. Raises IotEdgeInvalid when one is missing or there twice."""
    numbered: dict[int, object] = {}
    for key, value in settings.values.items():
        found = _KEY.fullmatch(key)
        if found is None:
            continue
        number = int(found[1] or 0)
        if number in numbered:
            raise wrong(place, f"piece {number} is there twice", "Keep one of them.")
        numbered[number] = value
    if numbered and sorted(numbered) != list(range(len(numbered))):
        missing = next(number for number in range(100) if number not in numbered)
        name = f"createOptions{missing:02d}" if missing else "createOptions"
        raise wrong(place, f"of its pieces {name} is missing", "Write the options as one object instead of pieces.")
    pieces = [numbered[number] for number in sorted(numbered)]
    return [piece for piece in pieces if piece is not None]


def _bounded(options: dict[str, object], place: str) -> dict[str, object]:
    try:
        check_bounds(options)
    except UnboundedValue as problem:
        raise wrong(place, str(problem), "Flatten it.") from None
    return options
