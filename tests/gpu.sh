#!/usr/bin/env bash
# Tests on a real GPU, from files that were built before: gpu.sh [PART...], in a folder that `make gpu-kit` has
# filled. It needs bash, an NVIDIA driver and NCCL; python3 with torch for one part. No network, no compiler.
#
# Parts: where operations kill abort cycles overhead unmodified mixed torch; without any, all of them.
#
#   OUT              where the report and the logs go; "out" beside this file
#   MW_NCCL_LIB      NCCL; else that of the Python package nvidia-nccl, else what the loader finds
#   MW_GPU_RANKS     multi or hostid: how ranks share the GPU; else what works
#   MW_GPU_CYCLES, MW_GPU_CYCLES_SECONDS   how many worlds are made and destroyed, and for how long at most
#   MW_GPU_TEST_DOUBLES   a folder with doubles of CUDA and NCCL, to try this file without a GPU
#
# Prints one line per part, "gpu PART: ok (SECONDS s)", "... FAILED (...)" or "... skipped (why)". Where there is
# no GPU it says so and ends well.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
PARTS=(where operations kill abort cycles overhead unmodified mixed torch)
OUT=${OUT:-$here/out}
mkdir -p "$OUT" || exit 1
OUT=$(cd "$OUT" && pwd) || exit 1
REPORT=$OUT/gpu-$(date +%Y-%m-%d).md
# More than a part takes, so that nothing hangs for ever.
LIMIT=${LIMIT:-280}
PYTHON=${PYTHON:-python3}
DROP_IN=$here/libmultiworld_nccl.so
DOUBLES=${MW_GPU_TEST_DOUBLES:-}
failed=0

for part in "$@"; do
  case " ${PARTS[*]} " in
  *" $part "*) ;;
  *)
    echo "gpu.sh: no part '$part'; there are: ${PARTS[*]}" >&2
    exit 2
    ;;
  esac
done
[ $# -gt 0 ] || set -- "${PARTS[@]}"

note() { printf '%s\n' "$*" | tee -a "$REPORT"; }

# Where the torch that will be tested, or any other Python package, has NCCL.
find_nccl() {
  command -v "$PYTHON" >/dev/null || return 0
  "$PYTHON" - 2>/dev/null <<'PYTHON'
import importlib.util, os
spec = importlib.util.find_spec("nvidia.nccl")
for folder in spec.submodule_search_locations if spec else []:
    path = os.path.join(folder, "lib", "libnccl.so.2")
    if os.path.isfile(path):
        print(path)
        break
PYTHON
}

if [ -n "$DOUBLES" ]; then
  export LD_LIBRARY_PATH=$DOUBLES MW_NCCL_LIB=$DOUBLES/libnccl.so.2
elif [ -z "${MW_NCCL_LIB:-}" ]; then
  MW_NCCL_LIB=$(find_nccl)
  if [ -n "$MW_NCCL_LIB" ]; then export MW_NCCL_LIB; else unset MW_NCCL_LIB; fi
fi
export MW_IFNAME=lo NCCL_SOCKET_IFNAME=lo MW_GPU_REPORT=$REPORT MW_GPU_DROPIN=$DROP_IN

# run PART COMMAND...: 77 is "skipped", and the reason the last line that says so.
run() {
  local part=$1 log=$OUT/$1.log start=$SECONDS code=0
  shift
  timeout --kill-after=10 "$LIMIT" "$@" </dev/null >"$log" 2>&1 || code=$?
  case $code in
  0)
    note ""
    note "gpu $part: ok ($((SECONDS - start)) s)"
    ;;
  77)
    note ""
    note "gpu $part: skipped ($(sed -n 's/.*skipped: //p' "$log" | tail -n 1))"
    ;;
  *)
    tail -n 60 "$log" | sed 's/^/    /'
    note ""
    note "gpu $part: FAILED (exit code $code after $((SECONDS - start)) s)"
    failed=1
    ;;
  esac
}

# What follows is called by name, from a shell that can be ended when it takes too long.
# shellcheck disable=SC2329
{
# Tests of the program whose names begin so.
tests() {
  "$here/gpu-test" --nocapture --test-threads=1 "$1"
}

# How a program that was not written for it shares the GPU with its like.
share() {
  if [ -n "$DOUBLES" ]; then
    "$@"
  elif [ "${MW_GPU_RANKS:-}" = multi ]; then
    NCCL_MULTI_RANK_GPU_ENABLE=1 NCCL_NVLS_ENABLE=0 "$@"
  else
    LD_PRELOAD=$here/hostid.so${LD_PRELOAD:+:$LD_PRELOAD} NCCL_NET=Socket NCCL_IB_DISABLE=1 "$@"
  fi
}

# A program for NCCL that takes device memory: as it was built, or compiled here where there are headers.
with_cuda() {
  local cuda nccl compiler
  program=$here/nccl_with_cuda
  if [ -x "$program" ]; then
    why=$(LD_PRELOAD=$DROP_IN ldd "$program" | grep 'not found') || return 0
  else
    why="it was not built with CUDA_HOME and NCCL_HOME"
  fi
  compiler=$(command -v gcc || command -v cc || command -v clang) || { why="$why; no C compiler here"; return 1; }
  cuda=${CUDA_HOME:-$(command -v nvcc | sed 's|/bin/nvcc$||')}
  cuda=${cuda:-/usr/local/cuda}
  nccl=${NCCL_HOME:-${MW_NCCL_LIB:+$(dirname "$(dirname "$MW_NCCL_LIB")")}}
  for nccl in "$nccl" /usr; do
    [ ! -f "$nccl/include/nccl.h" ] || break
  done
  [ -f "$cuda/include/cuda_runtime.h" ] || { why="$why; no cuda_runtime.h here"; return 1; }
  [ -f "$nccl/include/nccl.h" ] || { why="$why; no nccl.h here"; return 1; }
  program=$OUT/nccl_with_cuda
  why="it does not compile here"
  "$compiler" -std=c99 -O2 -DWITH_CUDA -isystem "$nccl/include" -isystem "$cuda/include" \
    "$here/nccl_unmodified.c" -o "$program" "$DROP_IN" -L"$cuda/lib64" -L"$cuda/lib" -lcudart \
    -Wl,-rpath,"$cuda/lib64:$cuda/lib"
}

unmodified() {
  local out program why=
  with_cuda || { echo "skipped: nccl_unmodified with device memory: $why"; return 77; }
  out=$(export LD_PRELOAD=$DROP_IN MW_BACKEND=nccl; share "$program" --ranks 2 --seconds 9 --kill 1 2>&1) || {
    echo "$out"
    return 1
  }
  echo "$out"
  sed -n 's/^rank 0: \([0-9]* ms after.*\)/- nccl_unmodified under LD_PRELOAD: \1/p' <<<"$out" | tee -a "$REPORT"
  grep -q 'goes on with 1 ranks: 0' <<<"$out" && grep -q '^1 of 2 ranks came to the end' <<<"$out" &&
    grep -q ': 1 ranks, .* all sums right' <<<"$out"
}

mixed() {
  local out code=0
  out=$(export LD_LIBRARY_PATH=$here${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}; share "$here/mixed_backends" 2>&1) ||
    code=$?
  echo "$out"
  case $out in *skipped:*) return 77 ;; esac
  [ "$code" -eq 0 ] && grep -q '^mixed_backends: ok' <<<"$out"
}

torch() {
  local code=0 settings=("MW_BACKEND=nccl") out
  [ -z "$DOUBLES" ] || { echo "skipped: torch brings a CUDA runtime that the doubles do not replace"; return 77; }
  command -v "$PYTHON" >/dev/null || { echo "skipped: no $PYTHON"; return 77; }
  if [ "${MW_GPU_RANKS:-}" = multi ]; then
    settings+=(NCCL_MULTI_RANK_GPU_ENABLE=1 NCCL_NVLS_ENABLE=0)
  else
    settings+=(NCCL_NET=Socket NCCL_IB_DISABLE=1)
  fi
  out=$(PYTHONDONTWRITEBYTECODE=1 "$PYTHON" "$here/torch_killed.py" "$DROP_IN" "${settings[@]}" 2>&1) || code=$?
  echo "$out"
  grep '^- torch' <<<"$out" >>"$REPORT"
  return "$code"
}
}
export -f tests share with_cuda unmodified mixed torch
export here DROP_IN DOUBLES OUT REPORT PYTHON

: >"$REPORT"
note "# One GPU"
note ""
note "$(date -u '+%Y-%m-%d %H:%M UTC'), $(uname -sr), $(nproc) CPUs"
note ""
[ -z "$DOUBLES" ] || note "- over the doubles in '$DOUBLES': no figure here means anything"

# First, whether there is anything to test, and how.
if ! timeout --kill-after=10 "$LIMIT" "$here/gpu-test" --nocapture --exact place::where_it_runs \
  </dev/null >"$OUT/where.log" 2>&1; then
  tail -n 60 "$OUT/where.log"
  note "gpu where: FAILED"
  exit 1
fi
why=$(sed -n 's/.*skipped: //p' "$OUT/where.log" | head -n 1)
if [ -n "$why" ]; then
  echo "gpu: skipped ($why)"
  exit 0
fi
sed -n 's/^test [^ ]* \.\.\. //; /^- /p' "$OUT/where.log"
case $(grep 'ranks share the device by' "$REPORT") in
*MULTI_RANK*) export MW_GPU_RANKS=multi ;;
*HOSTID*) export MW_GPU_RANKS=hostid ;;
esac

for part in "$@"; do
  case $part in
  where) continue ;;
  operations) run "$part" bash -c 'tests conformance::' ;;
  kill | abort | cycles | overhead) run "$part" bash -c "tests $part::" ;;
  unmodified | mixed | torch) run "$part" bash -c "$part" ;;
  esac
  # The figures, which went to the report only.
  [ ! -f "$OUT/$part.log" ] || grep -E '^(-|  -|\||###|Each)' "$OUT/$part.log" || true
done
echo "report: $REPORT"
exit $failed
