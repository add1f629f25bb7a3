#!/usr/bin/env bash
# Regenerates types.rs and functions.rs from NCCL's headers: `make bindings`. Needs bindgen (cargo install
# bindgen-cli), libclang, and the headers: NCCL_INCLUDE and CUDA_INCLUDE, or else pip, which downloads them.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
NCCL=2.32.3

if [ -z "${NCCL_INCLUDE:-}" ] || [ -z "${CUDA_INCLUDE:-}" ]; then
  pip download --quiet --no-deps --dest "$work" nvidia-nccl-cu13==$NCCL nvidia-cuda-runtime nvidia-cuda-crt \
    nvidia-cuda-cccl
  for wheel in "$work"/*.whl; do
    python3 -m zipfile -e "$wheel" "$work"
  done
  NCCL_INCLUDE=$work/nvidia/nccl/include
  CUDA_INCLUDE=$work/nvidia/cu13/include
fi

# What the device API's structs hold is between NCCL and kernels: they pass as plain pointers.
cat >"$work/all.h" <<'EOF'
#define NCCL_OS_LINUX 1
#include <nccl.h>
#include <nccl_device.h>
EOF
header="// Made by src/nccl/bindings.sh from the headers of NCCL $NCCL; not edited by hand."
{
  echo "//! The types and constants of NCCL's C interface, version $NCCL."
  echo "$header"
  echo "#![allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]"
  bindgen "$work/all.h" --default-enum-style consts --no-prepend-enum-name --ctypes-prefix core::ffi --use-core \
    --no-doc-comments --ignore-functions --opaque-type ncclMultimemHandle \
    --allowlist-type 'nccl(Result|DataType|RedOp|ScalarResidence|CommMemStat)_t' \
    --allowlist-type 'nccl(UniqueId|Config_t|CollConfig_t|SimInfo_t|WaitSignalDesc_t|EncryptionConfig_t)' \
    --allowlist-type 'nccl(Comm_t|Window_t|ParamHandle_t|Team_t|MultimemHandle_t)' \
    --allowlist-var 'NCCL_(MAJOR|MINOR|PATCH|VERSION_CODE|UNIQUE_ID_BYTES|CONFIG_UNDEF_INT|SPLIT_NOCOLOR|API_MAGIC)' \
    --allowlist-var 'NCCL_(SHRINK|WIN|SUSPEND|REVOKE)_.*' \
    -- -I"$NCCL_INCLUDE" -I"$CUDA_INCLUDE" | sed '/automatically generated/d'
} >"$work/types.rs"

functions() {
  bindgen "$work/all.h" --default-enum-style consts --ctypes-prefix core::ffi --use-core --no-doc-comments \
    --no-layout-tests --generate functions --allowlist-function 'nccl.*' --formatter none \
    -- -I"$NCCL_INCLUDE" -I"$CUDA_INCLUDE" |
    tr -d '\n' | sed 's/pub fn/\nfn/g; s/} *unsafe extern "C" {//g' | sed -n 's/^\(fn nccl[^;]*;\).*/\1/p' |
    sed -E 's/ +/ /g; s/ :: /::/g; s/:: /::/g; s/ ::/::/g; s/ :/:/g; s/ ,/,/g; s/ ;/;/g; s/\( /(/g; s/ \)/)/g; s/ \(/(/g; s/->/ -> /; s/ +/ /g' |
    sed -E 's/ ?core::ffi::/ /g; s/\* ?(mut|const) +/*\1 /g; s/(cudaStream_t|cudaEvent_t)/*mut c_void/g' |
    sed -E 's/\*(mut|const) nccl(DevComm|DevCommRequirements|CommProperties|LsaBarrierHandle|GinBarrierHandle|CftBarrierHandle|LLA2AHandle|DevResourceRequirements|GinOutboxHandle|GinInboxA2AHandle)(_t)?\b/*\1 c_void/g; s/ncclCftTeamMode_t/c_uint/g; s/\*mut ncclCftLeId(_t)?/*mut u32/g'
}
# In C++ only, and in no header.
others() {
  cat <<'EOF'
fn ncclGinOutboxCreateRequirement(nBlocks: c_int, size_log2: c_int, outHandle: *mut c_void, outReq: *mut c_void) -> ncclResult_t;
fn ncclGinInboxA2ACreateRequirement(peers: ncclTeam_t, nBlocks: c_int, size_log2: c_int, outHandle: *mut c_void, outReq: *mut c_void) -> ncclResult_t;
fn ncclResetDebugInitInternal();
EOF
}

if [ -e "$NCCL_INCLUDE/../lib/libnccl.so.2" ]; then
  nm -D --defined-only "$NCCL_INCLUDE/../lib/libnccl.so.2" | awk '{ print $NF }' | LC_ALL=C sort >"$here/symbols.txt"
fi
{
  echo "//! The functions of NCCL's C interface, version $NCCL: one list for whoever makes something of each of them."
  echo "$header"
  echo
  echo "/// Calls the macro \`\$use\` with the declarations of all functions that the library exports."
  echo '#[macro_export]'
  echo 'macro_rules! nccl_functions {'
  echo '    ($use:ident) => {'
  echo '        $use! {'
  # A header may declare more than the library has.
  { functions; echo; others; } | while read -r line; do
    name=${line#fn }
    grep -qx "${name%%(*}" "$here/symbols.txt" && echo "            $line" || true
  done
  echo '        }'
  echo '    };'
  echo '}'
} >"$work/functions.rs"
rustfmt --edition 2024 "$work/types.rs"
cp "$work/types.rs" "$work/functions.rs" "$here"
