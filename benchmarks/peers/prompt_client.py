"""A client of one connection that asks every ten milliseconds, and prints a JSON list of [status, seconds].

The programs that send twenty times of what a service can compute keep their core so busy that they see its answers late.
This one is run beside them at a higher priority.
"""

from __future__ import annotations

import http.client
import json
import sys
import time


def main() -> None:
    port, seconds, text = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    body = json.dumps({"text": text})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    seen: list[tuple[int, float]] = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        started = time.perf_counter()
        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        reply.read()
        seen.append((reply.status, time.perf_counter() - started))
        time.sleep(0.01)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
