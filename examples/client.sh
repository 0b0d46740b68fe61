#!/bin/sh
# Scores images with curl: examples/client.sh HOST:PORT MODEL REQUEST.json
# The answer is JSON, with all scores in one row.
set -eu
exec curl --silent --show-error --fail-with-body --header 'Content-Type: application/json' \
    --data-binary "@$3" "http://$1/v2/models/$2/infer"
