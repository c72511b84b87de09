"""A module that plays a sensor: measures, has the reading scored on the device, and hands the result over as telemetry.

Standard library only. The answer 200 or 201 to the telemetry POST comes when the device's disk has the message; until then the
same message is sent again under the same id.
"""

from __future__ import annotations

import json
import os
import random
import time
import urllib.error
import urllib.request
import uuid


def post(url: str, body: object, headers: dict[str, str]) -> object:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.loads(answer.read() or b"null")


def deliver(message: object) -> None:
    headers = {
        "authorization": f"Bearer {os.environ['HEDGEROW_TELEMETRY_TOKEN']}",
        "idempotency-key": str(uuid.uuid4()),
    }
    while True:
        try:
            post(os.environ["HEDGEROW_TELEMETRY_URL"], message, headers)
            return
        except urllib.error.HTTPError as problem:
            print(f"the agent answered {problem.code}: {problem.read().decode(errors='replace')}", flush=True)
            if problem.code in (400, 413):
                return  # this message will never be taken
        except OSError as problem:
            print(f"the agent does not answer yet: {problem}", flush=True)
        time.sleep(1)


def main() -> None:
    while True:
        reading = [random.uniform(4, 8), random.uniform(2, 4.5), random.uniform(1, 7), random.uniform(0.1, 2.5)]
        try:
            score = post(os.environ["SCORER"], {"data": [reading]}, {})
        except OSError as problem:
            print(f"the scorer does not answer yet: {problem}", flush=True)
        else:
            deliver({"reading": reading, "score": score})
        time.sleep(1)


if __name__ == "__main__":
    main()
