#!/usr/bin/env bash
# Measures peers and ours side by side, see --help.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
said=bench/compare.sh$([ $# -eq 0 ] || printf " %q" "$@")

help() {
  cat <<'END'
bench/compare.sh [OPTIONS]: measures peers and ours side by side, and writes tables and plots.

  --rounds N            how often every cell is measured; tables show medians (default: 5)
  --limit-rounds N      rounds that measure the machine's limits, too (default: 1)
  --ranks N,...         numbers of ranks (default: 2,4,8)
  --tcp-congestion X    after the run, the TCP cells once more with this congestion control for all. It is
                        switched by sysctl net.ipv4.tcp_congestion_control, as root, and back at the end
  --only REGEX, --skip REGEX
                        of cells, as IMPLEMENTATION:OPERATION:RANKS
  --list                print the cells and their commands, and end
  --quick               one round of few iterations: to try it, the numbers mean nothing
  --out FOLDER          for the results (default: bench/results)
  --name NAME           of the files in it (default: the date and the kind of machine)
  --lines FILE          append what is measured here (default: build/bench/NAME.jsonl, written anew)
  --mw FILE             measure this program (default: build it)
  --report FILE         measure nothing; tables and plots from the lines in FILE

Writes FOLDER/NAME.md, and a plot of each of its tables in FOLDER/NAME. Everything that is compared runs one
after the other in an order that changes from round to round: on a shared machine only such numbers compare.

The peers (Open MPI, MPICH, Intel MPI, UCX, Gloo) and the programs that measure them are not part of this
repository:
  PEERS         the folder of their scripts (default: ../shared/peers beside the repository): setup.sh installs
                them; run.py --list prints lines NAME:OP:RANKS<tab>COMMAND with {op}, {ranks}, {port} and {tmp},
                of commands that print `RESULT <op> <size> <value> <unit>`, those of the machine's limits under
                the name phys
  PEERS_HOME    where they are installed (default: .peers in the repository)
Ours is `mw perf --results --check --pin`. Collectives other than AllReduce are those of bench/mpi_collectives.c,
compiled with every MPI library that is found. BUDGET is the time for a size of a cell in seconds (default: 0.3).

Exit status: 0, also when cells have failed (the report names them); 1 when nothing could be measured or written;
2 for wrong arguments, or when the peers are not here.
END
}

fail() { echo "bench/compare.sh: $2" >&2; exit "$1"; }

# Before anything reads them.
PEERS=${PEERS:-$root/../shared/peers}
export PEERS_HOME=${PEERS_HOME:-$root/.peers}
CARGO=${CARGO:-cargo}
CC=${CC:-cc}
PYTHON=${PYTHON:-python3}
rounds=5 limit_rounds=1 ranks=2,4,8 congestion='' list='' out=$root/bench/results name='' lines='' mw='' report=''
cells=()
while [ $# -gt 0 ]; do
  case $1 in
  --quick) rounds=1 BUDGET=0.03 ;;
  --list) list=1 ;;
  -h | --help) help; exit 0 ;;
  --rounds | --limit-rounds | --ranks | --tcp-congestion | --only | --skip | --out | --name | --lines | --mw | --report)
    [ $# -gt 1 ] || fail 2 "$1 wants a value; see --help"
    case $1 in
    --rounds) rounds=$2 ;;
    --limit-rounds) limit_rounds=$2 ;;
    --ranks) ranks=$2 ;;
    --tcp-congestion) congestion=$2 ;;
    --only | --skip) cells+=("$1" "$2") ;;
    --out) out=$2 ;;
    --name) name=$2 ;;
    --lines) lines=$2 ;;
    --mw) mw=$(realpath "$2") ;;
    --report) report=$2 ;;
    esac
    shift ;;
  *) fail 2 "$1: no such option; see --help" ;;
  esac
  shift
done
[[ $rounds =~ ^[1-9][0-9]*$ ]] || fail 2 "--rounds: $rounds is not a positive number"
[[ $limit_rounds =~ ^[0-9]+$ ]] || fail 2 "--limit-rounds: $limit_rounds is not a number"
[[ $ranks =~ ^[1-9][0-9]*(,[1-9][0-9]*)*$ ]] || fail 2 "--ranks: $ranks is not 2,4,..."
[ -z "${BUDGET:-}" ] || export BUDGET
command -v "$PYTHON" >/dev/null || fail 2 "$PYTHON is not installed"
here=$root/bench/compare
export PYTHONDONTWRITEBYTECODE=1

# Plots need matplotlib, in an environment of its own. Without a network there are tables only.
environment=$root/bench/.venv
plotting() {
  "$environment/bin/python" -c 'import matplotlib' 2>/dev/null && return
  echo "installing matplotlib into bench/.venv"
  "$PYTHON" -m venv "$environment" &&
    "$environment/bin/pip" install --quiet --disable-pip-version-check 'matplotlib>=3.8,<4'
}

write_report() {
  local with=("$PYTHON" "$here/report.py") options=(--folder "$out")
  if plotting; then
    with=("$environment/bin/python" "$here/report.py") && options+=(--plots)
  else
    echo "bench/compare.sh: matplotlib cannot be installed, so there are tables and no plots" >&2
  fi
  [ -z "$name" ] || options+=(--name "$name")
  "${with[@]}" "$1" "${options[@]}"
}

if [ -n "$report" ]; then
  [ -e "$report" ] || fail 2 "--report: there is no $report"
  write_report "$report"
  exit
fi

for script in setup.sh run.py; do
  [ -e "$PEERS/$script" ] || fail 2 "there is no $PEERS/$script.
  Set PEERS to the folder with the scripts that install and measure the peers; see --help."
done
PEERS=$(cd "$PEERS" && pwd)
[ -x "$PEERS_HOME/bin/mpibench.openmpi5" ] || fail 2 "the peers are not installed in $PEERS_HOME. Either install
them, as root:
  PEERS_HOME=$PEERS_HOME $PEERS/setup.sh
or set PEERS_HOME to where they are."

# Somebody else's congestion control, for as long as this runs.
control=/proc/sys/net/ipv4/tcp_congestion_control
if [ -n "$congestion" ]; then
  available=$(cat /proc/sys/net/ipv4/tcp_available_congestion_control)
  [[ " $available " == *" $congestion "* ]] ||
    fail 2 "--tcp-congestion: the kernel has $available, not $congestion (modprobe tcp_$congestion may load it)"
  [ -w $control ] || fail 2 "--tcp-congestion: only root may write to $control"
fi

if [ -z "$mw" ]; then
  (cd "$root" && "$CARGO" build --release -p multiworld-cli)
  mw=${CARGO_TARGET_DIR:-$root/target}/release/mw
fi
[ -x "$mw" ] || fail 2 "--mw: $mw cannot be run"

# The collectives with each MPI library. One that is not here is left out.
programs=$root/build/bench/mpi
mkdir -p "$programs"
rm -f "$programs"/*
collectives() { # library, compiler, flags...
  local library=$1
  shift
  if ! command -v "$1" >/dev/null; then
    echo "bench/compare.sh: $1 is not here, so there are no collectives of $library" >&2
  elif ! "$@" -O2 -o "$programs/mpi_collectives.$library" "$root/bench/mpi_collectives.c" ${link[@]+"${link[@]}"}; then
    fail 1 "bench/mpi_collectives.c cannot be compiled with $1"
  fi
}
link=()
collectives openmpi4 mpicc.openmpi
collectives openmpi5 "$PEERS_HOME/venv-ompi/bin/mpicc"
collectives mpich4 mpicc.mpich
intel=$PEERS_HOME/venv-intel
if [ -e "$intel/include/mpi.h" ]; then
  link=(-L"$intel/lib" -lmpi "-Wl,-rpath,$intel/lib")
  collectives impi "$CC" -I"$intel/include"
fi

run=("$PYTHON" "$here/rounds.py" --peers "$PEERS" --mw "$mw" --mpi "$programs" --ranks "$ranks" --rounds "$rounds"
  --limit-rounds "$limit_rounds" --peers-home "$PEERS_HOME" --command "$said" ${cells[@]+"${cells[@]}"})
if [ -n "$list" ]; then
  "${run[@]}" --out /dev/null --list
  exit
fi
if [ -z "$lines" ]; then
  lines=$root/build/bench/${name:-compare}.jsonl
  rm -f "$lines"
fi
"${run[@]}" --out "$lines"
if [ -n "$congestion" ]; then
  default=$(cat $control)
  # shellcheck disable=SC2064 # as it is now
  trap "echo $default > $control" EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  echo "$congestion" >$control
  "${run[@]}" --tcp-set "tcp, $congestion" --out "$lines"
  echo "$default" >$control
  trap - EXIT INT TERM
fi
write_report "$lines"
