"""Names, references, topics: one grammar that OCI, URLs and MQTT can all carry."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.contracts.names import (
    KNOWN_NAME_PATTERN,
    MAX_NAME_LENGTH,
    NAME_PATTERN,
    DeviceTopics,
    Reference,
    check_known_name,
    check_name,
    is_digest,
)
from hedgerow.errors import InvalidName, InvalidReference

DIGEST = "sha256:" + "0a" * 32
NAMES = st.from_regex(NAME_PATTERN, fullmatch=True).filter(lambda text: "\n" not in text and len(text) <= MAX_NAME_LENGTH)
KNOWN = st.from_regex(KNOWN_NAME_PATTERN, fullmatch=True).filter(lambda text: "\n" not in text and len(text) <= MAX_NAME_LENGTH)
REFERENCES = st.builds(Reference, KNOWN, version=st.none() | st.integers(1, 2**31 - 1)) | st.builds(
    Reference, KNOWN, digest=st.just(DIGEST)
)


@pytest.mark.parametrize("name", ["a", "0", "shuttle-anomaly", "a.b_c-d", "x" * 128, "a--b"])
def test_good_names_come_back(name: str) -> None:
    assert check_name(name, "model") == name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            " ",
            "A",
            "Ä",
            "a b",
            "a/b",
            "../a",
            "..",
            ".",
            "-a",
            "a-",
            ".a",
            "a.",
            "_a",
            "a_",
            "a..b",
            "a._b",
            "a___b",
            "a.-b",
        ),
        *(
            "a\n",
            "\na",
            "a\x00b",
            "a\tb",
            "x" * 129,
            "a+b",
            "a#b",
            "a:b",
            "a@b",
            "a%2fb",
            "ａ",
            "a\u200bb",
            "a;b",
            "$(a)",
            "a'b",
            "a\\b",
        ),
    ],
)
def test_bad_names_are_refused_with_the_value(name: str) -> None:
    with pytest.raises(InvalidName) as caught:
        check_name(name, "model")
    assert "model name" in str(caught.value)
    assert len(str(caught.value)) < 400
    assert "Use 1 to 128" in caught.value.advice


@pytest.mark.parametrize("name", ["a..b", "a._b", "a___b", "a.-b", "a-_b"])
def test_what_the_first_release_took_is_known_and_not_given(name: str) -> None:
    assert check_known_name(name, "model") == name
    assert Reference.parse(f"{name}:1") == Reference(name, 1)
    with pytest.raises(InvalidName):
        check_name(name, "model")
    with pytest.raises(InvalidReference):  # 0.1.0 had no aliases
        Reference.parse(f"a@{name}")


@given(NAMES)
def test_every_name_that_is_given_is_known(name: str) -> None:
    assert check_known_name(check_name(name, "model"), "model") == name


@given(st.text(max_size=140) | KNOWN)
def test_a_name_is_safe_in_a_path_a_url_and_a_topic(text: str) -> None:
    try:
        name = check_known_name(text, "device")
    except InvalidName:
        return
    assert re.fullmatch(r"[a-z0-9._-]+", name)
    assert name not in (".", "..")
    assert not set(name) & set("/+#%?&\\ ")


@given(REFERENCES)
def test_references_survive_the_way_through_text(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    ["a:", "a:0", "a:-1", "a:x", "a:1.0", "a:2147483648", "a:١", "a@", "a@sha256:12", "a@" + DIGEST.upper(), f"a@{DIGEST}\n"],
)
def test_bad_references_are_refused_with_the_value(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)
    assert repr(text) in str(caught.value)


def test_a_version_of_thousands_of_digits_is_refused_like_any_other() -> None:
    with pytest.raises(InvalidReference):
        Reference.parse("a:" + "1" * 5000)


@pytest.mark.parametrize("text", ["", ":1", "@" + DIGEST, "A:1", "a:1@" + DIGEST, "a/b:1", "../x"])
def test_a_reference_with_a_bad_name_says_so(text: str) -> None:
    with pytest.raises(InvalidName):
        Reference.parse(text)


@given(st.text())
def test_any_text_is_a_reference_or_a_user_error(text: str) -> None:
    with contextlib.suppress(InvalidName, InvalidReference):
        assert Reference.parse(text).name


def test_digests() -> None:
    assert is_digest(DIGEST)
    assert not any(map(is_digest, ["", DIGEST + "\n", DIGEST[:-1], DIGEST + "0", DIGEST.upper(), "md5:" + "0" * 32]))


@given(NAMES, st.uuids().map(str))
def test_topics_lead_back_to_device_and_leaf(workspace: str, device: str) -> None:
    prefix = f"hedgerow/{workspace}"
    topics = DeviceTopics(prefix, device)
    for topic, leaf in [
        (topics.hello, "hello"),
        (topics.telemetry, "telemetry"),
        (topics.status, "status"),
        (topics.acks, "acks"),
    ]:
        assert DeviceTopics.parse(topic, prefix) == (device, leaf)
    assert len({topics.hello, topics.telemetry, topics.status, topics.welcome, topics.desired, topics.acks}) == 6


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "hedgerow/other/v1/devices/d/hello",
        "hedgerow/main/v1/devices/d",
        "hedgerow/main/v1/devices/d/hello/x",
        "xhedgerow/main/v1/devices/d/hello",
    ],
)
def test_foreign_topics_are_told_apart(topic: str) -> None:
    assert DeviceTopics.parse(topic, "hedgerow/main") is None


def test_hub_hears_what_devices_say_and_not_itself() -> None:
    assert DeviceTopics.uplink_filters("hedgerow/main") == [
        f"hedgerow/main/v1/devices/+/{leaf}" for leaf in ("hello", "telemetry", "status", "answers", "twins")
    ]
