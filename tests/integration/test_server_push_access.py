"""Who may push and pull: roles, scopes, devices, and the tokens that container tools get for a credential."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from hedgerow.contracts.names import ARTIFACT_SBOM
from registry.store import tokens
from registry.store.database import Database, open_database
from registry.store.tables import desired_images, devices
from registry.store.time_text import to_text
from tests.oci_client import OCTETS, Image, Pusher, artifact, container, digest_of, oci_code
from tests.registry_server import Api, RunningServer
from tests.registry_stores import NOW


@pytest.fixture
def database(server: RunningServer) -> Iterator[Database]:
    opened = open_database(None, server.workspace)
    yield opened
    opened.close()


def device_token(database: Database, uuid: str, *wanted: tuple[str, int]) -> str:
    with database.write() as connection:
        connection.execute(devices.insert().values(uuid=uuid, name=uuid, tags="{}", key_generation=1, enrolled_at=to_text(NOW)))
        for name, version in wanted:
            row = {"device_uuid": uuid, "module": name, "image_name": name, "image_version": version}
            connection.execute(desired_images.insert().values(**row))
        return tokens.create(connection, name=uuid, role="device", subject=uuid, now=NOW).secret or ""


def registry_token(server: RunningServer, secret: str, *scopes: str) -> str:
    """As `docker` asks for it."""
    query: list[tuple[str, str | int | float | bool | None]] = [("service", "x"), ("account", "me")]
    answered = httpx.get(
        f"{server.url}/v2/token", params=[*query, *(("scope", one) for one in scopes)], auth=("me", secret), timeout=30
    )
    assert answered.status_code == 200, answered.text
    body = answered.json()
    assert (body["token"], body["expires_in"]) == (body["access_token"], 900)
    return str(body["token"])


def everything_that_writes(pusher: Pusher, image: Image) -> list[httpx.Response]:
    location = f"/v2/{pusher.name}/blobs/uploads/{'0' * 32}"
    return [
        pusher.begin(),
        pusher.begin(mount=digest_of(b"x"), **{"from": "other"}),
        pusher.client.post(f"/v2/{pusher.name}/blobs/uploads/", params={"digest": digest_of(b"x")}, content=b"x", headers=OCTETS),
        pusher.client.get(location),
        pusher.chunk(location, b"x"),
        pusher.finish(location, b"x", digest_of(b"x")),
        pusher.client.delete(location),
        pusher.manifest(image, "1"),
        pusher.manifest(image),
    ]


@pytest.mark.parametrize("role", ["reader", "puller", "device", "run"])
def test_who_may_not_push(server: RunningServer, api: Api, database: Database, role: str) -> None:
    image = container(b"layer")
    Pusher(api, "held").push(image, "1")
    if role == "device":
        secret = device_token(database, "d-push", ("held", 1))
    elif role == "run":
        with database.write() as connection:
            secret = tokens.create(connection, name="run", role="run", subject="r", now=NOW).secret or ""
    else:
        secret = api.token(role)
    with server.client(secret) as client:
        for answered in everything_that_writes(Pusher(client, "held"), container(b"other")):
            assert (answered.status_code, oci_code(answered)) == (403, "DENIED"), answered.request.url
    assert Pusher(api, "held").tags() == ["1"]


def test_nobody_pushes(server: RunningServer) -> None:
    with server.client("") as client:
        for answered in everything_that_writes(Pusher(client, "nobodys"), container(b"layer")):
            assert (answered.status_code, oci_code(answered)) == (401, "UNAUTHORIZED")
            assert 'scope="repository:nobodys:p' in answered.headers["www-authenticate"]


def test_a_token_with_scopes_pushes_only_its_image(server: RunningServer, api: Api) -> None:
    image = container(b"layer of a scoped one")
    with server.client(api.token("contributor", scopes=["images:team-*"])) as limited:
        assert Pusher(limited, "team-a").push(image, "1").status_code == 201
        for answered in everything_that_writes(Pusher(limited, "others"), image):
            assert (answered.status_code, oci_code(answered)) == (403, "DENIED"), answered.request.url
    with server.client(api.token("contributor", scopes=["models:team-a"])) as limited:
        assert Pusher(limited, "team-a").begin().status_code == 403
        assert Pusher(limited, "team-a").get("manifests/1").status_code == 403


def test_a_device_sees_what_lies_beside_its_image_and_no_more(server: RunningServer, api: Api, database: Database) -> None:
    pusher, image, newer = Pusher(api, "fleet"), container(b"fleet one"), container(b"fleet two")
    sbom = artifact(image, b"sbom of fleet one", ARTIFACT_SBOM)
    pusher.push(image, "stable")
    pusher.push(sbom)
    pusher.push(newer, "stable")
    pusher.push(artifact(newer, b"sbom of fleet two", ARTIFACT_SBOM))
    pusher.upload(b"no image yet")
    with server.client(device_token(database, "d-fleet", ("fleet", 1))) as client:
        device = Pusher(client, "fleet")
        listed = device.get(f"referrers/{image.digest}").json()["manifests"]
        assert [one["digest"] for one in listed] == [sbom.digest]
        assert device.get(f"manifests/{sbom.digest}").content == sbom.manifest
        assert device.get(f"blobs/{digest_of(b'sbom of fleet one')}").content == b"sbom of fleet one"
        # The tag has moved on; what this device should run is still called so for it.
        assert device.get("manifests/stable").content == image.manifest
        assert device.tags() == ["1", "stable"]
        assert device.get(f"referrers/{newer.digest}").json()["manifests"] == []
        for path in (f"blobs/{digest_of(b'sbom of fleet two')}", f"blobs/{digest_of(b'no image yet')}", "manifests/2"):
            assert device.get(path).status_code == 404, path


# --- the token flow -----------------------------------------------------------------------------------------------------


def test_a_tool_is_told_where_to_get_a_token(server: RunningServer, api: Api) -> None:
    realm = f'Bearer realm="{server.url}/v2/token",service="{server.url.removeprefix("http://")}"'
    with server.client("") as client:
        assert client.get("/v2/").headers["www-authenticate"] == realm
        assert client.get("/v2/a/tags/list").headers["www-authenticate"] == f'{realm},scope="repository:a:pull"'
        begun = client.post("/v2/a/blobs/uploads/")
        assert begun.headers["www-authenticate"] == f'{realm},scope="repository:a:pull,push"'
        mounted = client.post("/v2/a/blobs/uploads/", params={"mount": digest_of(b"x"), "from": "b"})
        assert mounted.headers["www-authenticate"] == f'{realm},scope="repository:a:pull,push repository:b:pull"'
        strange = client.post("/v2/a/blobs/uploads/", params={"mount": digest_of(b"x"), "from": 'b" c'})
        assert strange.headers["www-authenticate"] == f'{realm},scope="repository:a:pull,push"'
        model = client.get("/v2/models/a/manifests/1")
        assert model.headers["www-authenticate"] == f'{realm},scope="repository:models/a:pull"'
        assert client.get("/v2/_catalog").headers["www-authenticate"] == f'{realm},scope="registry:catalog:*"'
        # A name goes into the header only when it is one.
        assert client.get("/v2/a%22,error=%22x/tags/list").headers["www-authenticate"] == realm


def test_a_registry_token_opens_what_it_was_asked_for(server: RunningServer, api: Api) -> None:
    image = container(b"layer for tokens")
    Pusher(api, "granted").push(image, "1")
    Pusher(api, "other").push(image, "1")
    owner = api.token("contributor")
    with server.client(registry_token(server, owner, "repository:granted:pull")) as client:
        assert client.get("/v2/").status_code == 200
        assert Pusher(client, "granted").get("manifests/1").content == image.manifest
        for refused in (
            *everything_that_writes(Pusher(client, "granted"), image)[:3],
            client.get("/v2/other/tags/list"),
            client.get("/v2/_catalog"),
            client.get("/v2/models/granted/tags/list"),
        ):
            assert (refused.status_code, oci_code(refused)) == (401, "UNAUTHORIZED"), refused.request.url
            assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
        # It is for container tools alone, and makes no further tokens.
        for path in ("/api/v1/images", "/api/v1/tokens", "/", "/metrics?x"):
            assert client.get(path).status_code == (200 if path.startswith("/metrics") else 401), path
        assert client.get("/v2/token", params={"scope": "repository:other:pull,push"}).status_code == 401
    with server.client(registry_token(server, owner, "repository:granted:pull,push repository:other:pull")) as client:
        layer = digest_of(b"layer for tokens")
        assert Pusher(client, "granted").push(image, "2").status_code == 201
        assert Pusher(client, "granted").begin(mount=layer, **{"from": "other"}).status_code == 201
        assert Pusher(client, "other").begin().status_code == 401
    with server.client(registry_token(server, owner, "repository:granted:push")) as client:
        assert Pusher(client, "granted").begin(mount=layer, **{"from": "other"}).status_code == 202
    with server.client(registry_token(server, owner, "registry:catalog:*")) as client:
        assert "granted" in client.get("/v2/_catalog").json()["repositories"]


def test_a_registry_token_gives_no_more_than_the_credential(server: RunningServer, api: Api, database: Database) -> None:
    image = container(b"layer of the credential")
    for name in ("mine", "theirs"):
        Pusher(api, name).push(image, "1")
    asked = ("repository:mine:pull,push", "repository:theirs:pull,push", "repository:models/mine:pull,push")
    with server.client(registry_token(server, api.token("reader", scopes=["images:mine"]), *asked)) as client:
        assert Pusher(client, "mine").get("manifests/1").status_code == 200
        assert Pusher(client, "theirs").get("manifests/1").status_code in (401, 403)
        assert client.get("/v2/models/mine/tags/list").status_code in (401, 403)
        assert Pusher(client, "mine").begin().status_code == 403, "a role is no matter of asking again"
    with server.client(registry_token(server, device_token(database, "d-token", ("mine", 1)), *asked)) as client:
        assert Pusher(client, "mine").get("manifests/1").status_code == 200
        assert Pusher(client, "theirs").get("manifests/1").status_code == 404
        assert Pusher(client, "mine").begin().status_code == 403


def test_a_registry_token_ends_with_its_credential(server: RunningServer, api: Api) -> None:
    Pusher(api, "ending").push(container(b"layer"), "1")
    made = api.post("/api/v1/tokens", json={"name": "ci", "role": "reader"}).json()
    short = registry_token(server, made["secret"], "repository:ending:pull")
    with server.client(short) as client:
        assert client.get("/v2/ending/tags/list").status_code == 200
        assert api.delete(f"/api/v1/tokens/{made['id']}").is_success
        refused = client.get("/v2/ending/tags/list")
        assert (refused.status_code, oci_code(refused)) == (401, "UNAUTHORIZED")


def test_tokens_that_are_none(server: RunningServer, api: Api) -> None:
    good = registry_token(server, api.token("reader"), "repository:a:pull")
    payload, _, mac = good.removeprefix("hrb_").partition(".")
    says: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))
    more = base64.urlsafe_b64encode(json.dumps(says | {"grants": [["a", "push"]]}).encode()).rstrip(b"=").decode()
    forged = [f"{more}.{mac}", f"{payload}.", payload, "", ".", f"{payload}.{mac[:-4]}AAAA", "!.!"]
    with httpx.Client(base_url=server.url) as client:
        for text in forged:
            answered = client.get("/v2/", headers={"authorization": f"Bearer hrb_{text}"})
            assert (answered.status_code, oci_code(answered)) == (401, "UNAUTHORIZED"), text
    odd = ("", "x", "repository", "repository::pull", "repository:a", "repository:a:delete,*", "a:b:c:d", "\xff" * 1000)
    for scope in odd:
        assert registry_token(server, api.token("reader"), scope), scope


def test_a_wrong_password(server: RunningServer) -> None:
    for auth in (("me", "wrong"), ("me", "hrw_abc_def"), ("me", ""), ("", "")):
        answered = httpx.get(f"{server.url}/v2/token", params={"scope": "repository:a:pull"}, auth=auth)
        assert (answered.status_code, oci_code(answered)) == (401, "UNAUTHORIZED"), auth
        assert answered.headers["www-authenticate"] == 'Basic realm="hedgerow"'
    assert httpx.get(f"{server.url}/v2/token").status_code == 401
    # Some tools try OAuth's POST first, and take this for "no".
    assert httpx.post(f"{server.url}/v2/token", data={"grant_type": "password"}).status_code == 405


# --- parts of content ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["blob", "manifest"])
def test_parts_of_content(api: Api, what: str) -> None:
    layer = bytes(range(256)) * 40_000
    pusher, image = Pusher(api, "ranges"), container(layer)
    pusher.push(image, "latest")
    path, whole = (f"blobs/{digest_of(layer)}", layer) if what == "blob" else ("manifests/latest", image.manifest)
    size, digest = len(whole), digest_of(whole)
    cases = {
        "bytes=0-0": (206, whole[:1]),
        "bytes=7-99": (206, whole[7:100]),
        f"bytes={size - 5}-": (206, whole[-5:]),
        "bytes=-9": (206, whole[-9:]),
        f"bytes=5-{size * 2}": (206, whole[5:]),
        f"bytes={size}-": (416, None),
        "bytes=9-3": (200, whole),
        "bytes=0-1,5-6": (200, whole),
        "lines=0-1": (200, whole),
        "nonsense": (200, whole),
    }
    for header, (status, content) in cases.items():
        answered = pusher.get(path, range=header)
        assert answered.status_code == status, header
        if content is None:
            assert answered.headers["content-range"] == f"bytes */{size}"
            assert oci_code(answered) == "SIZE_INVALID"
        else:
            assert answered.content == content, header
            assert ("content-range" in answered.headers) == (status == 206)
            assert (answered.headers["docker-content-digest"], answered.headers["etag"]) == (digest, f'"{digest}"')
    assert pusher.get(path, **{"range": "bytes=0-4", "if-range": f'"{digest}"'}).status_code == 206
    for other in ('"sha256:other"', "Sat, 01 Jan 2000 00:00:00 GMT", f'W/"{digest}"'):
        assert pusher.get(path, **{"range": "bytes=0-4", "if-range": other}).content == whole, other
    head = api.head(f"/v2/ranges/{path}")
    assert (head.status_code, head.headers["content-length"], head.headers["accept-ranges"]) == (200, str(size), "bytes")
    asked = api.head(f"/v2/ranges/{path}", headers={"range": "bytes=0-4"})
    assert (asked.status_code, asked.content) in ((200, b""), (206, b""))
    assert pusher.get(path, **{"if-none-match": f'"{digest}"'}).status_code == 304
