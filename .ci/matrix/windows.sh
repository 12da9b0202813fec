# Windows programs on this machine: MinGW and Zig make them, Wine runs them; sourced after .ci/lib.sh.
# shellcheck shell=bash

# The test files that Wine 8 does not carry. .ci/matrix/windows-executors runs them by a newer one.
# shellcheck disable=SC2034 # for the scripts that source this file
newer_wine='executors joblib_backend joblib_deaths joblib_learn joblib_options joblib_results libraries torch_collate torch_loader
  torch_tensors zarr'

# Wine says nothing and starts no debugger. By KMP_AFFINITY torch's OpenMP library does not call what Wine has not.
wine_settings=(WINEARCH=win64 WINEDEBUG=-all 'WINEDLLOVERRIDES=mscoree,mshtml,winedbg.exe=' KMP_AFFINITY=disabled)

# How Python runs the tests.
# shellcheck disable=SC2034 # for the scripts that source this file
run_tests=(-m pytest -q -p no:cacheprovider -o timeout_method=thread --timeout 300 -m 'not slow')

# wine_make FOLDER: a system of its own for Wine.
wine_make() {
  packages wine wine64 || return
  export WINEPREFIX=$1 "${wine_settings[@]}"
  [ -d "$1/drive_c/windows" ] || { wine wineboot -i >/dev/null 2>&1 && wine_wait; }
}

# wine_wait: until the last program of that system has gone.
wine_wait() { wineserver -w 2>/dev/null || true; }

# wine_drop: the system's server ends, too.
wine_drop() { [ -z "${WINEPREFIX:-}" ] || wineserver -k 2>/dev/null || true; }

# for_windows FOLDER PIP-ARGUMENT...: packages for that Python, put into a folder.
for_windows() {
  pip install --quiet --target "$1" --platform win_amd64 --python-version 3.13 --only-binary=:all: "${@:2}"
}

# cross_file FILE C C++ AR [LINK-ARGUMENT...]: how meson builds for Windows with these compilers. Words of a compiler
# are separated by blanks.
cross_file() {
  local file=$1 c=$2 cpp=$3 ar=$4
  shift 4
  python3 - "$c" "$cpp" "$ar" "$@" >"$file" <<'END_OF_PYTHON'
import sys
c, cpp, ar, *link = sys.argv[1:]
print(f"""[binaries]
c = {c.split()}
cpp = {cpp.split()}
ar = {ar.split()}
exe_wrapper = 'wine'
[host_machine]
system = 'windows'
cpu_family = 'x86_64'
cpu = 'x86_64'
endian = 'little'
[properties]
skip_sanity_check = true
[built-in options]
c_link_args = {link}
cpp_link_args = {link}""")
END_OF_PYTHON
}
