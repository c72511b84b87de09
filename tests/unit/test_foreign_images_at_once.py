"""Tags of other registries are asked for at once, each once, for so long and no longer; who failed is named."""

from __future__ import annotations

import threading

import pytest

from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.contracts.remote_image import RemoteImage
from hedgerow.errors import UnavailableError
from registry.hub.errors import ForeignImageUnresolved
from registry.hub.foreign_images import AT_ONCE, resolve_foreign

PATIENCE_S = 60.0


def deployment(*images: str) -> EdgeDeployment:
    modules = {f"m{number}": ModuleSpec(image=image, kind="docker") for number, image in enumerate(images)}
    return EdgeDeployment(name="line", target="*", modules={**modules, "own": ModuleSpec(command=["x"])})


def digest(image: RemoteImage) -> str:
    return "sha256:" + (image.tag or "").rjust(64, "0")


def image(number: int) -> str:
    return f"registry.example/team/m:{number}"


def test_they_are_asked_at_once_and_each_once() -> None:
    together, asked, lock = threading.Barrier(AT_ONCE), [], threading.Lock()

    def resolve(wanted: RemoteImage) -> str:
        with lock:
            asked.append(wanted.tag)
        # Broken, and so a failure, unless as many are under way as there may be.
        together.wait(PATIENCE_S)
        return digest(wanted)

    images = [image(number) for number in range(AT_ONCE)]
    found = resolve_foreign(deployment(*images, images[0]), None, resolve, deadline_s=2 * PATIENCE_S)
    assert sorted(map(str, asked)) == sorted(str(number) for number in range(AT_ONCE))
    for number in range(AT_ONCE):
        assert found.modules[f"m{number}"].image == f"{images[number]}@sha256:{number:064}"
    assert found.modules[f"m{AT_ONCE}"].image == found.modules["m0"].image
    assert found.modules["own"].image is None


def test_every_one_that_failed_is_named() -> None:
    def resolve(wanted: RemoteImage) -> str:
        if wanted.tag == "1":
            return digest(wanted)
        raise UnavailableError(what=wanted.tag)

    with pytest.raises(ForeignImageUnresolved) as caught:
        resolve_foreign(deployment(image(1), image(2), image(3)), None, resolve)
    assert image(2) in str(caught.value)
    assert image(3) in str(caught.value)
    assert image(1) not in str(caught.value)


def test_nobody_waits_for_ever_and_what_is_known_goes_on() -> None:
    over = threading.Event()

    def resolve(wanted: RemoteImage) -> str:
        if wanted.tag == "2":
            over.wait(PATIENCE_S)
        return digest(wanted)

    try:
        with pytest.raises(ForeignImageUnresolved, match="did not answer within") as caught:
            resolve_foreign(deployment(image(1), image(2)), None, resolve, deadline_s=0.5)
        assert image(2) in str(caught.value.fields["image"])
        before = deployment(f"{image(2)}@sha256:{7:064}")
        found = resolve_foreign(deployment(image(2)), before, resolve, deadline_s=0.2)
        assert found.modules["m0"].image == f"{image(2)}@sha256:{7:064}"
    finally:
        over.set()
