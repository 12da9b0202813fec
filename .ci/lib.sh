# Functions that .ci/run and .ci/matrix/* share; sourced by bash, with the repository root as $PWD.
# shellcheck shell=bash

results=() failures=0

# step NAME COMMAND...: runs a step, whatever became of those before it, and notes how it went.
step() {
  run_step "$@"
  note_step "$step_status" "$step_seconds" "$1"
}

# Runs it in a subshell. Functions that are steps end with the status they mean: `set -e` has no effect in them.
run_step() {
  local name=$1 begin=$SECONDS
  shift
  printf '\n=== %s\n' "$name"
  if ("$@") </dev/null; then step_status=ok; else step_status=FAILED; fi
  step_seconds=$((SECONDS - begin))
  printf -- '--- %s: %s\n' "$name" "$step_status"
}

note_step() {
  if [ "$1" != ok ]; then failures=$((failures + 1)); fi
  results+=("$(printf '%-7s %5d s  %s' "$@")")
}

# queue_step NAME FUNCTION: a step for `run_queued_steps`, which runs two of them at a time: each of two lanes takes the
# first that is left, so that two processors are busy to the end if the long ones come first. Steps that count segments
# have to run `apart` from those of the other lane; without the right to make namespaces there is one lane.
queue_step() { queued_names+=("$1") queued_functions+=("$2"); }
queued_names=() queued_functions=()

run_queued_steps() {
  local number status seconds
  if can_be_apart; then
    set -m # a process group, which can be killed as one
    lane in_log &
    set +m
  fi
  lane to_terminal
  wait
  for number in "${!queued_names[@]}"; do
    if [ -f "$work/step-$number.log" ]; then cat "$work/step-$number.log"; fi
    status=FAILED seconds=0
    read -r status seconds <"$work/step-$number.result"
    note_step "$status" "$seconds" "${queued_names[number]}"
  done
}

lane() {
  local number
  for number in "${!queued_names[@]}"; do
    mkdir "${work:?}/step-$number" 2>/dev/null || continue # the other lane has taken it
    "$1" "$number" run_step "${queued_names[number]}" "${queued_functions[number]}"
    printf '%s %s\n' "$step_status" "$step_seconds" >"$work/step-$number.result"
  done
}
to_terminal() { shift; "$@"; }
in_log() { local number=$1; shift; "$@" >"$work/step-$number.log" 2>&1; }

stop_queued_steps() {
  local group
  for group in $(jobs -p); do kill -- "-$group" 2>/dev/null; done
}

can_be_apart() { [ "$(id -u)" = 0 ] && unshare --mount --ipc true 2>/dev/null; }

# apart COMMAND...: a program with System V segments and a /dev/shm of its own, where namespaces can be had.
apart() {
  if ! can_be_apart; then "$@"; return; fi
  # shellcheck disable=SC2016
  unshare --mount --ipc bash -c 'mount -t tmpfs tmpfs /dev/shm && exec "$@"' apart "$@"
}

# passed_over NAME WHY: a step that this machine cannot do is said, not forgotten.
passed_over() {
  printf '\n=== %s\nnot done: %s\n' "$1" "$2"
  results+=("$(printf '%-7s %5s    %s: %s' 'no' - "$1" "$2")")
}

# summary: what was done, and how long it took; its status is that of the whole run.
summary() {
  printf '\n=== summary\n'
  printf '%s\n' "${results[@]}"
  printf 'total %d s\n' "$SECONDS"
  printf 'steps: %d passed, %d failed\n' $((${#results[@]} - failures)) "$failures"
  [ "$failures" -eq 0 ]
}

# packages NAME...: Debian packages that are not there yet.
packages() {
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return
  local apt_lock
  exec {apt_lock}>"${TMPDIR:-/tmp}/sharedmem-apt.lock" && flock "$apt_lock" # for steps beside others
  if [ -z "${apt_updated:-}" ]; then
    "${as_root[@]}" apt-get update -qq || { exec {apt_lock}>&-; return 1; }
    apt_updated=yes
  fi
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  local status=$?
  exec {apt_lock}>&-
  return "$status"
}
as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo -n); fi

# cpp_suite NAME [MESON OPTION...]: builds cpp/ in $work and runs its tests, behind the command in
# $wrapper if there is one, with the further arguments $test_options; closes with the counts.
wrapper=() test_options=()
cpp_suite() {
  local name=$1 build=${work:?}/cpp-$1 status=0
  shift
  meson setup "$build" cpp -Dtests=enabled "$@" >"$build.log" 2>&1 || { cat "$build.log"; return 1; }
  meson compile -C "$build" >"$build.log" 2>&1 || { cat "$build.log"; return 1; }
  apart "${wrapper[@]}" meson test -C "$build" --no-rebuild --print-errorlogs --timeout-multiplier 4 \
    "${test_options[@]}" || status=$?
  python3 - "$name" "$build/meson-logs/testlog.json" <<'END' || status=$?
import json, sys
results = [json.loads(line)["result"] for line in open(sys.argv[2])]
skipped = results.count("SKIP")
passed = sum(result in ("OK", "EXPECTEDFAIL") for result in results)
failed = len(results) - passed - skipped
print(f"{sys.argv[1]}: {passed} passed, {failed} failed, {skipped} skipped")
sys.exit(failed != 0 or passed == 0)
END
  rm -rf "$build"
  return "$status"
}

# tree_copy FOLDER: the tree as it is, without what git ignores.
tree_copy() {
  mkdir -p "$1" && git ls-files -z --cached --others --exclude-standard \
    | xargs -0 -r cp --parents -t "$1"
}
