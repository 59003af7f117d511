#!/usr/bin/env bash
# tools/bundle.sh OUT.tar.gz PROGRAM...
#
# Packs programs into a folder that runs on another x86-64 Linux machine, wherever it is unpacked and without root: with
# Open MPI and every shared library they load, except glibc and NVIDIA's, which belong to the machine.
set -euo pipefail
out=$1
shift
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/mimo-bundle
mkdir -p "$prefix"/{bin,gpu,lib,etc,share/tools}

# Of the machine: glibc, which must fit its kernel and loader, and NVIDIA's, which must fit its driver.
theirs='^(ld-linux.*|lib(c|m|mvec|dl|rt|pthread|resolv|util|anl|nsl|nss_.*|cuda.*|cudart.*|cublas.*|cudnn.*|nccl|nv.*))\.so'
# Fabrics, which bring 40 MB and look for hardware at start; on one machine ranks talk through memory.
fabrics='lib(ucp|uct|ucs|fabric|ibverbs|rdmacm|psm2|psm_infinipath)\.so'

install_libraries() {  # every library that FILE... load, by the name they ask for
  ldd "$@" | awk '$2 == "=>" {print $1, $3}' | sort -u | while read -r name path; do
    if [[ $path == not ]]; then echo "bundle: $name is not found" >&2 && exit 1; fi
    [[ $name =~ $theirs || -e $prefix/lib/$name ]] || cp -L "$path" "$prefix/lib/$name"
  done
}

install_plugins() {  # FOLDER FILE...: what is loaded by name at run time, and what that loads
  local folder=$prefix/lib/$1 file
  shift
  mkdir -p "$folder"
  for file in "$@"; do
    if [[ ! $(ldd "$file") =~ $fabrics ]]; then cp -L "$file" "$folder" && install_libraries "$file"; fi
  done
}

for program in "$@"; do
  case $program in
    */gpu/*) cp -L "$program" "$prefix/gpu" ;;  # tests that need one
    *) cp -L "$program" "$prefix/bin" ;;
  esac
done
cp -L "$(command -v orterun)" "$prefix/bin/mpirun"
cp -L "$(command -v orted)" "$prefix/bin"
install_libraries "$prefix"/bin/* "$@"

mpi() { ompi_info --parsable --path "$1" | sed 's/.*://'; }
install_plugins openmpi3 "$(mpi pkglibdir)"/mca_*.so
cp -rL "$(mpi pkgdatadir)" "$prefix/share/openmpi"
# Open MPI finds PMIx, with which ranks meet, by the path it was built with, so ldd does not see it.
pmix=$(dirname "$(find "$(mpi libdir)"/../../pmix2/lib -name libpmix.so.2)")
cp -L "$pmix/libpmix.so.2" "$prefix/lib"
install_libraries "$pmix/libpmix.so.2"
install_plugins pmix "$pmix"/pmix/*.so

# Line tables alone are most of a program's size; DT_RPATH, which libraries inherit, and not DT_RUNPATH.
find "$prefix"/{bin,gpu,lib} -type f | while read -r file; do
  strip --strip-debug "$file"
  folder=$(realpath --relative-to="$(dirname "$file")" "$prefix/lib")
  # shellcheck disable=SC2016  # the loader replaces $ORIGIN
  patchelf --force-rpath --set-rpath '$ORIGIN/'"$folder" "$file"
done

# share/ has the shape of the sources, so that the defaults of the programs, which are relative, hold there.
cp -r "$here/tools/configs" "$prefix/share/tools"
mkdir "$prefix/share/data" && cp "$here/data/digits.h5" "$prefix/share/data"
cp "$here/tools/bundle_env.sh" "$prefix/env.sh"
cp "$here/tools/gpu_check.sh" "$here/LICENSE" "$prefix"
chmod +x "$prefix"/*.sh

glibc=$(find "$prefix"/{bin,gpu,lib} -type f -exec objdump -T {} + 2>/dev/null |
  grep -o 'GLIBC_2\.[0-9]*' | sort -uV | tail -n 1)
echo "${glibc#GLIBC_}" >"$prefix/share/glibc"
sed "s/@GLIBC@/${glibc#GLIBC_}/" >"$prefix/README" <<'README'
mimo, packed with what it needs, for an x86-64 (v3: AVX2) Linux machine with glibc @GLIBC@ or later. Nothing to install.

  ./gpu_check.sh                          checks and measures everything on this machine's GPU; results in gpu-check/
  ./gpu_check.sh lease                    the most telling of it, within $BUDGET seconds (540); three files in $OUT
  ./env.sh mpirun -n 2 mimo               trains the digits in the folder share/runs
  ./env.sh mimo-bench --device=cuda       one program; env.sh says what it sets

On a GPU the programs load cuBLASLt and NCCL: from $MIMO_CUDA_LIBRARIES (folders, with colons between), a CUDA toolkit, or the
nvidia/*/lib folders of Python's packages. lib/ holds Debian's libraries under their own licences (packages: share/packages).
README
# shellcheck disable=SC2016  # dpkg-query replaces ${Package}
find "$prefix/lib" -type f -printf '*/%f*\n' | xargs dpkg -S 2>/dev/null | sed 's/:.*//' | sort -u |
  xargs dpkg-query -W -f='${Package} ${Version}\n' 2>/dev/null | sort -u >"$prefix/share/packages" || true

# The CPU's training, against which a GPU's is held.
"$prefix/gpu_check.sh" --reference "$prefix/share/reference"

tar -C "$work" --owner=0 --group=0 --sort=name -cf - mimo-bundle | gzip -9n >"$work/out.tar.gz"
mv "$work/out.tar.gz" "$out"
size=$(stat -c %s "$out")
echo "$out: $((size / 1000000)) MB"
((size < 64000000)) || { echo "bundle: larger than 64 MB" >&2 && exit 1; }
