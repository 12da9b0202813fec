# Functions that .ci/run and .ci/matrix/* share; sourced by bash, with the repository root as $PWD.
# shellcheck shell=bash

results=() failures=0

# step NAME COMMAND...: runs a step, in a subshell, whatever became of those before it, and notes how it
# went. Functions that are steps end with the status they mean: `set -e` has no effect in them.
step() {
  local name=$1 begin=$SECONDS status
  shift
  printf '\n=== %s\n' "$name"
  if ("$@") </dev/null; then status=ok; else status=FAILED; failures=$((failures + 1)); fi
  results+=("$(printf '%-7s %5d s  %s' "$status" $((SECONDS - begin)) "$name")")
  printf -- '--- %s: %s\n' "$name" "$status"
}

# beside NAME COMMAND...: a step that runs while the next ones do; `wait_for_those_beside` says how it went.
# Several of them run one after the other, so that two processors have two things to do at any time.
# Its tests have to run `apart` from those of the others, since they count what is there: without the right
# to make namespaces it is a step like others.
beside() {
  local name=$1 number=${#names_beside[@]}
  shift
  if ! can_be_beside; then step "$name" "$@"; return; fi
  set -m # a process group, which can be killed as one
  (
    while [ "$number" -gt 0 ] && [ ! -e "${work:?}/beside-$((number - 1))" ]; do sleep 1; done
    SECONDS=0
    if ("$@") </dev/null; then status=ok; else status=FAILED; fi
    printf '%s %s\n' "$status" "$SECONDS" >"${work:?}/beside-$number"
  ) >"${work:?}/beside-$number.log" 2>&1 &
  set +m
  names_beside+=("$name")
}
names_beside=()

can_be_beside() { [ "$(id -u)" = 0 ] && unshare --mount --ipc true 2>/dev/null; }

# apart COMMAND...: with System V segments and a /dev/shm of its own, where namespaces can be had.
apart() {
  if ! can_be_beside; then "$@"; return; fi
  # shellcheck disable=SC2016
  unshare --mount --ipc bash -c 'mount -t tmpfs tmpfs /dev/shm && exec "$@"' apart "$@"
}

wait_for_those_beside() {
  local number status seconds
  wait
  for number in "${!names_beside[@]}"; do
    status=FAILED seconds=0
    read -r status seconds <"$work/beside-$number"
    printf '\n=== %s\n' "${names_beside[number]}"
    cat "$work/beside-$number.log"
    printf -- '--- %s: %s\n' "${names_beside[number]}" "$status"
    if [ "$status" != ok ]; then failures=$((failures + 1)); fi
    results+=("$(printf '%-7s %5d s  %s, beside others' "$status" "$seconds" "${names_beside[number]}")")
  done
}

stop_those_beside() {
  local group
  for group in $(jobs -p); do kill -- "-$group" 2>/dev/null; done
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
  "${wrapper[@]}" meson test -C "$build" --no-rebuild --print-errorlogs --timeout-multiplier 4 \
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
