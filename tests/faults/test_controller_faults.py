"""Kill -9 of everything that the controller starts, and of itself, at bad moments; full disks; a lease that is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from hedgerow.process import Running
from hedgerow.sdk.client import Client
from registry.store.database import open_database
from registry.store.tables import leases
from tests.controller_process import (
    ROW,
    Plane,
    add_image,
    add_model,
    delete,
    deploy,
    deployment_of,
    doubling_model,
    ended,
    plane,
    said,
    score,
    source,
)
from tests.faults.test_server_faults import fill
from tests.process_folders import alive
from tests.small_disk import small_disk
from tests.steady_load import steady_load
from tests.waiting import accepts_connections, wait_for

REPLACED_S = 2.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    # Without --stop-services-on-exit: a controller that ends politely leaves its services, too.
    with plane(tmp_path_factory.mktemp("faults"), "--ready-timeout-s", "30") as started:
        yield started


@pytest.fixture
def client(made: Plane) -> Iterator[Client]:
    if not made.controller.is_running:
        made.start_controller()
    yield made.client
    if not made.controller.is_running:
        made.start_controller()
    for endpoint in made.client.services.list().items:
        delete(made, endpoint.name)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def change_lease(made: Plane, **values: object) -> None:
    with closing(open_database(None, made.folder)) as database, database.write() as connection:
        connection.execute(leases.update().where(leases.c.name == "controller").values(**values))


def first_replica(client: Client) -> int:
    return deployment_of(client).replicas[0].pid or 0


# --- the controller ----------------------------------------------------------------------------------------------------


def test_a_build_is_begun_again_by_the_next_controller(made: Plane, client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="built")
    build = client.images.build("built", [model])
    packager = made.one_running("job-")
    made.controller.kill()
    wait_for(lambda: not alive(packager), timeout_s=20, what="the end of the build's process")
    assert client.activities.get(build.id).state == "running", "nobody is there to say more"
    made.start_controller()
    activity = ended(client, build.id)
    assert (activity.state, activity.attempt) == ("succeeded", 2), activity.problem
    assert [image.version for image in client.images.list().items if image.name == "built"] == [1], (
        "the attempt that died took no number"
    )
    assert not list((made.folder / "work" / "builds").iterdir())


def test_a_run_ends_with_its_controller_and_says_so(made: Plane, client: Client, tmp_path: Path) -> None:
    folder = source(tmp_path / "src", "import time; open('outputs/began', 'w').close(); time.sleep(600)")
    run = client.runs.submit("churn", folder, "train.py")
    began = wait_for(lambda: list((made.folder / "work").glob("runs/*/files/snapshot/outputs/began")), what="the script")
    script = made.one_running("job-")
    made.controller.kill()
    wait_for(lambda: not alive(script), timeout_s=20, what="the end of the script")
    made.start_controller()
    activity = ended(client, run.activity_id)
    found = client.runs.get(run.id)
    assert (activity.state, found.state) == ("failed", "failed")
    assert found.problem is not None
    assert found.problem.code == "interrupted"
    assert not began[0].exists()


def test_a_controller_that_is_asked_to_stop_settles_what_it_has(made: Plane, client: Client, tmp_path: Path) -> None:
    run = client.runs.submit("churn", source(tmp_path / "src", "import time; time.sleep(600)"), "train.py")
    wait_for(lambda: "running train.py" in client.activities.get(run.activity_id).step, what="the script")
    build = client.images.build("settled", [add_model(client, tmp_path / "m", name="settled")])
    wait_for(lambda: len(made.running("job-")) == 2, what="the build")
    made.controller.stop()
    assert not made.supervised("job-")
    assert (client.runs.get(run.id).state, client.activities.get(run.activity_id).state) == ("failed", "failed")
    assert client.activities.get(build.id).state == "queued", "begun again by the next one"
    made.start_controller()
    assert ended(client, build.id).state == "succeeded"


def test_a_deployment_goes_on(made: Plane, client: Client, double: str) -> None:
    activity = client.services.deploy("twice", double)
    made.one_running("replica-")
    made.controller.kill()
    made.start_controller()
    assert ended(client, activity.id).state == "succeeded"
    assert score(client.services.get("twice").scoring_url) == 2.0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_services_outlive_their_controller_and_are_adopted(made: Plane, client: Client, double: str, how: signal.Signals) -> None:
    url = deploy(client, double, replicas=2).scoring_url
    before = sorted(made.running("replica-")), made.running("balancer")
    with steady_load(url, ROW) as load:
        wait_for(lambda: load.good > 20, what="load")
        made.controller.send(how)
        wait_for(lambda: not made.controller.is_running, what="the end of the controller")
        good = load.good
        wait_for(lambda: load.good > good + 50, what="load without a controller")
        made.start_controller()
        good = load.good
        wait_for(lambda: load.good > good + 50, what="load under the next controller")
    assert not load.bad
    assert (sorted(made.running("replica-")), made.running("balancer")) == before
    found = deployment_of(client)
    assert (found.state, [one.restarts for one in found.replicas]) == ("ready", [0, 0])
    victim = first_replica(client)
    kill(victim)
    wait_for(lambda: len(made.running("replica-")) == 2 and victim not in made.running("replica-"), what="its replacement")


def test_killed_over_and_over_it_never_loses_or_doubles_anything(made: Plane, client: Client, double: str) -> None:
    activity = client.services.deploy("twice", double)
    for _ in range(4):
        made.controller.kill()
        made.start_controller()
    found = ended(client, activity.id)
    assert found.state == "succeeded" or (found.problem and found.problem.code == "interrupted"), found
    wait_for(lambda: deployment_of(client).state == "ready", timeout_s=20, what="the service")
    assert len(made.running("replica-")) == 1
    assert len(made.running("balancer")) == 1


def test_a_second_controller_is_refused_with_the_pid_of_the_first(made: Plane, client: Client) -> None:
    argv = [sys.executable, "-P", "-m", "registry.controller", "--workspace", str(made.folder)]
    second = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert f"already running as process {made.controller.pid}" in second.stderr


def test_a_controller_whose_lease_was_taken_stops_at_once(made: Plane, client: Client, double: str) -> None:
    url = deploy(client, double).scoring_url
    with closing(open_database(None, made.folder)) as database, database.write() as connection:
        connection.execute(
            leases.update().where(leases.c.name == "controller").values(holder="elsewhere", token=leases.c.token + 1)
        )
    client.services.deploy("twice", double)
    wait_for(lambda: not made.controller.is_running, timeout_s=20, what="the end of the controller")
    assert "The lease controller belongs to elsewhere now" in made.controller.log_text()
    assert score(url) == 2.0, "what serves goes on serving"
    change_lease(made, expires_at="2000-01-01T00:00:00.000000Z")


def test_a_controller_whose_parent_is_gone_leaves_the_services(made: Plane, client: Client, double: str) -> None:
    url = deploy(client, double).scoring_url
    made.controller.stop()
    argv = [sys.executable, "-P", "-m", "registry.controller", "--workspace", str(made.folder), "--watch-parent"]
    options = ["--stop-services-on-exit", "--balancer-port", str(made.balancer_port)]
    with subprocess.Popen([*argv, *options], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(20) == 0
    assert score(url) == 2.0


# --- what it starts ------------------------------------------------------------------------------------------------------


@pytest.mark.alone
def test_a_killed_replica_is_replaced_under_load(client: Client, double: str) -> None:
    url = deploy(client, double, replicas=2).scoring_url
    clients = 4
    with steady_load(url, ROW, clients=clients) as load:
        wait_for(lambda: load.good > 50, what="load")
        victim = first_replica(client)
        kill(victim)
        killed_s = time.monotonic()

        def replaced() -> bool:
            found = deployment_of(client)
            return found.state == "ready" and victim not in [one.pid for one in found.replicas]

        wait_for(replaced, what="the replacement")
        took_s = time.monotonic() - killed_s
        good = load.good
        wait_for(lambda: load.good > good + 50, what="load on the replacement")
    assert took_s <= REPLACED_S
    assert sum(load.bad.values()) <= clients, load.bad
    assert [one.restarts for one in deployment_of(client).replicas if one.restarts] == [1]


@pytest.mark.alone
def test_a_replica_that_never_answers_is_given_up_and_named(tmp_path: Path) -> None:
    with plane(tmp_path, "--ready-timeout-s", "2") as impatient:
        client = impatient.client
        activity = client.services.deploy("twice", add_image(client, tmp_path / "m"))
        replica = impatient.one_running("replica-")
        # Frozen before it runs its own program, it would be one that was never started.
        program = Path(f"/proc/{replica}/cmdline")
        wait_for(lambda: b"\0runtime\0" in program.read_bytes(), timeout_s=20, what="the replica's own program")
        os.kill(replica, signal.SIGSTOP)
        found = ended(client, activity.id)
        assert found.problem is not None
        assert "it did not answer within 2 s" in found.problem.message
        wait_for(lambda: deployment_of(client).state == "ready", timeout_s=20, what="the next try, which nobody froze")
        assert deployment_of(client).replicas[0].restarts == 1


def test_a_replica_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    # As root below a folder that nobody else may enter, and told to insist on a user of its own.
    (tmp_path / "closed").mkdir(mode=0o700)
    with plane(tmp_path / "closed", "--require-sandbox") as strict:
        client = strict.client
        found = ended(client, client.services.deploy("twice", add_image(client, tmp_path / "m")).id)
        assert found.problem is not None
        assert "Foreign code would run as root" in found.problem.message
        run = client.runs.submit("churn", source(tmp_path / "src", "print(1)"), "train.py")
        problem = ended(client, run.activity_id).problem
        assert problem is not None
        assert problem.code == "sandbox_missing"


def test_a_replica_that_dies_and_dies_is_never_given_up(client: Client, double: str) -> None:
    deploy(client, double)
    for number in range(1, 4):
        kill(first_replica(client))
        wait_for(
            lambda number=number: deployment_of(client).replicas[0].restarts == number and deployment_of(client).state == "ready",  # type: ignore[misc]  # bound in the loop
            timeout_s=20,
            what=f"restart {number}",
        )


def test_the_killed_balancer_comes_back_with_the_same_state(made: Plane, client: Client, double: str, triple: str) -> None:
    url = deploy(client, double, replicas=2).scoring_url
    deploy(client, triple, deployment="green")
    client.services.set_traffic("twice", {"green": 100})
    wait_for(lambda: score(url) == 3.0, what="traffic for green")
    replicas = sorted(made.running("replica-"))
    kill(made.one_running("balancer"))

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.post(str(url), json=ROW, timeout=5).status_code == 200
        return False

    wait_for(lambda: not answers() or len(made.running("balancer")) == 1, what="the end of the balancer")
    wait_for(answers, what="the balancer")
    assert sorted(made.running("replica-")) == replicas
    assert {score(url) for _ in range(30)} == {3.0}
    wait_for(lambda: {deployment_of(client, name=name).state for name in ("blue", "green")} == {"ready"}, what="all well")


def test_a_killed_process_of_a_build_fails_the_build(made: Plane, client: Client, tmp_path: Path) -> None:
    build = client.images.build("cut", [add_model(client, tmp_path / "m", name="cut")])
    kill(made.one_running("job-"))
    activity = ended(client, build.id)
    assert activity.state == "failed"
    assert activity.problem is not None
    assert activity.problem.code == "worker_failed"
    assert "signal 9" in activity.problem.message
    assert [image for image in client.images.list().items if image.name == "cut"] == []
    assert not list((made.folder / "work" / "builds").iterdir())


def test_a_killed_shim_takes_its_script_along_and_the_run_ends(made: Plane, client: Client, tmp_path: Path) -> None:
    run = client.runs.submit(
        "churn", source(tmp_path / "src", "import time; print('up', flush=True); time.sleep(600)"), "train.py"
    )
    wait_for(lambda: "running train.py" in client.activities.get(run.activity_id).step, what="the script")
    (supervised,) = made.supervised("job-")
    seen = supervised.observe()
    assert isinstance(seen, Running)
    shim = int(Path(f"/proc/{seen.pid}/stat").read_text().rpartition(")")[2].split()[1])
    kill(shim)
    assert ended(client, run.activity_id).state == "failed"
    assert not alive(seen.pid)


# --- another database ----------------------------------------------------------------------------------------------------


def test_on_postgresql_it_builds_runs_deploys_and_recovers(tmp_path: Path, postgres_url: str) -> None:
    with plane(tmp_path, database=postgres_url) as elsewhere:
        client = elsewhere.client
        image = add_image(client, tmp_path / "m")
        run = client.runs.submit(
            "churn", source(tmp_path / "src", "import hedgerow; hedgerow.current_run().log('a', 1)"), "train.py"
        )
        assert ended(client, run.activity_id).state == "succeeded"
        activity = client.services.deploy("twice", image)
        elsewhere.controller.kill()
        elsewhere.start_controller()
        assert ended(client, activity.id).state == "succeeded"
        assert score(client.services.get("twice").scoring_url) == 2.0


# --- the disk ------------------------------------------------------------------------------------------------------------


def test_a_build_on_a_full_disk_fails_whole_and_works_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "24m") as disk, plane(disk) as small:
        client = small.client
        folder = tmp_path / "m"
        doubling_model(folder)
        (folder / "ballast.bin").write_bytes(os.urandom(4_000_000))
        manifest = client.models.register("heavy", folder)
        fill(disk / "filler")
        with (disk / "filler").open("r+b") as filler:
            filler.truncate(filler.seek(0, 2) - 2_000_000)
        build = client.images.build("heavy", [f"{manifest.name}:1"])
        activity = ended(client, build.id)
        assert activity.state == "failed"
        assert activity.problem is not None
        assert activity.problem.code in ("disk_full", "storage_unavailable"), activity.problem
        assert client.images.list().items == []
        assert not list((small.folder / "work" / "builds").iterdir())
        (disk / "filler").unlink()
        again = client.images.build("heavy", [f"{manifest.name}:1"])
        assert ended(client, again.id).state == "succeeded", said(client, again.id)
        assert accepts_connections(int(client.info().url.rpartition(":")[2]))
