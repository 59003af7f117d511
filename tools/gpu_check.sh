#!/usr/bin/env bash
# Checks and measures everything on this machine's GPU, in a checkout (`make gpu-check` builds first) or in an unpacked bundle:
#
#   gpu_check.sh [--probe] [tests] [nccl] [sanitizer] [train] [bench]      all five unless some are named
#
# Nothing is fetched and no setting of the GPU is changed. A check that fails does not keep the others from running; what each
# prints is in the folder $OUT (default gpu-check/), with a page GPU.md of results, in a checkout also in benchmarks/. No check
# takes longer than $LIMIT seconds, if that is set. Last line: `N passed, N failed`; status 1 if any failed, 2 without a GPU or
# where the question is wrong (--probe: only whether there is a GPU).
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/local/nvidia/bin:/usr/local/cuda/bin

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
if [ -z "$gpu" ]; then
  echo "gpu-check: no GPU: nvidia-smi $(type -P nvidia-smi >/dev/null && echo 'finds none' || echo 'is not there')"
  exit 2
fi
[ "${1:-}" != --probe ] || exit 0
[ $# -gt 0 ] || set -- tests nccl sanitizer train bench

out=${OUT:-gpu-check}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
if [ -f "$here/env.sh" ]; then  # a bundle
  root=$here programs=("$here/bin" "$here/gpu")
  # shellcheck source=bundle_env.sh
  . "$here/env.sh" || exit 1
  cd "$here/share" || exit 1
else
  root=$(dirname "$here")
  programs=("$root" "$root/build/gpu")
  cd "$root" || exit 1
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1

program() {  # the path of program NAME
  local folder
  for folder in "${programs[@]}"; do
    if [ -x "$folder/$1" ]; then echo "$folder/$1" && return; fi
  done
  type -P "$1" || echo "$1"
}

# Where NVIDIA's libraries are, for the programs, which load them by name: the CUDA toolkit's, then those of Python's packages.
if [ -z "${MIMO_CUDA_LIBRARIES:-}" ]; then
  folders=("${CUDA_HOME:-/usr/local/cuda}/lib64")
  while read -r packages; do
    folders+=("$packages"/nvidia/*/lib)
  done < <(python3 -c 'import site; print(*site.getsitepackages(), site.getusersitepackages(), sep="\n")' 2>/dev/null)
  for folder in "${folders[@]}"; do
    for library in cublasLt nccl cudnn nvrtc; do
      compgen -G "$folder/lib$library.so*" >/dev/null && MIMO_CUDA_LIBRARIES+=${MIMO_CUDA_LIBRARIES:+:}$folder && break
    done
  done
  export MIMO_CUDA_LIBRARIES=${MIMO_CUDA_LIBRARIES:-}
fi
# The driver's, where a container mounts it beside the loader's paths.
if [ -e /usr/local/nvidia/lib64/libcuda.so.1 ] && ! ldconfig -p 2>/dev/null | grep libcuda.so.1 >/dev/null; then
  export LD_LIBRARY_PATH=/usr/local/nvidia/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi

passed=0 failed=0 skipped=0
results=$out/results.txt  # a line a check
: >"$results"
say() {  # passed, FAILED or skipped; check; seconds; remark
  printf '%-8s %-58s %5s s  %s\n' "$@" | sed 's/ *$//' | tee -a "$results"
}
log_of() { echo "$out/$(tr -cs 'A-Za-z0-9\n' '-' <<<"$1").log"; }

check() {  # NAME SECONDS COMMAND...: within so many seconds; its output goes to the log of that name
  local name=$1 start=$SECONDS log status
  log=$(log_of "$1")
  limit=$(printf '%s\n' "$2" "${LIMIT:-$2}" | sort -n | head -n 1)
  shift 2
  case $(type -t "$1") in
    '') status=127 && echo "$1: not built or not installed" >"$log" ;;
    function) "$@" >"$log" 2>&1 && status=0 || status=$? ;;  # obeys $limit
    *) timeout -k 10 "$limit" "$@" >"$log" 2>&1 && status=0 || status=$? ;;
  esac
  if [ "$status" = 0 ]; then
    passed=$((passed + 1))
    say passed "$name" $((SECONDS - start)) "$(grep -E '^\[  PASSED  \]|^remark: ' "$log" | tail -n 1 | sed 's/.*\] //; s/^remark: //')"
  elif [ "$status" = 77 ]; then  # a sanitizer that does not work here
    skipped=$((skipped + 1))
    say skipped "$name" $((SECONDS - start)) "$(grep '^remark: ' "$log" | tail -n 1 | cut -c 9-)"
  else
    failed=$((failed + 1))
    case $status in 124 | 137) status="$status: stopped after $limit s" ;; esac
    say FAILED "$name" $((SECONDS - start)) "(status $status)"
    grep -E '^\[  FAILED  \] .*\.|: Failure' "$log" | head -n 20 | sed 's/^/    /'
    tail -n 15 "$log" | sed 's/^/    | /'
  fi
  [ "${status%%:*}" = 0 ]
}

# --- what there is

machine() {
  local name memory
  name=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
  memory=$(awk '/MemTotal/ {printf "%.0f GB", $2 / 1e6}' /proc/meminfo)
  echo "date      $(date -u '+%Y-%m-%d %H:%M UTC')"
  echo "machine   $name, $(nproc) cores, $memory, $(uname -sr)"
  nvidia-smi --query-gpu=name,memory.total,driver_version,compute_cap,clocks.max.sm,power.limit,ecc.mode.current \
    --format=csv,noheader 2>/dev/null | sed 's/^/GPU       /; s/$/ (memory, driver, compute capability, clock, power, ECC)/'
  echo "libraries ${MIMO_CUDA_LIBRARIES:-those the loader finds}"
}

# --- compute-sanitizer, where it is installed and may look into a process

sanitize() {  # TOOL PROGRAM...
  local tool=$1 status found
  shift
  [ -x "$1" ] || { echo "$1: not built"; return 127; }
  if ! type -P compute-sanitizer; then
    echo "remark: compute-sanitizer is not installed"
    return 77
  fi
  timeout -k 10 "$limit" compute-sanitizer --tool "$tool" --error-exitcode 99 "$@" >"$out/sanitizer" 2>&1
  status=$?
  cat "$out/sanitizer"
  found=$(grep -o 'SUMMARY: .*' "$out/sanitizer" | tail -n 1)
  echo "remark: ${found#SUMMARY: }"
  if [ -z "$found" ] && ! [[ $status =~ ^(124|137)$ ]]; then
    echo "remark: does not work here: $(sed -n 's/^========= *\(.*[Ee]rror.*\)/\1/p' "$out/sanitizer" | head -n 1)"
    status=77
  fi
  rm "$out/sanitizer"
  return "$status"
}

# --- training: the same run on GPU and CPU

trained() {  # RUN RANKS OPTION...: 100 steps of the digits in $out/runs/RUN
  local run=$out/runs/$1 start=()
  [ "$2" = 1 ] || start=("$(program mpirun)" -n "$2")
  shift 2
  rm -rf "$run"
  timeout -k 10 "$limit" "${start[@]}" "$(program mimo)" --config=tools/configs/digits.toml --train.steps=100 --eval.every=0 \
    --eval.samples=20 --checkpoint.every=0 --run.dir="$run" "$@" && echo "remark: $(speed "$run")"
}
speed() { sed -n 's/^ *"tokens_per_second": *\([0-9]*\).*/\1 tokens\/s/p' "$1/summary.json"; }
losses() { sed -n 's/.*"loss":\([-+.0-9eE]*\),.*/\1/p' "$out/runs/$1/metrics.jsonl"; }

# agrees RUN REFERENCE FIRST LAST: no loss of the first ten steps differs by more than FIRST, nor the mean of the last ten by
# more than LAST. On CPUs other layouts, which sum in other orders, change f32 losses by 1e-7 in ten steps and 2e-6 in a hundred,
# bf16 ones by 1.4e-3 and (the mean of the last ten) 2e-4; bf16 itself differs from f32 by 3e-2 and 7e-3.
agrees() {
  paste <(losses "$1") <(losses "$2") | awk -v first="$3" -v last="$4" -v speed="$(speed "$out/runs/$1")" '
    function abs(x) { return x < 0 ? -x : x }
    NF != 2 || $1 != $1 + 0 || $2 != $2 + 0 { bad = 1 }
    NR <= 10 && abs($1 - $2) > early { early = abs($1 - $2) }
    NR > 90 { a += $1 / 10; b += $2 / 10 }
    END {
      printf "remark: loss %.4f, CPU %.4f; differ by at most %.1e in ten steps (%g allowed), %.1e at the end (%g); %s\n", \
        a, b, early, first, abs(a - b), last, speed
      exit !(NR == 100 && !bad && early <= first && abs(a - b) <= last)
    }'
}
compared() {  # RUN REFERENCE FIRST LAST RANKS OPTION...
  local run=$1 reference=$2 first=$3 last=$4
  shift 4
  trained "$run" "$@" && agrees "$run" "$reference" "$first" "$last"
}

# --- what is written

report() {  # FILE
  {
    echo "# $gpu, $(date -u +%Y-%m-%d)"
    echo
    echo '```'
    machine
    echo '```'
    echo
    echo "\`mimo-bench --device=cuda\`, run by \`gpu_check.sh $2\`:"
    echo
    echo '```'
    cat "$(log_of 'mimo-bench --device=cuda')"
    echo '```'
    echo
    echo "Checks of the same run:"
    echo
    echo '```'
    cat "$results"
    echo '```'
  } >"$1"
}

machine | tee "$out/machine.txt"
for section in "$@"; do
  case $section in
    tests) check "kernels against the CPU's" 1200 "$(program tests)" ;;
    nccl)
      for ranks in 2 4; do
        MIMO_NCCL_SHARE_GPU=1 check "NCCL, $ranks ranks on one GPU" 300 "$(program mpirun)" -n "$ranks" "$(program nccl_test)"
      done
      ;;
    sanitizer)
      for tool in memcheck racecheck synccheck; do
        check "compute-sanitizer $tool" 900 sanitize "$tool" "$(program tests)"
      done
      ;;
    train)
      check "f32 trains on the CPU" 300 trained cpu-f32 1 --device=cpu
      check "bf16 trains on the CPU" 300 trained cpu-bf16 1 --device=cpu --train.dtype=bf16
      check "f32 on the GPU: losses of the CPU" 300 compared gpu-f32 cpu-f32 1e-4 1e-3 1 --device=cuda
      check "bf16 on the GPU: losses of the CPU" 300 compared gpu-bf16 cpu-bf16 1e-2 2e-2 1 --device=cuda --train.dtype=bf16
      MIMO_NCCL_SHARE_GPU=1 check "2 ranks on one GPU, over NCCL" 300 compared gpu-2-nccl cpu-f32 1e-4 1e-3 2 --device=cuda
      check "2 ranks on one GPU" 300 compared gpu-2 cpu-f32 1e-4 1e-3 2 --device=cuda
      check "4 ranks on one GPU" 300 compared gpu-4 cpu-f32 1e-4 1e-3 4 --device=cuda
      check "4 ranks on one GPU, tensor and pipeline parallel" 300 compared gpu-4-cut cpu-f32 1e-4 1e-3 4 --device=cuda \
        --layout.vision=dp4@0 --layout.language=tp2,pp2@0
      ;;
    bench)
      check "mimo-bench --device=cuda" 1200 "$(program mimo-bench)" --device=cuda && measured=1
      ;;
    *)
      echo "gpu-check: no section '$section': expected tests, nccl, sanitizer, train or bench" >&2
      exit 2
      ;;
  esac
done

if [[ " $* " == *" bench "* ]]; then
  file=$(tr '[:upper:]' '[:lower:]' <<<"$gpu" | tr -cs 'a-z0-9\n' '-').md
  report "$out/$file" "$*"
  [ -z "${measured:-}" ] || [ ! -d "$root/benchmarks" ] || cp "$out/$file" "$root/benchmarks"
fi
[ "$skipped" = 0 ] || echo "$skipped skipped"
echo "logs in $out"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
