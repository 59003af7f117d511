#!/usr/bin/env bash
# tests/bundle_test.sh BUNDLE.tar.gz: unpacks it under an unusual name in a root directory that holds glibc and a shell and
# nothing else, and trains there. Last line: `N passed, N failed`.
set -u
bundle=$(realpath "$1")
if [ -z "${MIMO_BUNDLE_TEST_INSIDE:-}" ]; then
  # Mounts of a namespace of its own, which go when the test ends; root within it is enough.
  export MIMO_BUNDLE_TEST_INSIDE=1
  [ "$(id -u)" = 0 ] || map=-r
  exec unshare ${map:+"$map"} -m "$0" "$@"
fi
root=$(mktemp -d)
trap 'umount -R "$root/proc" "$root/dev" 2>/dev/null; rm -rf --one-file-system "$root"' EXIT
passed=0 failed=0
check() {  # NAME COMMAND...
  local name=$1 start=$SECONDS
  shift
  if "$@" >"$root/out" 2>&1; then
    passed=$((passed + 1))
    printf 'passed  %-60s %3d s\n' "$name" $((SECONDS - start))
  else
    failed=$((failed + 1))
    printf 'FAILED  %-60s %3d s\n' "$name" $((SECONDS - start))
    tail -n 25 "$root/out"
  fi
}

# A machine without Open MPI and HDF5: glibc, a shell and the tools that scripts call.
install() {  # FILE... and the libraries they load, where they lie here
  ldd "$@" 2>/dev/null | grep -o '/[^ :]*' | cat - <(printf '%s\n' "$@") | sort -u | xargs cp --parents -L -t "$root"
}
mkdir -p "$root"/{proc,dev,tmp,etc,bin,usr/bin,lib64,lib,usr/lib}
for tool in bash env ls cat cp mkdir rm mktemp dirname basename date getconf head tail sort sed grep awk timeout tr uname wc; do
  path=$(realpath "$(type -P "$tool")") && install "$path"
  [ -e "$root/usr/bin/$tool" ] || ln -s "$path" "$root/usr/bin/$tool"
done
ln -s /usr/bin/bash "$root/bin/bash"
for library in libm libdl librt libpthread libresolv libutil; do
  file=$(ldconfig -p | awk -v l="$library" '$1 ~ "^" l "\\.so\\.[0-9]$" && /x86-64/ {print $NF; exit}')
  [ -z "$file" ] || install "$file"
done
if ! { mount --rbind /proc "$root/proc" && mount --rbind /dev "$root/dev"; }; then
  echo "cannot mount, so cannot test"
  exit 2
fi

place="/opt/a b'ü\$x/moved"
mkdir -p "$root$place"
tar -C "$root$place" -xzf "$bundle" || exit 1
place=$place/mimo-bundle
home=$root$place
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/tmp "$@"; }
run() { inside "$place/env.sh" "$@"; }

too_large() { [ "$(stat -c %s "$bundle")" -ge 64000000 ]; }
hidden() { ! find "$root/lib" "$root/usr/lib" "$root/lib64" | grep -E 'libmpi|libopen-|libhdf5|libpmix|libstdc'; }
closed() {  # every library comes from the bundle or is glibc's; none is missing
  local file found bad=0
  for file in "$home"/{bin,gpu}/* "$home"/lib/*/*.so; do
    [ -e "$file" ] || continue  # without nvcc there is nothing in gpu/
    found=$(inside LD_TRACE_LOADED_OBJECTS=1 /lib64/ld-linux-x86-64.so.2 "${file#"$root"}")
    [[ $found == *libc.so.6* ]] || bad=1
    grep -vF "=> $place/" <<<"$found" | grep -Ev '(^|/|\s)(linux-vdso|lib(c|m|dl|rt|pthread|resolv|util)|ld-linux-x86-64)\.so' &&
      echo "  of $file" && bad=1
  done
  return $bad
}
portable() {  # x86-64-v3 has no 512-bit registers, no masks and sixteen vector registers
  local file
  for file in "$home"/bin/mimo* "$home"/gpu/*; do
    [ -e "$file" ] || continue
    objdump -d --no-show-raw-insn "$file" | grep -Em 1 '%(zmm|k[0-7]|[xy]mm(1[6-9]|[23][0-9]))' && echo "  in $file" && return 1
  done
  return 0
}
trains() {  # RANKS
  run mpirun -n "$1" mimo --device=cpu --train.steps=30 --train.warmup=5 --eval.samples=20 --checkpoint.every=0 \
    --run.dir="/tmp/run$1" || return 1
  if grep -i 'unable to open\|cannot open' "$root/out"; then return 1; fi  # a plugin
  grep -o '"loss":[0-9.]*' "$root/tmp/run$1/metrics.jsonl" | sed 's/.*://' |
    awk 'NR == 1 {first = $1} {last = $1} END {print "loss", first, "to", last; exit !(NR == 30 && last < first - 0.3)}'
}
resumes() {
  local again=(run mimo --device=cpu --checkpoint.every=1 --eval.samples=20 --run.dir=/tmp/again)
  "${again[@]}" --train.steps=2 && "${again[@]}" --train.steps=3 && grep -q 'resuming after step 2' "$root/out"
}
no_gpu() {  # one line and status 2
  inside "$place/gpu_check.sh"
  [ $? = 2 ] && [ "$(wc -l <"$root/out")" = 1 ]
}

references() { [ "$(cat "$home"/share/reference/{f32,bf16}.jsonl | grep -c '"loss":[0-9]')" = 200 ]; }

check "smaller than 64 MB" eval '! too_large'
check "training on the CPU came along" references
check "the machine has no library of ours" hidden
check "what is loaded is the bundle's or glibc's" closed
[ -n "${MIMO_BUNDLE_NATIVE:-}" ] || check "no instruction beyond x86-64-v3" portable
check "mpirun starts" run mpirun --version
check "mimo-data reads a dataset" run mimo-data info data/digits.h5
for ranks in 1 2 4; do
  check "$ranks ranks train, the loss goes down" trains "$ranks"
done
check "a run goes on from its checkpoint" resumes
check "mimo-bench measures" run mimo-bench --benchmark_filter='gemm/linear/f32/40x64x64' --benchmark_repetitions=1
[ -e /dev/nvidiactl ] || check "gpu_check.sh says that there is no GPU" no_gpu
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
