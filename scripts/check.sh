#!/usr/bin/env bash
# Lint, formatting, types and import direction of the whole tree. Runs all of them, then says which failed.
set -uo pipefail
cd "$(dirname "$0")/.."

failed=()
step() {
  local name=$1
  shift
  local said
  if said=$("$@" 2>&1); then
    echo "ok      $name"
  else
    echo "FAILED  $name"
    echo "$said"
    failed+=("$name")
  fi
}

step "ruff check" .venv/bin/ruff check --quiet .
step "ruff format" .venv/bin/ruff format --quiet --check .
step "mypy" .venv/bin/mypy --no-error-summary hedgerow registry packager runtime edge_agent scripts tests loadtests
step "imports" .venv/bin/lint-imports --no-cache

if [ "${#failed[@]}" -gt 0 ]; then
  echo "check: failed: ${failed[*]}"
  exit 1
fi
