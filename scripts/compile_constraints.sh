#!/usr/bin/env bash
# Renews constraints.txt: one version of every package that any extra needs, for each Python and platform that we name.
set -euo pipefail
cd "$(dirname "$0")/.."

resolved=$(mktemp)
trap 'rm -f "$resolved"' EXIT
.venv/bin/uv --quiet pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
  --no-header --no-annotate --no-emit-index-url --output-file "$resolved"
{
  echo "# The versions that Hedgerow is built and tested with, for every extra. Renew with: make constraints"
  grep -v '^hedgerow' "$resolved"
} >constraints.txt
echo "constraints.txt: $(grep -c '==' constraints.txt) packages"
