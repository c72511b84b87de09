"""Which calls are let in: signed by the workspace, for this device, for its present session, and not too old."""

from __future__ import annotations

from datetime import datetime

from edge_agent.link.trusted import TrustedKeys, verifiers
from edge_agent.methods.errors import ExpiredCall, ForeignCall, StaleCall
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import decode
from hedgerow.contracts.methods import MAX_PAYLOAD_BYTES, MethodCall
from hedgerow.contracts.names import MAX_MQTT_PAYLOAD_BYTES, PAYLOAD_METHOD_CALL
from hedgerow.contracts.signed import open_signed
from hedgerow.errors import InvalidDocument


class Gate:
    """One device's. Anybody at the broker can write to its topics: nothing of an envelope is believed before its signature."""

    def __init__(self, config: DeviceConfig, trusted: TrustedKeys | None = None) -> None:
        """``trusted`` None: the keys of device.toml, for ever."""
        self._uuid = config.device_uuid
        self._first, self._trusted = verifiers(config.trusted_keys, "methods"), trusted

    def open(self, envelope: bytes, session: str | None, incarnation: str | None) -> MethodCall:
        """``session`` and ``incarnation`` are those of the sealed welcome, None while there is none.

        Raises SignatureRefused, InvalidDocument, DocumentTooNew, ForeignCall, StaleCall.
        """
        if len(envelope) > MAX_MQTT_PAYLOAD_BYTES:
            raise InvalidDocument(document="MethodCall", problem=f"it has more than {MAX_MQTT_PAYLOAD_BYTES} bytes")
        believed = self._first if self._trusted is None else self._trusted.verifiers("methods")
        call = decode(open_signed(envelope, PAYLOAD_METHOD_CALL, believed), MethodCall)
        if len(call.payload.encode()) > MAX_PAYLOAD_BYTES:
            raise InvalidDocument(document="MethodCall", problem=f"its payload has more than {MAX_PAYLOAD_BYTES} bytes")
        if call.device_uuid != self._uuid:
            raise ForeignCall(method=call.name, found=call.device_uuid, expected=self._uuid)
        if session is None or (call.session, call.incarnation) != (session, incarnation):
            raise StaleCall(method=call.name)
        return call


def check_time(call: MethodCall, now: datetime) -> None:
    """Raises ExpiredCall."""
    if now >= call.expires_at:
        raise ExpiredCall(
            method=call.name, expires_at=f"{call.expires_at:%Y-%m-%d %H:%M:%S} UTC", now=f"{now:%Y-%m-%d %H:%M:%S} UTC"
        )
