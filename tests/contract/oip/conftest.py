"""The server under test: OIP_URL, OIP_MODEL and OIP_GRPC say which; without them Hedgerow's own is started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest

# Datatype -> numpy's name for it.
DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}


@dataclass
class Target:
    """A server, one of its models, and a client."""

    client: httpx.Client
    model: str
    grpc_address: str | None

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def infer(self, body: Any, version: str | None = None, **options: Any) -> httpx.Response:
        middle = f"/versions/{version}" if version else ""
        return self.client.post(f"/v2/models/{self.model}{middle}/infer", json=body, **options)

    def infer_binary(self, head: bytes, tail: bytes) -> httpx.Response:
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        return self.client.post(f"/v2/models/{self.model}/infer", content=head + tail, headers=headers)

    @property
    def metadata(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/v2/models/{self.model}").json()
        return found

    def offers(self, extension: str) -> bool:
        return extension in self.get("/v2").json()["extensions"]

    def values(self) -> dict[str, np.ndarray[Any, Any]]:
        """A made-up value for each input: zeros, and empty texts; free lengths are 1."""
        found: dict[str, Any] = {}
        for spec in self.metadata["inputs"]:
            shape = [1 if int(length) < 0 else int(length) for length in spec["shape"]]
            found[spec["name"]] = (
                np.full(shape, "", object) if spec["datatype"] == "BYTES" else np.zeros(shape, DTYPES[spec["datatype"]])
            )
        return found

    def inputs(self) -> list[dict[str, Any]]:
        """The same as the inputs of a JSON request, flat."""
        datatypes = {spec["name"]: spec["datatype"] for spec in self.metadata["inputs"]}
        return [
            {"name": name, "datatype": datatypes[name], "shape": list(array.shape), "data": array.ravel().tolist()}
            for name, array in self.values().items()
        ]


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    url = os.environ.get("OIP_URL")
    if url is not None:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            yield Target(client, os.environ["OIP_MODEL"], os.environ.get("OIP_GRPC"))
        return
    from tests import scoring_models
    from tests.oip_models import put_models
    from tests.scoring_server import ScoringServer

    folder = tmp_path_factory.mktemp("oip")
    root = put_models(folder / "repository", iris=scoring_models.iris())
    arguments = ("--model-repository", root, "--model-control", "explicit", "--grpc-port", "0")
    with (
        ScoringServer(folder / "s", *arguments) as server,
        httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client,
    ):
        yield Target(client, "iris", str(server.ready["grpc_address"]))
