"""The login that this machine has for a registry, for the control plane to use once: it may be another machine."""

from __future__ import annotations

import os
from pathlib import Path

from hedgerow.contracts.remote_image import RemoteImage
from hedgerow.sdk.errors import DockerLoginUnknown


def docker_login(target: str) -> tuple[str, str]:
    """User and password as `docker login` or `podman login` left them for the registry of ``target``.

    Raises DockerLoginUnknown, RemoteReferenceInvalid, LoginsUnreadable, LoginHelperMissing, LoginHelperFailed.
    """
    # Only here: nothing else of the client needs the packager.
    from packager.distribution.credential_helper import CredentialHelpers
    from packager.distribution.logins import find_login, places

    image = RemoteImage.parse(target)
    environment = os.environ  # noqa: TID251 - a user's script has no composition root of ours
    found = find_login(image, places(environment, Path.home()), CredentialHelpers(environment))
    if found is None:
        raise DockerLoginUnknown(registry=image.host)
    return found.username, found.password
