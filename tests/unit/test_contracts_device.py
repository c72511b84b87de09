"""device.toml: every value comes back, however strange."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.contracts.device import DeviceConfig, TrustedKey, from_toml, to_toml
from hedgerow.errors import DocumentTooNew, InvalidDocument

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def _config(**changes: object) -> DeviceConfig:
    values: dict[str, object] = {
        "device_uuid": "7d1f0a52-3c1b-4a53-9a38-0d5a8f6a4c11",
        "name": "press-7",
        "workspace_id": "w",
        "topic_prefix": "hedgerow/main",
        "broker_url": "mqtt://127.0.0.1:1883",
        "registry_url": "http://127.0.0.1:8080",
        "device_key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "pull_token": "t",
        "trusted_keys": [TrustedKey(keyid="k1", key="a2V5")],
    }
    return DeviceConfig(**(values | changes))  # type: ignore[arg-type]  # tests pass wrong values on purpose


@given(
    TEXTS,
    st.dictionaries(TEXTS, TEXTS, max_size=3),
    st.lists(st.builds(TrustedKey, keyid=TEXTS, key=TEXTS), min_size=1, max_size=3),
)
def test_what_was_written_comes_back(token: str, tags: dict[str, str], keys: list[TrustedKey]) -> None:
    config = _config(pull_token=token, tags=tags, trusted_keys=keys)
    assert from_toml(to_toml(config)) == config


@pytest.mark.parametrize("nasty", ['"', "\\", "\n[tags]\nx = 1", "\x7f", "😀", "\u2028", "\t", "\x00", "'''", '"""'])
def test_a_nasty_value_stays_a_value(nasty: str) -> None:
    assert from_toml(to_toml(_config(tags={"k": nasty, nasty: "v"}))).tags == {"k": nasty, nasty: "v"}


def test_the_device_key_is_32_bytes() -> None:
    assert _config().key_bytes() == bytes(range(32))


@pytest.mark.parametrize("text", ["", "=", "name = 5", 'name = "a"', "[[", "\ufffe"])
def test_a_broken_file_is_an_invalid_document(text: str) -> None:
    with pytest.raises(InvalidDocument):
        from_toml(text)


def test_a_newer_file_says_so() -> None:
    with pytest.raises(DocumentTooNew):
        from_toml("schema_version = 2\n")
