#!/usr/bin/env bash
# extract.sh PAGE DIR: writes every ```cpp block of the page whose first line names a file, "// path.cpp" "// path.cu" or "// path.h", to
# DIR/path.
set -eu
awk -v dir="$2" '
  /^```cpp$/ { if ((getline line) > 0 && line ~ /^\/\/ .*\.(cpp|cu|h)$/) {
                 file = dir "/" substr(line, 4); path = file; sub(/\/[^\/]*$/, "", path)
                 system("mkdir -p \"" path "\""); print line > file; inside = 1; next } }
  /^```$/ { if (inside) close(file); inside = 0 }
  inside { print > file }' "$1"
