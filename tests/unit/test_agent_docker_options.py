"""What is sent to Docker, and which options need this device's own consent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edge_agent.engines.docker_options import check_allowed, container_config, has_own_network
from edge_agent.errors import OptionForbidden
from edge_agent.reconcile.situation import Wanted, fingerprint
from hedgerow.contracts.edge import DesiredModule, Limits, ModuleSpec
from tests.agent_builders import pin, wanted

IMAGE = "127.0.0.1:5000/shuttle@sha256:" + "0" * 64


def module(**spec: Any) -> Wanted:
    return wanted(kind="docker", image=pin(kind="docker"), **({"command": []} | spec))


def config(of: Wanted, exposed: tuple[str, ...] = ()) -> dict[str, Any]:
    return container_config(of, IMAGE, exposed, {"HEDGEROW_MODULE": "m"}, {"hedgerow.module": "m"})


def test_create_options_pass_through_and_ours_are_added() -> None:
    options = {
        "Env": ["A=1"],
        "Labels": {"mine": "yes"},
        "Healthcheck": {"Test": ["CMD", "true"]},
        "HostConfig": {"Dns": ["10.0.0.1"], "ExtraHosts": ["db:10.0.0.2"], "LogConfig": {"Type": "journald"}},
        "SomethingNew": {"deep": [1]},
    }
    made = config(module(create_options=options, variables={"B": "2"}))
    assert made["Image"] == IMAGE
    assert made["Env"] == ["A=1", "B=2", "HEDGEROW_MODULE=m"]
    assert made["Labels"] == {"mine": "yes", "hedgerow.module": "m"}
    assert made["Healthcheck"] == {"Test": ["CMD", "true"]}
    assert made["SomethingNew"] == {"deep": [1]}
    assert made["HostConfig"]["Dns"] == ["10.0.0.1"]
    assert made["HostConfig"]["LogConfig"] == {"Type": "journald"}
    assert made["HostConfig"]["ExtraHosts"] == ["db:10.0.0.2", "host.docker.internal:host-gateway"]
    assert options["HostConfig"] == {"Dns": ["10.0.0.1"], "ExtraHosts": ["db:10.0.0.2"], "LogConfig": {"Type": "journald"}}


def test_docker_itself_never_restarts_a_module() -> None:
    made = config(module(create_options={"HostConfig": {"restartpolicy": {"Name": "always"}}}))
    assert made["HostConfig"]["RestartPolicy"] == {"Name": "no"}
    assert "restartpolicy" not in made["HostConfig"]


def test_logs_are_bounded_unless_the_manifest_says_otherwise() -> None:
    assert config(module())["HostConfig"]["LogConfig"]["Config"] == {"max-size": "1000000", "max-file": "3"}
    own = {"HostConfig": {"logconfig": {"Type": "none"}}}
    assert config(module(create_options=own))["HostConfig"]["LogConfig"] == {"Type": "none"}


def test_limits_become_dockers() -> None:
    host = config(module(limits=Limits(memory_bytes=64_000_000, cpus=0.5, open_files=256, processes=32)))["HostConfig"]
    assert host["PidsLimit"] == 32
    assert (host["Memory"], host["NanoCpus"]) == (64_000_000, 500_000_000)
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 256, "Hard": 256}]


@pytest.mark.parametrize(
    ("exposed", "inner"), [(("5001/tcp",), "5001/tcp"), ((), "8080/tcp"), (("8080/tcp", "80/tcp"), "8080/tcp")]
)
def test_the_port_is_published_on_loopback_only(exposed: tuple[str, ...], inner: str) -> None:
    made = config(module(port=8080), exposed)
    assert made["HostConfig"]["PortBindings"] == {inner: [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}
    assert inner in made["ExposedPorts"]


PRIVILEGES = [
    ("privileged", {"Privileged": True}),
    ("privileged", {"privileged": True}),
    ("host", {"NetworkMode": "host"}),
    ("host", {"pidMode": "host"}),
    ("host", {"IpcMode": "container:abc"}),
    ("host", {"NetworkMode": "ns:/proc/1/ns/net"}),
    ("binds", {"Binds": ["/etc:/etc"]}),
    ("binds", {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]}),
    ("binds", {"mounts": [{"type": "volume", "volumeOptions": {"DriverConfig": {"Options": {"device": "/"}}}}]}),
    ("devices", {"Devices": [{"PathOnHost": "/dev/sda"}]}),
    ("capabilities", {"CapAdd": ["SYS_ADMIN"]}),
    ("capabilities", {"SecurityOpt": ["seccomp=unconfined"]}),
    ("capabilities", {"MaskedPaths": []}),
    ("remote-logs", {"LogConfig": {"Type": "syslog", "Config": {"syslog-address": "udp://198.51.100.7"}}}),
    ("remote-logs", {"logconfig": {"type": "gelf"}}),
    ("remote-logs", {"LogConfig": {"Type": "plugin/anything"}}),
    ("oom-score", {"OomScoreAdj": -500}),
    ("oom-score", {"oomscoreadj": "-500"}),
    ("oom-score", {"OomKillDisable": True}),
]


@pytest.mark.parametrize("joined", ["host", "ns:/proc/1/ns/net"])
@pytest.mark.parametrize("key", ["EndpointsConfig", "endpointsconfig"])
def test_the_hosts_network_by_another_door_needs_consent_too(joined: str, key: str) -> None:
    asks = module(create_options={"NetworkingConfig": {key: {joined: {}}}})
    with pytest.raises(OptionForbidden):
        check_allowed(asks, ["binds"])
    check_allowed(asks, ["host"])
    check_allowed(module(create_options={"NetworkingConfig": {key: {"hosting": {}}}}), [])


@pytest.mark.parametrize(("word", "host"), PRIVILEGES)
@pytest.mark.parametrize("key", ["HostConfig", "hostconfig"])
def test_power_over_the_host_needs_this_devices_consent(word: str, host: dict[str, Any], key: str) -> None:
    asks = module(create_options={key: host})
    with pytest.raises(OptionForbidden) as refused:
        check_allowed(asks, [])
    assert refused.value.fields["word"] == word
    check_allowed(asks, [word])


@pytest.mark.parametrize("driver", ["", "json-file", "local", "journald", "none", None])
def test_logs_that_stay_on_the_device_need_none(driver: str | None) -> None:
    check_allowed(module(create_options={"HostConfig": {"LogConfig": {"Type": driver, "Config": {"max-size": "1m"}}}}), [])


def test_what_stays_inside_the_container_needs_none() -> None:
    host = {
        "Binds": ["data:/data"],
        "Mounts": [{"Type": "tmpfs", "Target": "/t"}],
        "NetworkMode": "bridge",
        "CapDrop": ["ALL"],
        "CapAdd": None,
        # As manifests of IoT Edge have them: a port for the machine's network, a volume that modules may share.
        "PortBindings": {"80/tcp": [{"HostPort": "8080"}], "81/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8081"}]},
        "OomScoreAdj": 200,
        "OomKillDisable": False,
    }
    check_allowed(module(create_options={"HostConfig": host, "Env": ["A=1"]}), [])


@pytest.mark.parametrize(
    "options",
    [
        {"HostConfig": {"Bind\u017f": ["/:/host"]}},
        {"Ho\u017ftConfig": {"Privileged": True}},
        {"HostConfig": {"Privileged": True, "privileged": None}},
        {"HostConfig": {"NetworkMode": "host", "networkmode": None}},
        {"NetworkingConfig": {"EndpointsConfig": {"host": {}}, "endpointsconfig": {}}},
        {"HostConfig": {"Mounts": [{"Type": "bind", "type": "volume", "Source": "/", "Target": "/host"}]}},
    ],
)
def test_a_spelling_that_only_the_engine_understands_hides_nothing(options: dict[str, object]) -> None:
    with pytest.raises(OptionForbidden, match="doubled or not plain ASCII"):
        check_allowed(module(create_options=options), allowed=())


def networked(of: Wanted) -> dict[str, Any]:
    return container_config(of, IMAGE, (), {}, {}, network="hedgerow-3f1f9e0a")


def test_modules_have_their_names_in_the_devices_network() -> None:
    made = networked(wanted("temp-sensor", kind="docker", command=[], display_name="TempSensor"))
    assert made["HostConfig"]["NetworkMode"] == "hedgerow-3f1f9e0a"
    assert made["NetworkingConfig"] == {"EndpointsConfig": {"hedgerow-3f1f9e0a": {"Aliases": ["temp-sensor", "TempSensor"]}}}
    unfit = networked(wanted("temp-sensor", kind="docker", command=[], display_name="a name with spaces"))
    assert unfit["NetworkingConfig"]["EndpointsConfig"]["hedgerow-3f1f9e0a"]["Aliases"] == ["temp-sensor"]


@pytest.mark.parametrize(
    ("options", "own"),
    [
        ({}, False),
        ({"HostConfig": {"NetworkMode": ""}}, False),
        ({"HostConfig": {"NetworkMode": "azure-iot-edge"}}, False),
        ({"NetworkingConfig": {"EndpointsConfig": {"azure-iot-edge": {}}}}, False),
        ({"HostConfig": {"NetworkMode": "host"}}, True),
        ({"hostConfig": {"networkMode": "none"}}, True),
        ({"networkingconfig": {"endpointsConfig": {"plant": {}}}}, True),
        ({"HostConfig": None, "NetworkingConfig": None}, False),
    ],
)
def test_a_network_given_in_the_manifest_wins(options: dict[str, Any], own: bool) -> None:
    assert has_own_network(module(create_options=options)) is own


def test_iot_edges_network_becomes_the_devices() -> None:
    options = {"HostConfig": {"networkMode": "azure-iot-edge"}, "NetworkingConfig": {"EndpointsConfig": {"azure-iot-edge": {}}}}
    made = networked(module(create_options=options))
    assert list(made["NetworkingConfig"]["EndpointsConfig"]) == ["hedgerow-3f1f9e0a"]
    assert made["HostConfig"]["NetworkMode"] == "hedgerow-3f1f9e0a"
    assert "azure-iot-edge" not in str(made)


def test_a_limit_that_older_agents_did_not_know_changes_no_fingerprint_of_theirs() -> None:
    spec = ModuleSpec(command=["run"], limits=Limits(memory_bytes=5, open_files=64), variables={"A": "1"})
    before = "sha256:d2194771c61c6437e1594bd7ce65a0c92473a84e723b28fe36156efa66e9229a"
    assert fingerprint(DesiredModule(spec=spec)) == before
    limited = msgspec.structs.replace(spec, limits=Limits(memory_bytes=5, open_files=64, processes=9))
    assert fingerprint(DesiredModule(spec=limited)) != before
