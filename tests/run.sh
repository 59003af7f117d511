#!/usr/bin/env bash
# run.sh DIR [SCRIPT...]: runs every test program under DIR, then the scripts, and sums what they report. Last line:
# `N passed, N failed`.
set -u
dir=${1:-build/tests}
shift
passed=0 failed=0
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 out

# NAME COMMAND...: runs it, and leaves $out/NAME with what it says and $out/NAME.end with its status and seconds.
run() {
  local name=$1
  shift
  SECONDS=0
  "$@" >"$out/$name" 2>&1
  echo "$? $SECONDS" >"$out/$name.part" && mv "$out/$name.part" "$out/$name.end"
}
export -f run

# NAME TITLE: adds gtest's figures, once NAME has ended; a program that died before its summary is one failure, and so
# is one that whoever starts them all did not live to start.
count() {
  local log=$out/$1 status seconds p f
  until [ -e "$log.end" ]; do
    kill -0 "${starter:-$$}" 2>/dev/null || [ -e "$log.end" ] || echo "1 0" >"$log.end"
    sleep 0.1
  done
  [ -e "$log" ] || echo "not run" >"$log"
  read -r status seconds <"$log.end"
  p=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | tail -n 1)
  f=$(sed -n 's/^ *\([0-9]*\) FAILED TEST.*/\1/p' "$log" | tail -n 1)
  passed=$((passed + ${p:-0}))
  failed=$((failed + ${f:-0}))
  if [ "$status" -ne 0 ] && [ "${f:-0}" -eq 0 ]; then
    failed=$((failed + 1))
    tail -n 25 "$log"
  fi
  [ "$status" -ne 0 ] && grep -E '^\[  FAILED  \]|Failure' -A 12 "$log" | head -n 120
  printf '%-24s %4d passed, %d failed, %3d s\n' "$2" "${p:-0}" "${f:-0}" "$seconds"
}

# Scripts wait most of their time: beside all else, from the start.
for script in "$@"; do run "$(basename "$script")" "$script" & done

# One a core at a time, the longest first; those that start ranks have all cores, afterwards.
apart=()
together=()
for t in "$dir"/*; do
  [ -f "$t" ] && [ -x "$t" ] || continue
  case ${t##*/} in
    tools) apart+=("$t") ;;
    simt) together=("$t" "${together[@]}") ;;
    *) together+=("$t") ;;
  esac
done
[ ${#together[@]} -gt 0 ] && printf '%s\n' "${together[@]}" |
  xargs -P "$(nproc)" -I{} bash -c 'run "$(basename {})" {}' &
starter=$!
for t in "${together[@]}"; do count "${t##*/}" "${t##*/}"; done
wait "$starter"
unset starter
for t in "${apart[@]}"; do
  run "${t##*/}" "$t"
  count "${t##*/}" "${t##*/}"
done
for t in "$dir"/mpi/*; do
  [ -f "$t" ] && [ -x "$t" ] || continue
  # Each MPI test names the rank counts it wants: PROGRAM --ranks prints them.
  for n in $("$t" --ranks); do
    name=mpi-$(basename "$t")-$n
    run "$name" timeout 600 mpirun --oversubscribe -n "$n" "$t"
    count "$name" "mpi/$(basename "$t") -n $n"
  done
done
for script in "$@"; do
  name=$(basename "$script")
  until [ -e "$out/$name.end" ]; do sleep 0.1; done
  read -r status seconds <"$out/$name.end"
  read -r p f < <(sed -n '$s/\([0-9]*\) passed, \([0-9]*\) failed/\1 \2/p' "$out/$name")
  [ "$status" -ne 0 ] && [ "${f:-0}" -eq 0 ] && f=1
  passed=$((passed + ${p:-0})) failed=$((failed + ${f:-1}))
  [ "${f:-1}" -ne 0 ] && { grep -A 20 FAILED "$out/$name" || tail -n 25 "$out/$name"; }
  printf '%-24s %4d passed, %d failed, %3d s\n' "$name" "${p:-0}" "${f:-1}" "$seconds"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
