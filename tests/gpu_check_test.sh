#!/usr/bin/env bash
# The logic of tools/gpu_check.sh, on a machine without a GPU: in a bundle of stubs that do as they are told by variables.
# Last line: `N passed, N failed`.
# shellcheck disable=SC2016  # the variables in stubs are theirs
set -u
tools=$(cd "$(dirname "$0")/../tools" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle="$work/a bundle" stubs=$work/stubs
mkdir -p "$bundle"/{bin,gpu,share/reference} "$stubs" "$work/site/nvidia/cublas/lib"
touch "$work/site/nvidia/cublas/lib/libcublasLt.so.12"
cp "$tools/gpu_check.sh" "$bundle"
cp "$tools/bundle_env.sh" "$bundle/env.sh"
echo 2.17 >"$bundle/share/glibc"

stub() {  # FILE: its text from stdin. Each says what it was asked, and does what a variable of its name tells it
  { echo '#!/usr/bin/env bash'; echo "echo \"$(basename "$1") \$*\" | cut -c 1-200 >>'$work/asked'"; cat; } >"$1"
  chmod +x "$1"
}
# What a machine that ends in a check leaves: a copy of $OUT as it is then; and the end of the script by a signal.
cut='[ -e "$STUB_COPIES/$CHECK" ] || cp -r "$OUT" "$STUB_COPIES/$CHECK"
[ "${STUB_CUT:-}" != "$CHECK" ] || { kill -"${STUB_SIGNAL:-KILL}" "$(cat "$STUB_SCRIPT")"; sleep "${STUB_STAY:-2}"; }
[ "${STUB_HANG:-}" != "$CHECK" ] || sleep 1000'
stub "$stubs/nvidia-smi" <<<'[ -z "${STUB_NO_GPU:-}" ] || exit 9; echo "NVIDIA Test GPU/8"'
stub "$stubs/python3" <<<"echo '$work/site'"
stub "$stubs/compute-sanitizer" <<STUB
CHECK=\$2
$cut
case \${STUB_SANITIZER:-works} in
  works) shift 6; "\$@"; status=\$?; echo "========= ERROR SUMMARY: 0 errors"; exit "\$status" ;;
  finds) echo "========= ERROR SUMMARY: 3 errors"; exit 99 ;;
  broken) echo "========= Error: no permission to debug"; exit 1 ;;
esac
STUB
stub "$stubs/ncu" <<STUB
CHECK=ncu
$cut
[ "\${STUB_NCU:-works}" = works ] || { echo "==ERROR== ERR_NVGPUCTRPERM"; exit 1; }
for kernel in 1 2 3 4 5 6 7 8; do echo "    Section: GPU Speed Of Light Throughput"; done
STUB
stub "$bundle/bin/mpirun" <<<'shift 2; exec "$@"'
stub "$bundle/gpu/tests" <<STUB
CHECK=tests\${MIMO_TEST_SMS:-}
[ "\$*" != --gtest_filter=CudaElementwise.Fill ] || CHECK=probe
$cut
echo "libraries: \$MIMO_CUDA_LIBRARIES"
[ -z "\${STUB_TESTS_FAIL:-}" ] || { echo "[  FAILED  ] RmsNorm.forward"; exit 1; }
[ -z "\${MIMO_ERRORS:-}" ] || printf '%s\n' "error/allowed  result" "0.9  RmsNorm.Forward y"
echo "[  PASSED  ] 12 tests."
STUB
stub "$bundle/gpu/nccl_test" <<STUB
CHECK=nccl
$cut
[ -z "\${STUB_STRAY:-}" ] || setsid sleep 1000 &
echo "shared \$MIMO_NCCL_SHARE_GPU"
STUB
stub "$bundle/bin/mimo-bench" <<STUB
CHECK=bench
case "\$*" in step*) CHECK=step ;; --check*) CHECK=check ;; esac
$cut
[ -z "\${STUB_BENCH_FAIL:-}" ] || exit 1
echo "\$CHECK 12.3 us"
STUB
stub "$bundle/bin/mimo" <<STUB
shift=0 steps=\${STUB_STEPS:-100} nan=\${STUB_NAN:-0}
for option in "\$@"; do
  case \$option in
    --run.dir=*) dir=\${option#*=} ;;
    --device=cuda) shift=\${STUB_SHIFT:-1e-6} ;;
  esac
done
CHECK=\$(basename "\$dir")
$cut
mkdir -p "\$dir"
echo '  "tokens_per_second": 8263.62,' >"\$dir/summary.json"
awk -v shift="\$shift" -v steps="\$steps" -v nan="\$nan" 'BEGIN {
  for (s = 1; s <= steps; ++s) {
    loss = nan && shift && s > 50 ? "\\"NaN\\"" : sprintf("%.9f", 5 - s / 25 + shift)
    printf "{\\"step\\":%d,\\"loss\\":%s,\\"tokens\\":5}\\n", s, loss
  }
}' >"\$dir/metrics.jsonl"
STUB

passed=0 failed=0
expect() {  # NAME STATUS LAST-LINE PATTERN... of its output
  local name=$1 status=$2 last=$3 pattern ok=1
  shift 3
  [ "$got" = "$status" ] && [ "$(tail -n 1 "$work/log")" = "$last" ] || ok=0
  for pattern in "$@"; do grep -Eq "$pattern" "$work/log" || { echo "  not found: $pattern" && ok=0; }; done
  if [ "$ok" = 1 ]; then
    passed=$((passed + 1)) && echo "passed  $name"
  else
    failed=$((failed + 1)) && echo "FAILED  $name: status $got" && sed 's/^/    | /' "$work/log"
  fi
}
run() {  # [VARIABLE=VALUE...] [-- SECTION...]
  local variables=()
  while [ $# -gt 0 ] && [ "$1" != -- ]; do variables+=("$1") && shift; done
  [ $# = 0 ] || shift
  rm -rf "$work/my out" "$work/asked" "$work/copies" "$work"/tmp.*
  mkdir "$work/copies"
  # The script's process, for stubs that end it; its scratch folder goes where this test's does.
  env -u MIMO_CUDA_LIBRARIES PATH="$stubs:$PATH" OUT="$work/my out" TMPDIR="$work" STUB_SCRIPT="$work/script" \
    STUB_COPIES="$work/copies" "${variables[@]}" \
    bash -c 'echo $$ >"$STUB_SCRIPT"; exec "$@"' bash "$bundle/gpu_check.sh" "$@" >"$work/log" 2>&1 &
  wait $! 2>/dev/null
  got=$?
}

run STUB_NO_GPU=1
expect "without a GPU: one line" 2 "gpu-check: no GPU: nvidia-smi finds none"
[ "$(wc -l <"$work/log")" = 1 ] || failed=$((failed + 1))
run STUB_NO_GPU=1 -- --probe
expect "--probe without a GPU" 2 "gpu-check: no GPU: nvidia-smi finds none"
run -- --probe
expect "--probe with one" 0 ""
run
expect "all is well" 0 "18 passed, 0 failed" "kernels against the CPU's .* 12 tests" "loss 1.18.*8263 tokens/s" "memcheck .*0 errors"
cp "$work/my out/GPU.md" "$work/log"
expect "the page" 0 '```' "^# NVIDIA Test GPU/8" "^bench 12.3 us" "^step 12.3 us" "^date " "passed +4 ranks on one GPU" "^0.9  RmsNorm.Forward y"
cat "$work/my out"/kernels*.log "$work/my out"/NCCL*.log >"$work/log"
expect "libraries of Python's packages are found" 0 "shared 1" "^libraries: (.*:)?$work/site/nvidia/cublas/lib"
run STUB_TESTS_FAIL=1
expect "a failure is counted, the rest runs" 1 "13 passed, 5 failed" "RmsNorm.forward" "passed +mimo-bench"
run LIMIT=1 STUB_HANG=nccl -- nccl
expect "what hangs is stopped" 1 "0 passed, 2 failed" "124: stopped after 1 s"
run STUB_SHIFT=1e-3 -- train
expect "f32 losses that differ fail" 1 "3 passed, 5 failed" "FAILED +f32 on the GPU" "passed +bf16 on the GPU"
run STUB_SHIFT=0.1 -- train
expect "bf16 losses that differ fail" 1 "2 passed, 6 failed" "FAILED +bf16 on the GPU"
run STUB_NAN=1 -- train
expect "NaN fails" 1 "2 passed, 6 failed"
run STUB_STEPS=99 -- train
expect "a run that ends early fails" 1 "2 passed, 6 failed"
run STUB_SANITIZER=broken -- sanitizer
expect "a sanitizer that does not work is skipped" 0 "0 passed, 0 failed" "3 skipped" "does not work here: Error: no permission"
run STUB_SANITIZER=finds -- sanitizer
expect "what a sanitizer finds fails" 1 "0 passed, 3 failed" "3 errors"
run STUB_BENCH_FAIL=1 -- bench
expect "a benchmark that fails" 1 "0 passed, 3 failed"
run -- everything
expect "an unknown section" 2 \
  "gpu-check: no section 'everything': expected tests, nccl, sanitizer, train or bench, or lease alone"
run -- lease bench
expect "lease goes with no other section" 2 \
  "gpu-check: no section 'lease': expected tests, nccl, sanitizer, train or bench, or lease alone"

# --- on a machine that is lent for minutes

run STUB_NO_GPU=1 -- --reference "$bundle/share/reference"
expect "what a GPU's training is held against needs none" 0 ""
[ "$(wc -l <"$bundle/share/reference/bf16.jsonl")" = 100 ] || failed=$((failed + 1))

# In order: what the stubs call each check, and its name in the page.
order=("probe:probe" "tests:kernels against the CPU's" "tests2:kernels against the CPU's, as on 2 multiprocessors"
  "gpu-f32:f32 on the GPU: losses of the CPU" "gpu-bf16:bf16 on the GPU: losses of the CPU" "bench:mimo-bench" "step:mimo-bench step"
  "check:mimo-bench --check" "ncu:ncu" "memcheck:compute-sanitizer memcheck" "gpu-2:2 ranks on one GPU"
  "nccl:NCCL, 2 ranks on one GPU" "racecheck:compute-sanitizer racecheck")
left_behind() {  # COUNT [FOLDER]: three whole files that tell of the first COUNT checks, in order
  local i want="" line folder=${2:-$work/my out}
  for ((i = 0; i < $1; ++i)); do want+="${order[i]#*:}"$'\n'; done
  {
    [ "$(cd "$folder" && ls -A | tr '\n' ' ')" = "GPU.md logs.tgz results.txt " ] || ls -A "$folder"
    tar -tzf "$folder/logs.tgz" >/dev/null || echo "logs.tgz is not whole"
    [ "$(grep -c '^```$' "$folder/GPU.md")" -ge 4 ] && [ "$(tail -n 1 "$folder/GPU.md")" = '```' ] || echo "GPU.md is not whole"
    [ "$(cut -c 10-67 "$folder/results.txt" | sed 's/ *$//')" = "${want%$'\n'}" ] || cat "$folder/results.txt"
    while read -r line; do grep -qxF "$line" "$folder/GPU.md" || echo "not in the page: $line"; done <"$folder/results.txt"
  } >"$work/wrong" 2>&1
  cat "$work/wrong" >>"$work/log"
  echo "files of the first $1 checks are $([ -s "$work/wrong" ] && echo wrong || echo whole)" >>"$work/log"
}
nothing_left() {  # no process of a check, and no scratch folder
  local before=$got
  { grep -lzxsF "STUB_STRAY=$work" /proc/[0-9]*/environ; ls -d "$work"/tmp.* 2>/dev/null; } >"$work/wrong"
  cat "$work/wrong" >>"$work/log"
  got=$(wc -l <"$work/wrong")
  expect "nothing is left of it" 0 "$(tail -n 1 "$work/log")"
  got=$before
}

run STUB_STRAY="$work" -- lease
left_behind 13
expect "lease: everything, in three files" 0 "files of the first 13 checks are whole" "^13 passed, 0 failed" "ncu .* 8 kernels"
nothing_left
for i in "${!order[@]}"; do
  left_behind "$i" "$work/copies/${order[i]%%:*}"
  expect "where the machine ends in: ${order[i]#*:}" 0 "files of the first $i checks are whole"
done
cp "$work/my out/GPU.md" "$work/log"
expect "its page" 0 '```' "^# NVIDIA Test GPU/8" "^bench 12.3" "^step 12.3" "^check 12.3" "GPU Speed Of Light"
cp "$work/asked" "$work/log" && got=0
expect "each check asks for the right thing" 0 "$(tail -n 1 "$work/asked")" "^mimo-bench step --device=cuda" "^mimo-bench --check .*attention" \
  "^compute-sanitizer --tool racecheck .*Ssd" "^ncu --clock-control none .*attention" "^mpirun -n 2 .*nccl_test"
run STUB_CUT=ncu STUB_STAY=0 -- lease
left_behind 8
expect "lease, killed in a check" 137 "files of the first 8 checks are whole"
run STUB_CUT=bench STUB_SIGNAL=TERM STUB_STAY=1000 STUB_STRAY="$work" -- lease
left_behind 6
expect "lease, asked to end in a benchmark" 1 "files of the first 6 checks are whole" "^FAILED +mimo-bench .*cut off"
nothing_left
run LIMIT=3 STUB_HANG=nccl -- lease
left_behind 13
expect "lease: what hangs does not keep the rest" 1 "files of the first 13 checks are whole" "^12 passed, 1 failed" "stopped after 3 s"
run BUDGET=120 -- lease
left_behind 13
expect "lease: what no longer fits is listed" 0 "files of the first 13 checks are whole" "^12 passed, 0 failed" "^1 skipped" \
  "^skipped +mimo-bench .*may take 150 s, and [0-9]+ are left"
run BUDGET=5 -- lease
left_behind 13
expect "lease without time" 0 "files of the first 13 checks are whole" "^0 passed, 0 failed" "^skipped +compute-sanitizer racecheck"
run STUB_NCU=broken -- lease
expect "counters that nobody may read" 0 "12 passed, 0 failed" "^skipped +ncu .*does not work here: ERR_NVGPUCTRPERM"
rm -r "$bundle/share/reference"
run -- lease
expect "lease where no reference came along" 0 "15 passed, 0 failed" "^passed +bf16 trains on the CPU"

rm "$stubs/compute-sanitizer"
if ! type -P compute-sanitizer >/dev/null; then
  run -- sanitizer
  expect "no sanitizer" 0 "0 passed, 0 failed" "compute-sanitizer is not installed"
fi
rm "$bundle/gpu/tests"
run -- tests
expect "a program that is missing" 1 "0 passed, 2 failed" "tests: not built"
echo 9.99 >"$bundle/share/glibc"
run
expect "an older glibc" 1 "$(grep -h needs "$work/log")" "this bundle needs glibc 9.99"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
