#!/usr/bin/env bash
# run.sh DIR [SCRIPT...]: runs every test program under DIR, then the scripts, and sums what they report. Last line:
# `N passed, N failed`.
set -u
dir=${1:-build/tests}
shift
passed=0 failed=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1

count() {  # status, name: adds the gtest figures in $out; a program that died before its summary is one failure
  local p f
  p=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$out" | tail -n 1)
  f=$(sed -n 's/^ *\([0-9]*\) FAILED TEST.*/\1/p' "$out" | tail -n 1)
  passed=$((passed + ${p:-0}))
  failed=$((failed + ${f:-0}))
  if [ "$1" -ne 0 ] && [ "${f:-0}" -eq 0 ]; then
    failed=$((failed + 1))
    tail -n 25 "$out"
  fi
  [ "$1" -ne 0 ] && grep -E '^\[  FAILED  \]|Failure' -A 12 "$out" | head -n 120
  printf '%-24s %4d passed, %d failed, %3d s\n' "$2" "${p:-0}" "${f:-0}" "$SECONDS"
}

for t in "$dir"/*; do
  [ -f "$t" ] && [ -x "$t" ] || continue
  SECONDS=0
  "$t" --gtest_brief=0 >"$out" 2>&1
  count $? "$(basename "$t")"
done
for t in "$dir"/mpi/*; do
  [ -f "$t" ] && [ -x "$t" ] || continue
  # Each MPI test names the rank counts it wants: PROGRAM --ranks prints them.
  for n in $("$t" --ranks); do
    SECONDS=0
    timeout 600 mpirun --oversubscribe -n "$n" "$t" >"$out" 2>&1
    count $? "mpi/$(basename "$t") -n $n"
  done
done
for script in "$@"; do
  SECONDS=0
  "$script" >"$out" 2>&1
  read -r p f < <(sed -n '$s/\([0-9]*\) passed, \([0-9]*\) failed/\1 \2/p' "$out")
  passed=$((passed + ${p:-0})) failed=$((failed + ${f:-1}))
  grep -A 20 FAILED "$out"
  printf '%-24s %4d passed, %d failed, %3d s\n' "$(basename "$script")" "${p:-0}" "${f:-1}" "$SECONDS"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
