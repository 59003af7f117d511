#!/usr/bin/env bash
# The logic of tools/gpu_check.sh, on a machine without a GPU: in a bundle of stubs that do as they are told by variables.
# Last line: `N passed, N failed`.
# shellcheck disable=SC2016  # the variables in stubs are theirs
set -u
tools=$(cd "$(dirname "$0")/../tools" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle="$work/a bundle" stubs=$work/stubs
mkdir -p "$bundle"/{bin,gpu,share} "$stubs" "$work/site/nvidia/cublas/lib"
touch "$work/site/nvidia/cublas/lib/libcublasLt.so.12"
cp "$tools/gpu_check.sh" "$bundle"
cp "$tools/bundle_env.sh" "$bundle/env.sh"
echo 2.17 >"$bundle/share/glibc"

stub() {  # FILE: its text from stdin
  { echo '#!/usr/bin/env bash'; cat; } >"$1"
  chmod +x "$1"
}
stub "$stubs/nvidia-smi" <<<'[ -z "${STUB_NO_GPU:-}" ] || exit 9; echo "NVIDIA Test GPU/8"'
stub "$stubs/python3" <<<"echo '$work/site'"
stub "$stubs/compute-sanitizer" <<'STUB'
case ${STUB_SANITIZER:-works} in
  works) shift 4; "$@"; status=$?; echo "========= ERROR SUMMARY: 0 errors"; exit "$status" ;;
  finds) echo "========= ERROR SUMMARY: 3 errors"; exit 99 ;;
  broken) echo "========= Error: no permission to debug"; exit 1 ;;
esac
STUB
stub "$bundle/bin/mpirun" <<<'shift 2; exec "$@"'
stub "$bundle/gpu/tests" <<'STUB'
echo "libraries: $MIMO_CUDA_LIBRARIES"
[ -z "${STUB_TESTS_FAIL:-}" ] || { echo "[  FAILED  ] RmsNorm.forward"; exit 1; }
echo "[  PASSED  ] 12 tests."
STUB
stub "$bundle/gpu/nccl_test" <<<'echo "shared $MIMO_NCCL_SHARE_GPU"; sleep "${STUB_NCCL_SLEEP:-0}"'
stub "$bundle/bin/mimo-bench" <<<'[ -z "${STUB_BENCH_FAIL:-}" ] || exit 1; echo "rms_norm 12.3 us"'
stub "$bundle/bin/mimo" <<'STUB'
shift=0
for option in "$@"; do
  case $option in
    --run.dir=*) dir=${option#*=} ;;
    --device=cuda) shift=${STUB_SHIFT:-1e-6} ;;
  esac
done
mkdir -p "$dir"
echo '  "tokens_per_second": 8263.62,' >"$dir/summary.json"
awk -v shift="$shift" -v steps="${STUB_STEPS:-100}" -v nan="${STUB_NAN:-0}" 'BEGIN {
  for (s = 1; s <= steps; ++s) {
    loss = nan && shift && s > 50 ? "\"NaN\"" : sprintf("%.9f", 5 - s / 25 + shift)
    printf "{\"step\":%d,\"loss\":%s,\"tokens\":5}\n", s, loss
  }
}' >"$dir/metrics.jsonl"
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
  rm -rf "$work/my out"
  env -u MIMO_CUDA_LIBRARIES PATH="$stubs:$PATH" OUT="$work/my out" "${variables[@]}" "$bundle/gpu_check.sh" "$@" >"$work/log" 2>&1
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
expect "all is well" 0 "15 passed, 0 failed" "kernels against the CPU's .* 12 tests" "loss 1.18.*8263 tokens/s" "memcheck .*0 errors"
cp "$work/my out/nvidia-test-gpu-8.md" "$work/log"
expect "the page" 0 '```' "^# NVIDIA Test GPU/8" "^rms_norm 12.3 us" "^date " "passed +4 ranks on one GPU"
cat "$work/my out"/kernels*.log "$work/my out"/NCCL*.log >"$work/log"
expect "libraries of Python's packages are found" 0 "shared 1" "^libraries: (.*:)?$work/site/nvidia/cublas/lib"
run STUB_TESTS_FAIL=1
expect "a failure is counted, the rest runs" 1 "11 passed, 4 failed" "RmsNorm.forward" "passed +mimo-bench"
run LIMIT=1 STUB_NCCL_SLEEP=9 -- nccl
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
rm "$stubs/compute-sanitizer"
if ! type -P compute-sanitizer >/dev/null; then
  run -- sanitizer
  expect "no sanitizer" 0 "0 passed, 0 failed" "compute-sanitizer is not installed"
fi
run STUB_BENCH_FAIL=1 -- bench
expect "a benchmark that fails" 1 "0 passed, 1 failed"
run -- everything
expect "an unknown section" 2 "gpu-check: no section 'everything': expected tests, nccl, sanitizer, train or bench"
rm "$bundle/gpu/tests"
run -- tests
expect "a program that is missing" 1 "0 passed, 1 failed" "tests: not built"
echo 9.99 >"$bundle/share/glibc"
run
expect "an older glibc" 1 "$(grep -h needs "$work/log")" "this bundle needs glibc 9.99"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
