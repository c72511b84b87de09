"""The parts that the other tests stand on: each starts, answers, and is gone afterwards."""

from __future__ import annotations

import subprocess
import urllib.request
from pathlib import Path

import docker
import paho.mqtt.client as paho
import psycopg
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.fixtures.brokers import Broker, MosquittoFactory
from tests.fixtures.oci_registry import OciRegistry
from tests.fixtures.postgres_shelf import PostgresShelf
from tests.waiting import wait_for


def _round_trip(broker: Broker, username: str | None = None, password: str | None = None) -> bytes:
    received: list[bytes] = []
    client = paho.Client(CallbackAPIVersion.VERSION2)
    if username:
        client.username_pw_set(username, password)
    client.on_message = lambda _client, _data, message: received.append(bytes(message.payload))
    client.on_connect = lambda client, *_: client.subscribe("t", qos=1)
    client.on_subscribe = lambda client, *_: client.publish("t", b"hello", qos=1)
    client.connect(broker.host, broker.port)
    client.loop_start()
    try:
        return wait_for(lambda: received, what="the message to come back")[0]
    finally:
        client.disconnect()
        client.loop_stop()


def test_mosquitto_with_passwords_comes_back_on_its_port(mosquitto: MosquittoFactory) -> None:
    with mosquitto(users={"hub": "right"}, acl="user hub\ntopic readwrite #\n") as broker:
        assert _round_trip(broker, "hub", "right") == b"hello"
        port = broker.port
        broker.kill()
        broker.start()
        assert broker.port == port
        assert _round_trip(broker, "hub", "right") == b"hello"
        assert "not authorised" not in broker.log_text()
        with pytest.raises(AssertionError, match="waited"):
            wait_for(lambda: "never" in broker.log_text(), timeout_s=0.05, what="a word that is not there")
    assert not broker.process.is_running


def test_embedded_broker_answers_on_loopback(embedded_broker: Broker) -> None:
    assert _round_trip(embedded_broker) == b"hello"


def test_postgres_gives_each_test_an_empty_database(postgres_url: str) -> None:
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        rows = connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone()
    assert rows == (0,)


def test_postgres_with_tables_is_lent_empty_and_counts_from_one(postgres_shelf: PostgresShelf) -> None:
    lent = []
    for _ in range(2):
        with postgres_shelf.lend() as url:
            lent.append(url)
            with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
                assert _filled_tables(connection) == ["schema_version_records", "schema_version_series"]
                (sequence,) = connection.execute("select min(sequencename) from pg_sequences").fetchone() or ()
                assert connection.execute("select nextval(%s)", [sequence]).fetchone() == (1,)
                connection.execute("insert into facts (key, value) values ('a', 'b')")
            left_open = psycopg.connect(url.replace("+psycopg", ""))
            left_open.execute("lock table facts")
        left_open.close()
    assert lent[0] == lent[1], "it was made anew, which takes long"


@pytest.mark.parametrize(
    "change", ["drop table webhooks", "create index another on blobs (digest)", "analyze blobs", "truncate schema_version_series"]
)
def test_postgres_with_a_changed_schema_is_not_lent_again(postgres_shelf: PostgresShelf, change: str) -> None:
    with postgres_shelf.lend() as changed, psycopg.connect(changed.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(change + " cascade" if change.startswith("drop") else change)
    with postgres_shelf.lend() as following:
        assert following != changed


def _filled_tables(connection: psycopg.Connection[tuple[object, ...]]) -> list[object]:
    names = connection.execute("select tablename from pg_tables where schemaname = 'public' order by 1").fetchall()
    return [name for (name,) in names if connection.execute(f"select 1 from {name} limit 1").fetchone()]


def test_docker_runs_the_base_image_with_a_published_port(docker_engine: docker.DockerClient, python_base_image: str) -> None:
    said = docker_engine.containers.run(
        python_base_image, ["python3", "-c", "import sys; print(sys.version_info[:2])"], remove=True
    )
    assert said.startswith(b"(3, ")
    container = docker_engine.containers.run(
        python_base_image,
        ["python3", "-u", "-m", "http.server", "8000"],
        detach=True,
        ports={"8000/tcp": ("127.0.0.1", None)},
    )
    try:
        wait_for(lambda: b"Serving" in container.logs(), what="the server in the container")
        container.reload()
        port = container.attrs["NetworkSettings"]["Ports"]["8000/tcp"][0]["HostPort"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            assert answer.status == 200
    finally:
        container.remove(force=True)


def test_containers_find_each_other_by_name(docker_engine: docker.DockerClient, python_base_image: str) -> None:
    network = docker_engine.networks.create("hedgerow-part-test", driver="bridge")
    other = docker_engine.containers.run(
        python_base_image,
        ["python3", "-m", "http.server", "8000"],
        detach=True,
        name="hedgerow-part-test-a",
        network=network.name,
    )
    try:
        ask = (
            "import urllib.request as r, time\n"
            "for _ in range(20):\n"
            "    try: print(r.urlopen('http://hedgerow-part-test-a:8000/', timeout=2).status); break\n"
            "    except OSError as e: last = e; time.sleep(0.05)\n"
            "else: print(last)"
        )
        said = docker_engine.containers.run(python_base_image, ["python3", "-c", ask], network=network.name, remove=True)
        assert said == b"200\n"
    finally:
        other.remove(force=True)
        network.remove()


def test_skopeo_copies_the_base_image_to_the_other_registry(
    docker_host: str, python_base_image: str, docker_registry: OciRegistry, skopeo_binary: Path
) -> None:
    target = f"docker://{docker_registry.address}/base:1"
    source = f"docker-daemon:{python_base_image}"
    copied = subprocess.run(
        [skopeo_binary, "copy", "--src-daemon-host", docker_host, "--dest-tls-verify=false", source, target],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert copied.returncode == 0, copied.stderr
    looked = subprocess.run(
        [skopeo_binary, "inspect", "--tls-verify=false", target], capture_output=True, text=True, timeout=60, check=False
    )
    assert '"Architecture"' in looked.stdout, looked.stderr


def test_haproxy_checks_a_configuration(haproxy_binary: Path, tmp_path: Path) -> None:
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(
        "listen a\n  mode http\n  bind 127.0.0.1:8080\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\n"
    )
    checked = subprocess.run([haproxy_binary, "-c", "-f", configuration], capture_output=True, text=True, timeout=30, check=False)
    assert checked.returncode == 0, checked.stderr
