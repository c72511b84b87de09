"""With which keys the hub signs, read anew whenever their list has changed: nothing has to be restarted for a rotation.

    a key for desired states is here       they are signed, by every such key, and published
    none is (it is kept offline)           what would be signed waits in ``twins.unsigned`` until somebody brings the signature
                                           (``hedgerow edge sign``, registry/store/unsigned.py)

Method calls are signed by every key that may; a key for methods only can put no code on a device, which checks that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hedgerow.contracts.device import TrustedKey
from hedgerow.contracts.signed import Signer, Verifier
from registry.identity.signing_keys import LIST, read_signing_keys


@dataclass(frozen=True)
class Signing:
    """The keys of a moment. ``told`` is what desired states say of keys to trust; ``desired`` empty: they wait."""

    desired: Mapping[str, Signer]
    methods: Mapping[str, Signer]
    told: tuple[TrustedKey, ...] = ()
    verifiers: Mapping[str, Verifier] | None = None


# Who signs asks each time.
GetSigning = Callable[[], Signing]


def signing_of(folder: Path) -> GetSigning:
    """The keys in ``folder`` (a workspace's ``keys``)."""
    seen: list[tuple[object, Signing]] = []

    def now() -> Signing:
        mark = _mark(folder / LIST)
        if not seen or seen[0][0] != mark:
            keys = read_signing_keys(folder)
            signing = Signing(keys.signers("desired"), keys.signers("methods"), tuple(keys.told), keys.verifiers("desired"))
            seen[:] = [(mark, signing)]
        return seen[0][1]

    return now


def always(signers: Mapping[str, Signer]) -> GetSigning:
    """These keys for everything."""
    signing = Signing(signers, signers)
    return lambda: signing


def _mark(path: Path) -> object:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
