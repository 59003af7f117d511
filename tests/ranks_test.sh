#!/usr/bin/env bash
# tools/ranks.sh on machines that this one is not: stand-ins answer for nproc, lscpu and the container's quota.
set -u
cd "$(dirname "$0")/.."
dir=$(mktemp -d) passed=0 failed=0
trap 'rm -rf "$dir"' EXIT
# shellcheck disable=SC2016
printf '#!/bin/sh\necho "$AFFINITY"\n' >"$dir/nproc"
# shellcheck disable=SC2016  # two threads a core, as lscpu -p lists them
printf '#!/bin/sh\nfor i in $(seq "$PHYSICAL"); do printf "# a comment\\n%%s,0\\n%%s,0\\n" "$i" "$i"; done\n' >"$dir/lscpu"
chmod +x "$dir/nproc" "$dir/lscpu"

expect() {  # ranks, affinity, physical cores, quota
  local got
  rm -f "$dir/cpu.max"
  [ "$4" = none ] || echo "$4" >"$dir/cpu.max"
  got=$(AFFINITY=$2 PHYSICAL=$3 CGROUP=$dir PATH=$dir:$PATH tools/ranks.sh 2>&1)
  if [ "$got" = "$1" ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: expected $1 ranks on affinity $2, $3 physical cores, quota $4; found $got"
  fi
}
expect 2 1 1 none                  # the language model and its encoder, also on one core
expect 2 2 2 none
expect 3 3 4 none
expect 8 16 8 none                 # not one a hardware thread
expect 4 4 64 none                 # taskset -c 0-3
expect 16 128 64 none
expect 8 8 0 none                  # lscpu says nothing
expect 2 64 64 '150000 100000'     # docker --cpus=1.5
expect 6 64 64 '600000 100000'
expect 8 8 8 'max 100000'
expect 2 8 8 '10000 100000'
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
