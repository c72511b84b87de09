"""Which local port an agent listens on: the wanted one, else any of a range where nobody else ends up by chance."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

LOOPBACK = "127.0.0.1"
# Below the range that the kernel takes ports of outgoing connections from: a module that tries to connect while no agent
# listens could otherwise be connected to itself, and hold the port.
PORTS = range(20_000, 32_000)
PORT_TRIES = 50
log = logging.getLogger(__name__)


def first_free_port(wanted: int, listen: Callable[[int], None], purpose: str) -> int:
    """``listen`` on ``wanted``, or on another when it is 0 or taken; returns the port. Raises OSError when none is free.

    ``purpose`` is what modules that know only ``wanted`` cannot do meanwhile.
    """
    problem = OSError()
    for candidate in [*([wanted] if wanted else []), *random.sample(PORTS, PORT_TRIES)]:
        try:
            listen(candidate)
        except OSError as raised:
            problem = raised
            if candidate == wanted:
                log.warning("port %d is taken: modules started before cannot %s until they restart", wanted, purpose)
        else:
            return candidate
    raise problem
