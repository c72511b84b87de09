"""Asks somebody else's registry what a tag means now: through the egress policy, with the operator's logins, and not for long.

A request waits for the answer, so an attempt is short and there are two; `packager.distribution` does the talking.
"""

from __future__ import annotations

from hedgerow.contracts.remote_image import RemoteImage
from registry.hub.foreign_images import Resolve
from registry.settings import ServerSettings

_ATTEMPTS = 2
_CONNECT_S, _ANSWER_S = 5.0, 15.0


def remote_digests(settings: ServerSettings) -> Resolve:
    """Gives the digest of the manifest or index that an image's tag names. Nothing is asked before it is called."""

    def resolve(image: RemoteImage) -> str:
        from hedgerow.egress import EgressPolicy, tls_context
        from packager.distribution.access import RemoteAccess
        from packager.distribution.credential_helper import CredentialHelpers
        from packager.distribution.logins import LoginFile, read_logins
        from packager.distribution.pull import fetch
        from packager.distribution.repository import Repository

        known = read_logins(settings.registry_logins) if settings.registry_logins else LoginFile({}, {})
        access = RemoteAccess(
            EgressPolicy.parse(settings.egress_allow),
            # Helpers are programs that a person installed; the server runs none.
            look_up_login=lambda wanted: known.find(wanted, CredentialHelpers({})),
            tls=lambda: tls_context(settings.egress_ca_file),
            attempts=_ATTEMPTS,
            connect_timeout_s=_CONNECT_S,
            answer_timeout_s=_ANSWER_S,
        )
        with Repository(image, access) as repository:
            return fetch(repository, image.wanted).digest

    return resolve
