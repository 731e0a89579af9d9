#!/bin/sh
# Reads the API key from the file that LIGHTFT_API_KEY_FILE names, a secret that Docker mounts, and becomes the command it
# is given: a key in a file is seen neither by `docker inspect` nor in the list of processes.
set -eu
if [ -n "${LIGHTFT_API_KEY_FILE:-}" ]; then
    LIGHTFT_API_KEY=$(cat "$LIGHTFT_API_KEY_FILE")
    if [ -z "$LIGHTFT_API_KEY" ]; then
        echo "$LIGHTFT_API_KEY_FILE is empty. Write the API key into it, for example: openssl rand -hex 32" >&2
        exit 1
    fi
    export LIGHTFT_API_KEY
fi
exec "$@"
