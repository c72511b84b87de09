"""What Mosquitto is given to read: rules, names, addresses; and the texts that hub and devices log in with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hedgerow.contracts.broker_login import Login, device_login, hub_login
from hedgerow.errors import InvalidSetting
from registry.mosquitto.configuration import Listening, configuration, rules
from registry.mosquitto.files import Files, Owner
from registry.mosquitto.listening import device_url, parse_listen, server_names
from registry.mosquitto.passwords import line

KEY = bytes(range(32))


def test_logins_differ_by_device_and_by_key_and_tell_nothing_of_the_key() -> None:
    one = device_login("a", KEY)
    assert one == device_login("a", KEY)
    others = [device_login("b", KEY), device_login("a", KEY[::-1]), hub_login(KEY)]
    assert len({one.password, *(other.password for other in others)}) == 4
    assert KEY.hex() not in one.password


def test_a_line_is_what_mosquitto_passwd_writes() -> None:
    """Taken from `mosquitto_passwd -b` with the salt of its line."""
    assert line(Login("a", "b"), lambda size: b"\0" * size).startswith("a:$7$101$AAAAAAAAAAAAAAAA$")
    assert len(line(Login("a", "b"), lambda size: b"\0" * size).rpartition("$")[2]) == 88


def test_a_device_may_touch_its_own_topics_and_nothing_else() -> None:
    lines = rules("hedgerow/w").splitlines()
    mine = [text for text in lines if text.startswith("pattern")]
    assert len(mine) == 10
    assert all("/devices/%u/" in text for text in mine)
    assert all("%u" not in text and "#" not in text for text in lines if text.startswith("topic"))
    assert lines[0] == "user hub"


def test_nobody_comes_without_a_name_and_the_open_port_has_tls() -> None:
    text = configuration(Listening(1883, ("0.0.0.0", 8883)), Path("/f"))
    assert "allow_anonymous false" in text
    assert "listener 1883 127.0.0.1" in text
    before, _, after = text.partition("listener 8883 0.0.0.0")
    assert "certfile" not in before
    assert "certfile /f/server.pem" in after


@pytest.mark.parametrize(
    ("listen", "names", "url"),
    [
        ("0.0.0.0:8883", "plant.example, 10.0.0.7", "mqtts://plant.example:8883"),
        ("10.0.0.7:8884", "", "mqtts://10.0.0.7:8884"),
        ("[::1]:8883", "", "mqtts://[::1]:8883"),
    ],
)
def test_devices_are_told_the_first_name(listen: str, names: str, url: str) -> None:
    assert device_url(listen, names) == url


def test_behind_any_address_stands_the_name_of_the_machine() -> None:
    assert server_names("", "0.0.0.0")[1:] == ["localhost", "127.0.0.1"]


@pytest.mark.parametrize("text", ["8883", ":8883", "host:", "host:0", "host:99999", "host:x", "host:8883\n", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting):
        parse_listen(text)


def test_what_lies_in_the_brokers_folder_is_neither_written_to_nor_given_away(tmp_path: Path) -> None:
    """The folder is Mosquitto's: who breaks into it must not get files of ours through it, nor hold us up."""
    mine = tmp_path / "mine"
    mine.write_text("keep", encoding="utf-8")
    files = Files(tmp_path / "note", Owner())
    (files.folder / ".rules").symlink_to(mine)
    (files.folder / ".server.key").hardlink_to(mine)
    os.mkfifo(files.folder / ".passwords")
    for name in ("rules", "server.key", "passwords"):
        files.write(name, b"new")
        assert (files.folder / name).read_bytes() == b"new"
        assert (files.folder / name).stat().st_mode & 0o777 == 0o600
    files.close()
    assert mine.read_text(encoding="utf-8") == "keep"
