#!/usr/bin/env bash
# Every test except soak; arguments go to pytest. First those that can share the machine, several at a time, then, one by
# one, those that measure it or change it (marked alone). Both always run; the worse end is the end.
set -uo pipefail
cd "$(dirname "$0")/.."

# Most tests wait for processes half of their time: one more at a time than there are cores keeps these busy.
at_a_time=$(($(nproc) + 1))
nothing_collected=5
# Every process reads every test; where nothing compiled may be kept, each would spend ten seconds on compiling them again.
unset PYTHONDONTWRITEBYTECODE

.venv/bin/pytest tests -q -m "not soak and not alone" -n "$at_a_time" --dist worksteal --durations=10 "$@"
together=$?
# Stopped by somebody (2), or never begun (3, 4): the rest is not wanted.
case "$together" in 2 | 3 | 4) exit "$together" ;; esac

.venv/bin/pytest tests -q -m "alone and not soak" --durations=10 "$@"
alone=$?

# A selection (ARGS="-k mosquitto") may leave one of the two without tests, but not both.
if [ "$together" -eq "$nothing_collected" ]; then exit "$alone"; fi
if [ "$alone" -eq "$nothing_collected" ]; then exit "$together"; fi
exit $((together > alone ? together : alone))
