#!/usr/bin/env bash
# mutants.sh [--check] [WORD...]: are the tests awake? Plants the faults of tests/mutants.txt, one at a time, in a copy of
# the tree and requires the tests named there to fail. With words: only faults whose text has one of them. --check: only
# whether the texts to be replaced are there. Last line: `N passed, N failed`.
set -u
cd "$(dirname "$0")/.." || exit 1
check= words=()
for a in "$@"; do [ "$a" = --check ] && check=1 || words+=("$a"); done
table=tests/mutants.txt
titles=() files=() before=() after=() programs=() filters=()

# A fault is a line "# what is wrong", "in FILE", the lines "- text" and "+ text" that take its place, and "by PROGRAM
# FILTER": the tests of gtest's FILTER in build/tests/PROGRAM, under mpirun on N ranks where that is NAME@N.
n=-1
while IFS= read -r line; do
  case $line in
    '# '*) n=$((n + 1)) titles[n]=${line#\# } before[n]= after[n]= ;;
    'in '*) files[n]=${line#in } ;;
    '- '*) before[n]+=${before[n]:+$'\n'}${line#- } ;;
    '+ '*) after[n]+=${after[n]:+$'\n'}${line#+ } ;;
    'by '*) read -r _ programs[n] filters[n] <<<"$line" ;;
    ?*) echo "$table: not a line of a fault: $line" && exit 1 ;;
  esac
done <"$table"

wanted() {
  [ ${#words[@]} -eq 0 ] && return 0
  local w
  for w in "${words[@]}"; do [[ "${titles[$1]} ${files[$1]} ${programs[$1]}" == *"$w"* ]] && return 0; done
  return 1
}
chosen=()
for i in "${!titles[@]}"; do wanted "$i" && chosen+=("$i"); done

# I TREE: the file of fault I with the fault in it; fails where its text is not found exactly once.
planted() {
  BEFORE=${before[$1]} AFTER=${after[$1]} LC_ALL=C awk 'BEGIN { RS = "\001"; b = ENVIRON["BEFORE"] }
    {
      at = index($0, b)
      if (b == "" || !at || index(substr($0, at + 1), b)) exit 1
      printf "%s", substr($0, 1, at - 1) ENVIRON["AFTER"] substr($0, at + length(b))
    }' "$2/${files[$1]}" && return
  echo "$table: \"${titles[$1]}\": its text is not found exactly once in ${files[$1]}: say it anew" >&2
  return 1
}

passed=0 failed=0
if [ -n "$check" ]; then
  for i in "${chosen[@]}"; do planted "$i" . >/dev/null && passed=$((passed + 1)) || failed=$((failed + 1)); done
  echo "$passed passed, $failed failed"
  exit $((failed > 0))
fi

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1

# TREE PROGRAM...
build() {
  local tree=$1 targets=() p
  shift
  for p in "$@"; do
    targets+=("build/tests/${p%@*}")
    [ "$p" = tools ] && targets+=(mimo mimo-data)
  done
  nice make -C "$tree" --no-print-directory NVCC= BUILD=build -j"$(nproc)" "${targets[@]}" >"$out/build.log" 2>&1
}
# TREE PROGRAM FILTER
run() {
  local command=(build/tests/"${2%@*}" --gtest_filter="$3")
  [[ $2 == *@* ]] && command=(mpirun --oversubscribe -n "${2#*@}" "${command[@]}")
  (cd "$1" && { timeout 300 "${command[@]}" || exit 1; }) >"$out/test.log" 2>&1
}

# A copy of the files that git knows, as they are, with what is built of them; it has to pass what the faults have to fail.
mkdir "$out/base"
git ls-files -z | while IFS= read -r -d '' f; do [ -e "$f" ] && printf '%s\0' "$f"; done |
  xargs -0 cp -a --parents -t "$out/base"
for f in mimo mimo-data; do [ -x $f ] && cp -a $f "$out/base"; done
mkdir "$out/base/build"
for d in obj simt tests libmimo.a linked; do [ -e build/$d ] && cp -a build/$d "$out/base/build"; done
needed=()
for i in "${chosen[@]}"; do needed+=("${programs[i]}"); done
mapfile -t needed < <(printf '%s\n' "${needed[@]}" | sort -u)
build "$out/base" "${needed[@]}" || { tail -n 25 "$out/build.log"; exit 1; }

# PROGRAM FILTER: what is wrong with these tests where there is no fault. To gtest, no test at all is a success: each
# name of the filter has to be that of one.
trouble() {
  local names name
  IFS=: read -ra names <<<"${2%%-*}"
  for name in "${names[@]}"; do
    "$out/base/build/tests/${1%@*}" --gtest_list_tests --gtest_filter="$name" 2>/dev/null | grep -q '^  ' && continue
    echo "no test of that name"
    return
  done
  run "$out/base" "$1" "$2" && return
  tail -n 25 "$out/test.log" >&2
  echo "fails without fault"
}

declare -A known
for i in "${chosen[@]}"; do
  SECONDS=0
  key="${programs[i]} ${filters[i]}"
  [ -n "${known[$key]+set}" ] || known[$key]=$(trouble "${programs[i]}" "${filters[i]}")
  cp -a "$out/base" "$out/tree"
  if [ -n "${known[$key]}" ]; then
    verdict=${known[$key]}
  elif ! planted "$i" "$out/base" >"$out/tree/${files[i]}"; then
    verdict="not planted"
  elif ! build "$out/tree" "${programs[i]}"; then
    verdict="does not build"
    grep -m 3 error "$out/build.log"
  elif run "$out/tree" "${programs[i]}" "${filters[i]}"; then
    verdict=SURVIVED
  else
    verdict=caught
  fi
  rm -rf "$out/tree"
  [ "$verdict" = caught ] && passed=$((passed + 1)) || failed=$((failed + 1))
  printf '%-20s %s: %s (%s %s), %d s\n' "$verdict" "${files[i]}" "${titles[i]}" "${programs[i]}" "${filters[i]}" $SECONDS
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
