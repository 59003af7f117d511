#!/usr/bin/env bash
# ranks.sh: how many ranks the default run gets here: one a core, at least 2, at most 16, which leaves each 4 of a step's
# samples. Cores are the affinity mask's, but no more than there are physical ones or than a container's quota grants.
set -u
least=$(nproc)
at_most() { [ "${1:-0}" -ge 1 ] && [ "$1" -lt "$least" ] && least=$1; }
at_most "$(lscpu -p=core,socket 2>/dev/null | grep -v '^#' | sort -u | wc -l)"
read -r quota period < <(cat "${CGROUP:-/sys/fs/cgroup}/cpu.max" 2>/dev/null)
case ${quota:-max} in max) ;; *) at_most $(((quota + period - 1) / period)) ;; esac
echo $((least < 2 ? 2 : least > 16 ? 16 : least))
