#!/usr/bin/env bash
# The environment of this folder's programs. `. env.sh` sets it, `./env.sh COMMAND...` runs one in it, in share/, where the
# programs find tools/configs and data.
prefix=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

need=$(cat "$prefix/share/glibc") have=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/.* //')
if [ "$(printf '%s\n' "$need" "${have:-$need}" | sort -V | head -n 1)" != "$need" ]; then
  echo "this bundle needs glibc $need or later; this machine has $have" >&2
  # shellcheck disable=SC2317  # return fails where this file is run, not sourced
  return 1 2>/dev/null || exit 1
fi

# Another Open MPI's settings would be obeyed by this one.
# shellcheck disable=SC2086
[ -n "${OMPI_COMM_WORLD_RANK:-}" ] || unset ${!OMPI_@} ${!OPAL_@} ${!PMIX_@}

export PATH=$prefix/bin:$PATH
# Open MPI, PMIx and hwloc look for plugins and messages where they were built unless told.
export OPAL_PREFIX=$prefix OPAL_LIBDIR=$prefix/lib OPAL_DATADIR=$prefix/share OPAL_SYSCONFDIR=$prefix/etc
export PMIX_INSTALL_PREFIX=$prefix PMIX_LIBDIR=$prefix/lib PMIX_PKGLIBDIR=$prefix/lib/pmix
export PMIX_MCA_mca_base_component_path=$prefix/lib/pmix HWLOC_PLUGINS_PATH=$prefix/lib/hwloc
# All ranks on this machine: no ssh; and containers forbid ranks to read each other's memory.
export OMPI_MCA_plm=isolated OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

if [ "${BASH_SOURCE[0]}" = "$0" ] && [ $# -gt 0 ]; then
  cd "$prefix/share" && exec "$@"
fi
