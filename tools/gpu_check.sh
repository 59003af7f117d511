#!/usr/bin/env bash
# Checks and measures everything on this machine's GPU, in a checkout (`make gpu-check` builds first) or in an unpacked bundle:
#
#   gpu_check.sh [--probe] [tests] [nccl] [sanitizer] [train] [bench]      all five unless some are named
#   gpu_check.sh lease         for a machine that is lent for minutes: the most telling first, within $BUDGET seconds (540)
#   gpu_check.sh --reference FOLDER     no GPU: what training gives on the CPU, for the runs on one to be held against
#
# Nothing is fetched and no setting of the GPU is changed. A check that fails or hangs does not keep the others from running; what
# each prints is in the folder $OUT (default gpu-check/), with a page GPU.md that is whole after every check, in a checkout also
# in benchmarks/. `lease` works in a scratch folder and leaves three files in $OUT: results.txt, GPU.md and logs.tgz. No check
# takes longer than $LIMIT seconds, if that is set. Last line: `N passed, N failed`; status 1 if any failed, 2 without a GPU or
# where the question is wrong (--probe: only whether there is a GPU).
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/local/nvidia/bin:/usr/local/cuda/bin
for folder in /opt/nvidia/nsight-compute/*; do PATH=$PATH:$folder; done

gpu=
[ "${1:-}" = --reference ] || gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
if [ -z "$gpu" ] && [ "${1:-}" != --reference ]; then
  echo "gpu-check: no GPU: nvidia-smi $(type -P nvidia-smi >/dev/null && echo 'finds none' || echo 'is not there')"
  exit 2
fi
[ "${1:-}" != --probe ] || exit 0
[ $# -gt 0 ] || set -- tests nccl sanitizer train bench
case " $* " in
  ' --reference '*) [ $# = 2 ] || { echo "gpu-check: --reference: expected a folder" >&2 && exit 2; } ;;
  ' lease ') ;;
  *)
    for section in "$@"; do
      [[ $section =~ ^(tests|nccl|sanitizer|train|bench)$ ]] && continue
      echo "gpu-check: no section '$section': expected tests, nccl, sanitizer, train or bench, or lease alone" >&2
      exit 2
    done
    ;;
esac

out=${OUT:-gpu-check}
[ "$1" != --reference ] || out=$2
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
work=$out budget=
if [ "$1" = lease ] || [ "$1" = --reference ]; then
  work=$(mktemp -d) || exit 1
  trap 'rm -rf "$work"' EXIT
fi
[ "$1" != lease ] || budget=${BUDGET:-540}
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
  type -P "$1" || echo "${programs[0]}/$1"
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

passed=0 failed=0 skipped=0 failures=()
results=$work/results.txt  # a line a check
: >"$results"
say() {  # passed, FAILED or skipped; check; seconds; remark
  printf '%-8s %-58s %5s s  %s\n' "$@" | sed 's/ *$//' | tee -a "$results"
}
log_of() { echo "$work/$(tr -cs 'A-Za-z0-9\n' '-' <<<"$1").log"; }

# --- a check: within its time, or what is left of the budget; nothing of it outlives it

readonly grace=5     # seconds from asking a program to end to ending it
readonly reserve=10  # of the budget, for the end of the last check and the page

sweep() {  # ends every process of the check in hand, wherever mpirun or a profiler put it
  local environment tries
  for tries in {1..9}; do  # until none is left; some begin as they are looked for, and some cannot be ended
    mapfile -t environments < <(grep -lzxsF "MIMO_GPU_CHECK=$MIMO_GPU_CHECK" /proc/[0-9]*/environ)
    [ ${#environments[@]} -gt 0 ] || return 0
    for environment in "${environments[@]}"; do
      environment=${environment#/proc/}
      kill -KILL "${environment%/environ}" 2>/dev/null
    done
    sleep "0.0$tries"
  done
}

attended=0
attend() {  # LOG COMMAND...: its status within $limit seconds; one that cannot even be killed is left behind
  local log=$1 end=$((SECONDS + limit + grace + 3))
  shift
  export MIMO_GPU_CHECK=$$.$((++attended))
  case $(type -t "$1") in
    function) "$@" >"$log" 2>&1 & ;;  # obeys $limit
    *) timeout -k "$grace" "$limit" "$@" >"$log" 2>&1 & ;;
  esac
  process=$!
  while kill -0 "$process" 2>/dev/null && [ "$SECONDS" -lt "$end" ]; do sleep 0.1; done
  sweep
  kill -KILL "$process" 2>/dev/null && return 137
  wait "$process" 2>/dev/null
}

check() {  # NAME SECONDS COMMAND...: its output goes to the log of that name. SECONDS: or `rest`, all that the budget leaves
  local name=$1 start=$SECONDS log status left
  log=$(log_of "$1") left=$((${budget:-99999} - SECONDS - reserve))
  limit=$(printf '%s\n' "${2/rest/$left}" "${LIMIT:-99999}" | sort -n | head -n 1)
  if [ "$limit" -gt "$left" ] || [ "$limit" -lt 1 ]; then
    skipped=$((skipped + 1))
    say skipped "$name" 0 "(it may take ${2/rest/some} s, and $((left > 0 ? left : 0)) are left)"
    publish
    return 1
  fi
  shift 2
  current=$name
  if [ -z "$(type -t "$1")" ]; then
    status=127 && echo "$1: not built or not installed" >"$log"
  else
    attend "$log" "$@" && status=0 || status=$?
  fi
  current=
  if [ "$status" = 0 ]; then
    passed=$((passed + 1))
    say passed "$name" $((SECONDS - start)) "$(grep -E '^\[  PASSED  \]|^remark: ' "$log" | tail -n 1 | sed 's/.*\] //; s/^remark: //')"
  elif [ "$status" = 77 ]; then  # a tool that does not work here
    skipped=$((skipped + 1))
    say skipped "$name" $((SECONDS - start)) "$(grep '^remark: ' "$log" | tail -n 1 | cut -c 9-)"
  else
    failed=$((failed + 1)) failures+=("$name")
    case $status in 124 | 137) status="$status: stopped after $limit s" ;; esac
    say FAILED "$name" $((SECONDS - start)) "(status $status)"
    why "$log" | sed 's/^/    /'
  fi
  publish
  [ "${status%%:*}" = 0 ]
}
why() {  # LOG: of a failure
  grep -E '^\[  FAILED  \] .*\.|: Failure' "$1" | head -n 20
  tail -n 15 "$1" | sed 's/^/| /'
}

current="" process=""
# Cut off from outside: the page says so.
trap 'trap - TERM INT HUP
  if [ -n "$current" ]; then
    kill -KILL "$process" 2>/dev/null
    sweep
    say FAILED "$current" "$SECONDS" "(cut off so many seconds after the start)"
  fi
  publish
  exit 1' TERM INT HUP

# --- what there is

machine() {
  local name memory
  name=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
  memory=$(awk '/MemTotal/ {printf "%.0f GB", $2 / 1e6}' /proc/meminfo)
  echo "date      $(date -u '+%Y-%m-%d %H:%M UTC')"
  echo "machine   $name, $(nproc) cores, $memory, $(uname -sr)"
  timeout 5 nvidia-smi --query-gpu=name,memory.total,driver_version,compute_cap,clocks.max.sm,power.limit,ecc.mode.current \
    --format=csv,noheader 2>/dev/null | sed 's/^/GPU       /; s/$/ (memory, driver, compute capability, clock, power, ECC)/'
  echo "libraries ${MIMO_CUDA_LIBRARIES:-those the loader finds}"
}

# --- NVIDIA's tools, where they are installed and may look into a process

sanitize() {  # TOOL PROGRAM...
  local tool=$1 status found
  shift
  [ -x "$1" ] || { echo "$1: not built"; return 127; }
  if ! type -P compute-sanitizer; then
    echo "remark: compute-sanitizer is not installed"
    return 77
  fi
  timeout -k "$grace" "$limit" compute-sanitizer --tool "$tool" --error-exitcode 99 --print-limit 20 "$@" >"$work/sanitizer" 2>&1
  status=$?
  cat "$work/sanitizer"
  found=$(grep -o 'SUMMARY: .*' "$work/sanitizer" | tail -n 1)
  echo "remark: ${found#SUMMARY: }"
  if [ -z "$found" ] && ! [[ $status =~ ^(124|137)$ ]]; then
    echo "remark: does not work here: $(sed -n 's/^========= *\(.*[Ee]rror.*\)/\1/p' "$work/sanitizer" | head -n 1)"
    status=77
  fi
  rm "$work/sanitizer"
  return "$status"
}

# The second launch of each of the eight heaviest kernels (attention's backward is two: dq, and dk with dv), in the benchmarks of
# their ops at a sequence of a model of 8 thousand million parameters.
counters() {
  local status seen
  if ! type -P ncu; then
    echo "remark: ncu is not installed"
    return 77
  fi
  timeout -k "$grace" "$limit" ncu --clock-control none --filter-mode per-launch-config --launch-skip 1 --launch-count 1 \
    --kernel-name 'regex:^(attention_(for|back)ward|ssd_(output|steps|backward_chunk|backward_group)|causal_conv_backward)$' \
    --section SpeedOfLight --section LaunchStats --section Occupancy --section MemoryWorkloadAnalysis --section WarpStateStats \
    "$(program mimo-bench)" --device=cuda --torch=no --benchmark_repetitions=1 --benchmark_min_time=0.001 \
    --benchmark_filter='^(attention/.*/bf16/causal/1x4096/heads32:8/|(ssd|causal_conv)<bf16>/sequences:1/length:4096/)'
  status=$?
  seen=$(grep -c 'Section: GPU Speed Of Light' "$(log_of "$current")")
  if [ "$seen" = 0 ] && ! [[ $status =~ ^(124|137)$ ]]; then
    echo "remark: does not work here: $(sed -n 's/^==ERROR== *//p' "$(log_of "$current")" | head -n 1)"
    return 77
  fi
  echo "remark: $seen kernels"
  return "$status"
}

# --- training: the same run on GPU and CPU

trained() {  # RUN RANKS OPTION...: 100 steps of the digits in $work/runs/RUN
  local run=$work/runs/$1 start=()
  [ "$2" = 1 ] || start=("$(program mpirun)" -n "$2")
  shift 2
  rm -rf "$run"
  timeout -k "$grace" "$limit" "${start[@]}" "$(program mimo)" --config=tools/configs/digits.toml --train.steps=100 --eval.every=0 \
    --eval.samples=20 --checkpoint.every=0 --run.dir="$run" "$@" && echo "remark: $(speed "$run")"
}
speed() { sed -n 's/^ *"tokens_per_second": *\([0-9]*\).*/\1 tokens\/s/p' "$1/summary.json"; }
losses() { sed -n 's/.*"loss":\([-+.0-9eE]*\),.*/\1/p' "$work/runs/$1/metrics.jsonl"; }

# The runs on the CPU: those that a bundle brings, else made here.
references() {
  local dtype
  for dtype in f32 bf16; do
    if [ -f "$root/share/reference/$dtype.jsonl" ]; then
      mkdir -p "$work/runs/cpu-$dtype"
      cp "$root/share/reference/$dtype.jsonl" "$work/runs/cpu-$dtype/metrics.jsonl"
    else
      check "$dtype trains on the CPU" 60 trained "cpu-$dtype" 1 --device=cpu --train.dtype="$dtype"
    fi
  done
}

# agrees RUN REFERENCE FIRST LAST: no loss of the first ten steps differs by more than FIRST, nor the mean of the last ten by
# more than LAST. On CPUs other layouts, which sum in other orders, change f32 losses by 1e-7 in ten steps and 2e-6 in a hundred,
# bf16 ones by 1.4e-3 and (the mean of the last ten) 2e-4; bf16 itself differs from f32 by 3e-2 and 7e-3.
agrees() {
  paste <(losses "$1") <(losses "$2") | awk -v first="$3" -v last="$4" -v speed="$(speed "$work/runs/$1")" '
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

readonly shown=("mimo-bench step" "mimo-bench" "mimo-bench --check" "ncu")  # checks whose output the page has
readonly accuracy="kernels against the CPU's"                                # and the one whose table begins there
page() {
  local name
  echo "# $gpu, $(date -u +%Y-%m-%d)"
  block "\`gpu_check.sh $sections\`" "$work/machine.txt"
  block "Checks" "$results"
  for name in ${failures[@]+"${failures[@]}"}; do block "FAILED: $name" <(why "$(log_of "$name")"); done
  for name in "${shown[@]}"; do
    [ ! -f "$(log_of "$name")" ] || block "\`$name\`" "$(log_of "$name")"
  done
  [ ! -f "$(log_of "$accuracy")" ] || block "Errors nearest to what is allowed" <(grep -A 20 '^error/allowed' "$(log_of "$accuracy")")
}
block() {  # TITLE FILE
  printf '\n%s:\n\n```\n' "$1"
  cat "$2"
  echo '```'
}
whole() { cat >"$out/.new" && mv -f "$out/.new" "$out/$1"; }  # FILE from stdin, all of it or none
publish() {
  page >"$work/page" && whole GPU.md <"$work/page"
  rm -f "$work/page"
  [ "$work" != "$out" ] || return 0
  whole results.txt <"$results"
  tar -C "$work" --exclude='*.html' -czf - . 2>/dev/null | whole logs.tgz
}

# --- the checks

tests() {  # SECONDS: with as many blocks as there are multiprocessors, and with few, so that every loop goes round
  MIMO_ERRORS=1 check "$accuracy" "$1" "$(program tests)"
  MIMO_TEST_SMS=2 check "kernels against the CPU's, as on 2 multiprocessors" "$1" "$(program tests)"
}
nccl() {  # RANKS SECONDS
  MIMO_NCCL_SHARE_GPU=1 check "NCCL, $1 ranks on one GPU" "$2" "$(program mpirun)" -n "$1" "$(program nccl_test)"
}
train() {  # SECONDS
  check "f32 on the GPU: losses of the CPU" "$1" compared gpu-f32 cpu-f32 1e-4 1e-3 1 --device=cuda
  check "bf16 on the GPU: losses of the CPU" "$1" compared gpu-bf16 cpu-bf16 1e-2 2e-2 1 --device=cuda --train.dtype=bf16
}
share() { check "2 ranks on one GPU" "$1" compared gpu-2 cpu-f32 1e-4 1e-3 2 --device=cuda; }  # SECONDS
bench() {  # NAME SECONDS ARGUMENT...
  local name=$1 seconds=$2
  shift 2
  check "$name" "$seconds" "$(program mimo-bench)" "$@" --device=cuda
}

lease() {
  # What a training step is made of; torch computes most of it too.
  local matter='(attention|ssd|selective_scan|causal_conv|gated_norm|rms_norm|layer_norm|swiglu|cross_entropy|gemm|embedding).*bf16|adamw'
  local intricate='*Attention*:*Ssd*:*SelectiveScan*:*Embedding*'
  check "probe" 10 "$(program tests)" --gtest_filter='CudaElementwise.Fill'
  tests 30
  references
  train 15
  bench "mimo-bench" 150 --benchmark_filter="$matter" --benchmark_repetitions=3
  bench "mimo-bench step" 60 step
  bench "mimo-bench --check" 40 --check --benchmark_filter="$matter"
  check "ncu" 60 counters
  check "compute-sanitizer memcheck" 60 sanitize memcheck "$(program tests)" --gtest_filter="$intricate"
  share 20
  nccl 2 40
  check "compute-sanitizer racecheck" rest sanitize racecheck "$(program tests)" --gtest_filter="$intricate"
}

sections=$*
if [ "$1" = --reference ]; then
  limit=600
  for dtype in f32 bf16; do
    trained "cpu-$dtype" 1 --device=cpu --train.dtype="$dtype" >"$work/log" 2>&1 || { cat "$work/log" && exit 1; }
    whole "$dtype.jsonl" <"$work/runs/cpu-$dtype/metrics.jsonl"
  done
  exit 0
fi
machine | tee "$work/machine.txt"
publish
for section in "$@"; do
  case $section in
    lease) lease ;;
    tests) tests 1200 ;;
    nccl) for ranks in 2 4; do nccl "$ranks" 300; done ;;
    sanitizer)
      for tool in memcheck racecheck synccheck; do
        # (Too much memory is asked for on purpose there; memcheck reports every call that fails.)
        check "compute-sanitizer $tool" 900 sanitize "$tool" "$(program tests)" --gtest_filter=-CudaRuntime.TooMuchMemoryIsNull
      done
      ;;
    train)
      references
      train 300
      MIMO_NCCL_SHARE_GPU=1 check "2 ranks on one GPU, over NCCL" 300 compared gpu-2-nccl cpu-f32 1e-4 1e-3 2 --device=cuda
      share 300
      check "4 ranks on one GPU" 300 compared gpu-4 cpu-f32 1e-4 1e-3 4 --device=cuda
      check "4 ranks on one GPU, tensor and pipeline parallel" 300 compared gpu-4-cut cpu-f32 1e-4 1e-3 4 --device=cuda \
        --layout.vision=dp4@0 --layout.language=tp2,pp2@0
      ;;
    bench)
      bench "mimo-bench --check" 1200 --check
      bench "mimo-bench step" 300 step
      bench "mimo-bench" 1200 && measured=1
      ;;
  esac
done

[ -z "${measured:-}" ] || [ ! -d "$root/benchmarks" ] ||
  cp "$out/GPU.md" "$root/benchmarks/$(tr '[:upper:]' '[:lower:]' <<<"$gpu" | tr -cs 'a-z0-9\n' '-').md"
[ "$skipped" = 0 ] || echo "$skipped skipped"
echo "logs in $out"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
