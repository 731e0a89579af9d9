"""Exit with 0 if the service answers GET /health, else say why and exit with 1; needs nothing but Python.

python healthcheck.py [http://127.0.0.1:8000/health]
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

SECONDS = 3


def main() -> int:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/health"
    # The service is on this machine: a proxy that the environment names has no part in it.
    without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with without_proxy.open(url, timeout=SECONDS) as answer:
            answer.read()
    except (OSError, urllib.error.URLError) as error:
        print(f"{url} does not answer: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
