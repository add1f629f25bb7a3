#!/usr/bin/env bash
# What each promise costs, see --help.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

help() {
  cat <<'END'
bench/promises.sh [OPTIONS]: what each promise costs that the library makes on the path of an operation.

Builds the mw command once as it is and once without each promise, measures all of them in turns, pinned, and prints
for each promise and operation the time with it, without it, and the difference: medians over rounds of pairs.

  --rounds N            pairs of measurements (default: 31)
  --seconds S           for each operation in each of them (default: 0.05)
  --only PROMISE,...    these promises
  --all-sizes           latency, bandwidth and AllReduce from 8 B to 64 MB, in place of a few small ones
  --quick               two rounds, unoptimised builds: to try it, the numbers mean nothing
  --check               compile the library without each promise, and measure nothing
  --build               build what is measured, and measure nothing
  --out FILE            write the table as markdown, too

  watchdog      heartbeats and looks at the peers' signs of life
  deadlines     the time until which an operation has to be done, and the clock that is read for it
  fingerprints  what was called travels in front of every message and is compared, with its number (over shared
                memory). There is no epoch in it: each membership has rings and connections of its own, so that
                what an older one has sent is nowhere to be read from
  handles       handles are looked up, by number and generation, and kept in place meanwhile

Events and callbacks are not on the path of an operation that goes well, so there is nothing to turn off. Builds are
kept in build/promises. Run it on a quiet machine, as root under `chrt -f 10` where others use it, too.
Exit status: 0; 1 when something cannot be built or measured; 2 for wrong arguments.
END
}

fail() { echo "bench/promises.sh: $2" >&2; exit "$1"; }

CARGO=${CARGO:-cargo}
PYTHON=${PYTHON:-python3}
all=watchdog,deadlines,fingerprints,handles
rounds=31 seconds=0.05 only=$all out='' sizes='' mode=measure profile=release
while [ $# -gt 0 ]; do
  case $1 in
  --quick) rounds=2 seconds=0.01 profile=dev ;;
  --all-sizes) sizes=--all-sizes ;;
  --check) mode=check ;;
  --build) mode=build ;;
  -h | --help) help; exit 0 ;;
  --rounds | --seconds | --only | --out)
    [ $# -gt 1 ] || fail 2 "$1 wants a value; see --help"
    case $1 in
    --rounds) rounds=$2 ;;
    --seconds) seconds=$2 ;;
    --only) only=$2 ;;
    --out) out=$2 ;;
    esac
    shift ;;
  *) fail 2 "$1: no such option; see --help" ;;
  esac
  shift
done
[[ $rounds =~ ^[1-9][0-9]*$ ]] || fail 2 "--rounds: $rounds is not a positive number"
[[ $seconds =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail 2 "--seconds: $seconds is not a number of seconds"
IFS=, read -ra promises <<<"$only"
for promise in "${promises[@]}"; do
  [[ ,$all, == *",$promise,"* ]] || fail 2 "--only: $promise is none of $all"
done

# Each variant has a compiler of its own for the packages of this repository. They share what these depend on, and cargo
# keeps them apart. The target folder is not that of normal builds.
builds=$root/build/promises
mkdir -p "$builds"
variant() { # promise
  local wrapper=$builds/rustc-without-$1
  printf '#!/bin/sh\nrustc=$1\nshift\nexec "$rustc" --cfg %s "$@"\n' "'mw_without=\"$1\"'" >"$wrapper.new"
  chmod +x "$wrapper.new"
  # Cargo looks at its date.
  if cmp -s "$wrapper.new" "$wrapper"; then rm "$wrapper.new"; else mv "$wrapper.new" "$wrapper"; fi
  echo "$wrapper"
}
run_cargo() { # wrapper or nothing, arguments...
  local wrapper=$1
  shift
  (cd "$root" && RUSTC_WORKSPACE_WRAPPER=$wrapper CARGO_TARGET_DIR=$builds/target "$CARGO" "$@")
}

if [ $mode = check ]; then
  for promise in "${promises[@]}"; do
    run_cargo "$(variant "$promise")" check --quiet -p multiworld || fail 1 "without $promise it does not compile"
  done
  echo "compiles without each of $only"
  exit
fi

folder=$profile
[ $profile != dev ] || folder=debug
build() { # name, wrapper
  run_cargo "$2" build --quiet --profile $profile -p multiworld-cli --bin mw || fail 1 "$1 cannot be built"
  cmp -s "$builds/target/$folder/mw" "$builds/mw-$profile-$1" ||
    install -m 755 "$builds/target/$folder/mw" "$builds/mw-$profile-$1"
}
build everything ''
for promise in "${promises[@]}"; do
  build "without-$promise" "$(variant "$promise")"
done
[ $mode != build ] || exit 0
command -v "$PYTHON" >/dev/null || fail 2 "$PYTHON is not installed"
export PYTHONDONTWRITEBYTECODE=1 MW_IFNAME=${MW_IFNAME:-lo}
"$PYTHON" "$root/bench/promises.py" --builds "$builds" --profile $profile --promises "$only" --rounds "$rounds" \
  --seconds "$seconds" ${sizes:+"$sizes"} ${out:+--out "$out"}
