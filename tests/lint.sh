#!/usr/bin/env bash
# Formatting, the include rules of the house, and file lengths. Arguments: the source files.
set -u
bad=0
say() { echo "lint: $*"; bad=1; }

clang-format --dry-run -Werror "$@" || bad=1
examples=$(mktemp -d)
trap 'rm -rf "$examples"' EXIT
tests/docs/extract.sh docs/extending.md "$examples"
find "$examples" -name '*.[ch]*' -exec clang-format --dry-run -Werror --style=file:.clang-format {} + || bad=1

# Includes point one way: kernels <- tensor <- parallel <- io <- {nn, data} <- tools; tests may include anything.
declare -A may=(
  [kernels]="kernels" [tensor]="kernels tensor" [parallel]="kernels tensor parallel" [io]="kernels tensor parallel io"
  [nn]="kernels tensor parallel io nn" [data]="kernels tensor parallel io data"
  [tools]="kernels tensor parallel io nn data tools")
for f in "$@"; do
  top=${f%%/*}
  allowed=${may[$top]:-}
  if [ -n "$allowed" ]; then
    while read -r inc; do
      case " $allowed " in *" ${inc%%/*} "*) ;; *) say "$f includes $inc; $top may include: $allowed" ;; esac
    done < <(sed -n 's/^#include "\([^"]*\)".*/\1/p' "$f")
  fi
  case $f in
    tools/*/*) ;;
    tools/*) grep -q '^int main(' "$f" || say "$f has no main: what programs share belongs to tools/run" ;;
  esac
  n=$(wc -l <"$f")
  limit=800
  [ "$top" = kernels ] && limit=500
  [ "$n" -gt "$limit" ] && say "$f has $n lines, at most $limit"
done
for h in kernels/*.h; do
  s=$(basename "$h" .h)
  [ "$s" = kernel ] || [ "$s" = kernels ] && continue
  [ -e "kernels/cpu/$s.cpp" ] || say "$h has no kernels/cpu/$s.cpp"
  # A contract's CUDA half is <op>.cu, or <op>.cpp where it calls a library, with a test.
  [ -e "kernels/cuda/$s.cu" ] || [ -e "kernels/cuda/$s.cpp" ] || say "$h has no kernels/cuda/$s.cu"
  [ -e "tests/cuda/${s}_test.cpp" ] || say "$h has no tests/cuda/${s}_test.cpp"
done
for f in $(grep -lE '\<asm\>' "$@"); do
  case $f in kernels/cuda/ptx/*) ;; *) say "$f has inline assembly: PTX belongs to kernels/cuda/ptx" ;; esac
done
tests/mutants.sh --check >/dev/null || say "faults that tests have to catch are no longer where they were"
[ "$bad" = 0 ] && echo "lint: ok"
exit $bad
