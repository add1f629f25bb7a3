#!/usr/bin/env bash
# Runs every check, goes on after a failure, and fails at the end if any failed. Prints one line per check,
# "check NAME: ok (SECONDS s)", "... FAILED (...)" or "... skipped (why)"; cargo's own "test result:" lines count
# its tests. Logs are kept in build/logs.
set -u
cd "$(dirname "$0")/.." || exit 1
CARGO=${CARGO:-cargo}
CC=${CC:-cc}
LOGS=build/logs
# More than any check takes, so that nothing hangs for ever.
LIMIT=${LIMIT:-600}
failed=0
mkdir -p "$LOGS"

# Tenths of a second since $1, which is a value of EPOCHREALTIME, as "S.T".
since() {
  local now=$EPOCHREALTIME tenths
  tenths=$((((${now/[.,]/} - ${1/[.,]/})) / 100000))
  echo "$((tenths / 10)).$((tenths % 10))"
}

# check NAME COMMAND...: runs it quietly, shows its output if it fails.
check() {
  local name=$1 start=$EPOCHREALTIME log code
  shift
  log=$LOGS/${name//[\/ ]/-}.log
  if timeout --kill-after=10 "$LIMIT" "$@" >"$log" 2>&1 </dev/null; then
    echo "check $name: ok ($(since "$start") s)"
  else
    code=$?
    sed 's/^/    /' "$log"
    echo "check $name: FAILED (exit code $code after $(since "$start") s)"
    failed=1
  fi
}

skip() { echo "check $1: skipped ($2)"; }

have() { command -v "$1" >/dev/null; }

begin=$EPOCHREALTIME
check format "$CARGO" fmt --all --check
check clippy "$CARGO" clippy --quiet --workspace --all-targets -- -D warnings
check documentation env RUSTDOCFLAGS="-D warnings" "$CARGO" doc --quiet --workspace --no-deps

have etcd || skip "stores in etcd, among cargo's tests" "etcd is not installed"
have openssl || skip "etcd through TLS, among cargo's tests" "openssl is not installed"
why=
if ! have ip; then
  why="ip is not installed"
elif [ ! -e /dev/net/tun ]; then
  why="there is no /dev/net/tun"
elif ! unshare --net true 2>/dev/null; then
  why="making network namespaces takes root"
fi
[ -z "$why" ] || skip "worlds between machines, among cargo's tests" "$why"
check "clippy without etcd" "$CARGO" clippy --quiet -p multiworld --no-default-features --lib --tests -- -D warnings

# Rust tests are counted by cargo.
start=$EPOCHREALTIME
timeout --kill-after=10 1800 "$CARGO" test --workspace --no-fail-fast 2>&1 | tee "$LOGS/cargo.log"
code=${PIPESTATUS[0]}
echo "cargo test took $(since "$start") s"
if [ "$code" -ne 0 ]; then
  failed=1
  # Tests that failed have said so; one that was killed or did not compile has not.
  grep -q '^test result: FAILED' "$LOGS/cargo.log" || echo "check cargo test: FAILED (exit code $code)"
fi

check build make --no-print-directory -j2 lib examples c-tests doubles

# The header with every compiler there is, twice included and with its macros used.
header_as() { # file suffix, compiler, flags...
  local unit=build/header_check.$1
  shift
  printf '%s\n' '#include <multiworld.h>' '#include <multiworld.h>' 'int main(void) {' \
    '  mwConfig_t config = MW_CONFIG_INITIALIZER;' \
    '  return config.size != sizeof config || mwSuccess != 0 || mwFloat != mwFloat32;' '}' >"$unit"
  "$@" -Wall -Wextra -Werror -pedantic -Iinclude -fsyntax-only "$unit"
}
export -f header_as
check "header as C99, $CC" bash -c 'header_as c "$0" -std=c99' "$CC"
for compiler in gcc clang; do
  if have $compiler; then
    check "header as C99, $compiler" bash -c 'header_as c "$0" -std=c99' $compiler
  else
    skip "header as C99, $compiler" "$compiler is not installed"
  fi
done
for compiler in g++ clang++; do
  if have $compiler; then
    check "header as C++17, $compiler" bash -c 'header_as cc "$0" -std=c++17' $compiler
  else
    skip "header as C++17, $compiler" "$compiler is not installed"
  fi
done

# The library exports exactly the functions that the header declares.
symbols() {
  local declared exported
  declared=$(printf '#include <multiworld.h>\n' | "$CC" -E -P -Iinclude - | tr '\n' ' ' |
    grep -oE '\bmw[A-Z][A-Za-z0-9]* *\(' | tr -d ' (' | sort -u)
  exported=$(nm -D --defined-only build/lib/libmultiworld.so | awk '{ print $NF }' | sed 's/@.*//' | sort -u)
  [ -n "$declared" ] || { echo "no function found in the header"; return 1; }
  diff <(echo "$declared") <(echo "$exported") ||
    { echo "< only in the header, > only in the library"; return 1; }
}
export -f symbols
export CC
check symbols bash -c symbols

# The stand-in for NCCL exports all that the genuine one does; programs may take any of it.
drop_in_symbols() {
  local exported missing
  exported=$(nm -D --defined-only build/lib/libmultiworld_nccl.so | awk '{ print $NF }' | sed 's/@.*//' | sort -u)
  [ -s src/nccl/symbols.txt ] || { echo "src/nccl/symbols.txt is empty"; return 1; }
  missing=$(comm -23 <(sort -u src/nccl/symbols.txt) <(echo "$exported"))
  [ -z "$missing" ] || { echo "not exported: $missing"; return 1; }
}
export -f drop_in_symbols
check "drop-in symbols" bash -c drop_in_symbols

# soname FILE NAME
soname() { readelf -d "$1" | grep -qF "Library soname: [$2]"; }
export -f soname
check soname bash -c 'soname build/lib/libmultiworld.so.1 libmultiworld.so.1'
check "drop-in soname" bash -c 'soname build/lib/libmultiworld_nccl.so libnccl.so.2'

export MW_IFNAME=lo

# What the README says to somebody who wants to build against the library: its own example, its own commands.
installed() {
  local root=$1 flags
  make --no-print-directory install DESTDIR="$root" PREFIX=/opt/mw || return 1
  [ -e "$root/opt/mw/lib/libmultiworld.so.1" ] && [ -e "$root/opt/mw/lib/libmultiworld.so" ] || return 1
  tests/extract.sh README.md >"$root/hello.c" || return 1
  if command -v pkg-config >/dev/null; then
    flags=$(PKG_CONFIG_PATH=$root/opt/mw/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root \
      pkg-config --cflags --libs multiworld) || return 1
  else
    flags="-I$root/opt/mw/include -L$root/opt/mw/lib -lmultiworld"
  fi
  # shellcheck disable=SC2086 # several words
  "$CC" "$root/hello.c" -o "$root/hello" $flags -Wl,-rpath,"$root/opt/mw/lib" &&
    MW_STORE="tcp://127.0.0.1:$((20000 + RANDOM % 10000))" "$root/hello" &&
    # An example, taken along.
    cp c_examples/send_recv.c c_examples/common.h "$root" &&
    "$CC" "$root/send_recv.c" -o "$root/send_recv" $flags -Wl,-rpath,"$root/opt/mw/lib" && "$root/send_recv"
}

# The drop-in is installed under NCCL's names in a folder of its own, and nowhere else.
drop_in_installed() {
  local root=$1 folder=$1/opt/mw/lib/multiworld/nccl file
  file=$(readlink -f "$folder/libnccl.so.2") && [ -f "$file" ] || { echo "no libnccl.so.2"; return 1; }
  [[ ${file##*/} =~ ^libmultiworld_nccl\.so\.[0-9]+\.[0-9]+\.[0-9]+$ ]] || { echo "$file"; return 1; }
  [ "$(readlink -f "$folder/libnccl.so")" = "$file" ] || { echo "no libnccl.so"; return 1; }
  soname "$file" libnccl.so.2 || { echo "wrong soname"; return 1; }
  [ "$(find "$root" -name '*nccl*.so*' -not -path "$folder/*" | wc -l)" -eq 0 ] || { echo "one elsewhere"; return 1; }
}
export -f drop_in_installed
export -f installed
root=$(mktemp -d) || exit 1
trap 'rm -rf "$root"' EXIT
have pkg-config || skip "install through pkg-config" "pkg-config is not installed"
check install bash -c 'installed "$0"' "$root"
check "install of the drop-in" bash -c 'drop_in_installed "$0"' "$root"

# A plain NCCL program that gets the drop-in from outside, and goes on when one of its ranks is killed.
drop_in=$PWD/build/lib/nccl/libnccl.so.2
unmodified() {
  local out
  out=$(LD_PRELOAD=$1 MW_BACKEND=${MW_BACKEND:-host} "${2:-build/examples/nccl_unmodified}" --seconds 3 --kill 2) ||
    { echo "$out"; return 1; }
  echo "$out"
  grep -q 'goes on with 3 ranks: 0 1 3' <<<"$out" && grep -q '^3 s: 3 ranks, .* all sums right' <<<"$out" &&
    grep -q '^3 of 4 ranks came to the end' <<<"$out"
}
export -f unmodified
plain() { ! grep -inE 'multiworld|\bmw' c_examples/nccl_unmodified.c; }
export -f plain
check "c_examples/nccl_unmodified knows nothing of us" bash -c plain

# On the genuine NCCL's side of the drop-in: over the double, without CUDA and with it.
doubles=$PWD/build/doubles
on_double=(env MW_BACKEND=nccl MW_NCCL_LIB="$doubles/libnccl.so.2" MW_DOUBLE_CUDA=devices=4)
check "c_examples/nccl_unmodified over the double of NCCL" "${on_double[@]}" bash -c 'unmodified "$0"' "$drop_in"
with_cuda() {
  "$CC" -std=c99 -Wall -Wextra -Werror -pedantic -DWITH_CUDA -isystem "$NCCL_INCLUDE" -isystem "$CUDA_INCLUDE" \
    c_examples/nccl_unmodified.c -o build/nccl_with_cuda -Lbuild/lib/nccl -lnccl -Lbuild/doubles -lcudart || return 1
  LD_LIBRARY_PATH=$PWD/build/doubles unmodified "$1" build/nccl_with_cuda
}
export -f with_cuda
if [ -n "${NCCL_INCLUDE:-}" ] && [ -n "${CUDA_INCLUDE:-}" ]; then
  check "c_examples/nccl_unmodified with CUDA over the doubles" "${on_double[@]}" bash -c 'with_cuda "$0"' "$drop_in"
else
  skip "c_examples/nccl_unmodified with CUDA" "NCCL_INCLUDE and CUDA_INCLUDE do not say where the headers are"
fi

# The README's commands for it, which kill a rank of their own.
preloaded() {
  local out
  out=$(MW_BACKEND=host bash -c "$(awk '/^```sh$/ { block = ""; inside = 1; next }
    /^```$/ { if (inside && block ~ /LD_PRELOAD/) { printf "%s", block; exit } inside = 0 }
    inside { block = block $0 "\n" }' README.md)" 2>&1) || { echo "$out"; return 1; }
  echo "$out"
  grep -q '^3 of 4 ranks came to the end' <<<"$out"
}
export -f preloaded
check "README drop-in" bash -c preloaded

# A world on device memory beside one on host memory: with what this machine has, and over the doubles.
mixed=$(build/examples/mixed_backends 2>&1)
case $mixed in
*skipped:*) skip c_examples/mixed_backends "${mixed#*skipped: }" ;;
*) check c_examples/mixed_backends build/examples/mixed_backends ;;
esac
mixed() { build/examples/mixed_backends | tee /dev/stderr | grep -q '^mixed_backends: ok'; }
export -f mixed

# Python programs that use NCCL, where they are installed: vLLM's own wrapper, which MW_TEST_VLLM_WRAPPER may
# name (vllm/distributed/device_communicators/pynccl_wrapper.py), and nccl4py.
PYTHON=${PYTHON:-python3}
for client in vllm nccl4py; do
  if ! have "$PYTHON"; then
    skip "tests/clients/$client" "$PYTHON is not installed"
  elif why=$(PYTHONDONTWRITEBYTECODE=1 "$PYTHON" tests/clients/run.py $client 2>&1); then
    check "tests/clients/$client" env PYTHONDONTWRITEBYTECODE=1 "$PYTHON" tests/clients/run.py $client "$drop_in"
  else
    skip "tests/clients/$client" "${why##*$'\n'}"
  fi
done

# The summary of several kills: none lost, none wrong.
recovers() {
  local last
  last=$(build/examples/elastic_pipeline --rounds 3 --requests 4000 --quiet "$@" README.md) ||
    { echo "$last"; return 1; }
  echo "$last"
  [[ $last == "requests 4000 ok 4000 lost 0 wrong 0, 3 rounds: "* ]]
}
export -f recovers

for transport in shm tcp; do
  check "c_examples/nccl_unmodified $transport" env MW_TRANSPORT=$transport bash -c 'unmodified "$0"' "$drop_in"
  check "c_examples/mixed_backends over the doubles $transport" env MW_TRANSPORT=$transport \
    LD_LIBRARY_PATH="$PWD/build/doubles" MW_NCCL_LIB="$PWD/build/doubles/libnccl.so.2" bash -c mixed
  for source in tests/c/*.c; do
    name=$(basename "$source" .c)
    check "tests/c/$name $transport" env MW_TRANSPORT=$transport build/tests/"$name"
  done
  for source in c_examples/*.c; do
    name=$(basename "$source" .c)
    [[ $name != nccl_unmodified && $name != mixed_backends ]] || continue
    check "c_examples/$name $transport" env MW_TRANSPORT=$transport build/examples/"$name"
  done
  check "c_examples/elastic_pipeline $transport" \
    env MW_TRANSPORT=$transport build/examples/elastic_pipeline --requests 3000 README.md
  # Its other ways to recover, several times in a run: with a spare that waits, and with one that is only started.
  [[ $transport == shm ]] && spare=--spare || spare=
  for how in reform grow; do
    # shellcheck disable=SC2086 # no word, or one
    check "c_examples/elastic_pipeline $how $transport" env MW_TRANSPORT=$transport \
      bash -c 'recovers "$@"' recovers --recover $how $spare
    sed -n 's/^requests/    &/p' "$LOGS/c_examples-elastic_pipeline-$how-$transport.log"
  done
  check "README quick start $transport" env MW_TRANSPORT=$transport \
    MW_STORE="tcp://127.0.0.1:$((20000 + RANDOM % 10000))" build/tests/quick_start
done

# Facilities that old kernels and containers lack must have a substitute that works.
for missing in futex_waitv robust cma memfd futex_waitv,robust,cma,memfd; do
  check "c_examples/all_reduce without $missing" env MW_DISABLE=$missing build/examples/all_reduce
  check "c_examples/peer_failure without $missing" env MW_DISABLE=$missing build/examples/peer_failure
done

# The tests on a real GPU. Where there is one they were among cargo's; else they are tried over the doubles.
gpu=$("$CARGO" test --quiet --test gpu -- --exact place::where_it_runs --nocapture 2>&1 </dev/null)
case $gpu in
*skipped:*) skip test-gpu "$(sed -n 's/.*skipped: //p' <<<"$gpu" | head -n 1)" ;;
*) echo "check test-gpu: among cargo's tests; 'make test-gpu' prints the figures" ;;
esac
check "tests/gpu over the doubles" env MW_GPU_TEST_DOUBLES="$doubles" "$CARGO" test --test gpu
if have shellcheck; then
  check "tests/gpu.sh" shellcheck tests/gpu.sh
else
  check "tests/gpu.sh" bash -n tests/gpu.sh
fi

check "bench/dropin runs" make --no-print-directory bench-dropin BENCH_FLAGS="--batches 5 --calls 100"

# What promises cost, and how worlds and processes scale: whether it runs; the numbers of such short runs mean nothing.
if have shellcheck; then
  check "bench/promises.sh" shellcheck bench/promises.sh
else
  check "bench/promises.sh" bash -n bench/promises.sh
fi
check "bench/promises.sh compiles without each promise" bench/promises.sh --check
# Builds take minutes: the same program stands for all of them.
promises() {
  local folder=build/tests/promises mw=${CARGO_TARGET_DIR:-target}/debug/mw out name
  mkdir -p $folder
  for name in everything without-watchdog without-handles; do ln -sf "$(realpath "$mw")" $folder/mw-dev-$name; done
  out=$("$PYTHON" -B bench/promises.py --builds $folder --profile dev --promises watchdog,handles --rounds 2 \
    --seconds 0.01 --out $folder/table.md) || return 1
  echo "$out"
  [ "$(grep -c '^watchdog .*AllReduce, 8 B' <<<"$out")" -eq 1 ] && grep -q '^| handles | latency, 4 KiB |' $folder/table.md
}
export PYTHON
export -f promises
if have "$PYTHON"; then
  check "bench/promises.py runs" bash -c promises
else
  skip "bench/promises.py runs" "$PYTHON is not installed"
fi
check "bench/promises.sh refuses an unknown promise" bash -c '! bench/promises.sh --only nonsense'
scales() {
  local out
  out=$("$CARGO" bench --profile dev --quiet -p multiworld --bench scale -- "$@") && echo "$out" || return 1
  grep -q '^Worlds of many processes' <<<"$out" && grep -q '^[0-9]* worlds against 1' <<<"$out"
}
export CARGO
export -f scales
check "bench/scale runs" bash -c 'scales --quick'
check "bench/path runs" "$CARGO" bench --profile dev --quiet -p multiworld --bench path -- --test

# The comparison with peers, which are not part of this repository: what it computes, and how it refuses.
refuses_to_compare() { # words of the error, arguments...
  local words=$1 code=0 out
  shift
  out=$(bench/compare.sh "$@" 2>&1) || code=$?
  echo "$out"
  [ $code -eq 2 ] && grep -qF -- "$words" <<<"$out"
}
export -f refuses_to_compare
if have shellcheck; then
  check "bench/compare.sh" shellcheck bench/compare.sh
else
  check "bench/compare.sh" bash -n bench/compare.sh
fi
if have "$PYTHON"; then
  check "bench/compare" env PYTHONDONTWRITEBYTECODE=1 "$PYTHON" -m unittest discover --start-directory bench/compare
  check "bench/compare.sh wants the peers" env PEERS=/does/not/exist bash -c 'refuses_to_compare "Set PEERS"'
  check "bench/compare.sh refuses an unknown option" bash -c 'refuses_to_compare "no such option" --nonsense'
  check "bench/compare.sh refuses a bad number" bash -c 'refuses_to_compare "not a positive number" --rounds 0'
else
  skip "bench/compare" "$PYTHON is not installed"
fi
for compiler in mpicc.openmpi mpicc.mpich mpicc; do
  ! have $compiler || check "bench/mpi_collectives.c $compiler" $compiler -std=c99 -Wall -Wextra -Werror -pedantic \
    -fsyntax-only bench/mpi_collectives.c
done

# Wrong arguments of the demonstration.
refuses() {
  local code=0
  build/examples/elastic_pipeline "$@" || code=$?
  [ $code -eq 2 ]
}
export -f refuses
check "elastic_pipeline refuses an unknown option" bash -c 'refuses --nonsense'
check "elastic_pipeline refuses a bad number" bash -c 'refuses --requests twelve'
check "elastic_pipeline refuses a missing number" bash -c 'refuses --requests'
check "elastic_pipeline refuses an unknown recovery" bash -c 'refuses --recover prayer'
check "elastic_pipeline refuses a missing recovery" bash -c 'refuses --recover'
check "elastic_pipeline refuses no rounds" bash -c 'refuses --rounds 0'
check "elastic_pipeline refuses a missing input" bash -c 'refuses /does/not/exist'

# Ctrl-C ends the demonstration and everything it started, at once and with the signal's exit code.
interrupted() {
  local pid code=0 start=$SECONDS mine process name group stat
  build/examples/elastic_pipeline "$@" README.md &
  pid=$!
  sleep 2
  kill -INT $pid
  wait $pid || code=$?
  [ $code -eq 130 ] || { echo "exit code $code in place of 130"; return 1; }
  [ $((SECONDS - start)) -lt 10 ] || { echo "took $((SECONDS - start)) s"; return 1; }
  sleep 0.5
  read -r _ _ _ _ mine _ <"/proc/$$/stat"
  for stat in /proc/[0-9]*/stat; do
    read -r process name _ _ group _ 2>/dev/null <"$stat" || continue
    [ "$name" != "(elastic_pipelin)" ] || [ "$group" != "$mine" ] || { echo "left running: $process"; return 1; }
  done
}
export -f interrupted
check "elastic_pipeline ends with Ctrl-C" bash -c interrupted
for how in reform grow; do
  check "elastic_pipeline $how ends with Ctrl-C" bash -c 'interrupted "$@"' interrupted --recover $how --spare
done

# Memory errors and leaks. Under sanitizers the C tests are instrumented; of the library they see every
# allocation, and LeakSanitizer whether anything still points to it. Threads and tables of the library live as
# long as the process and are reachable, so nothing has to be suppressed.
probe='#include <stdlib.h>
int main(void) { return 0; }'
if echo "$probe" | "$CC" -fsanitize=address,undefined -xc - -o build/probe 2>/dev/null; then
  leaks=1
  if ! ASAN_OPTIONS=detect_leaks=1 build/probe 2>/dev/null; then
    leaks=0
    skip "tests/c leaks" "LeakSanitizer is not allowed to look at processes here"
  fi
  check "build with sanitizers" make --no-print-directory asan-tests
  for source in tests/c/*.c; do
    name=$(basename "$source" .c)
    check "tests/c/$name sanitizers" env ASAN_OPTIONS=detect_leaks=$leaks build/asan/"$name"
  done
else
  skip "tests/c sanitizers" "the compiler has none"
fi
# Valgrind sees the library's own reads and writes as well. It calls memory "possibly lost" that only an
# inner pointer reaches, which is how Rust's hash tables and shared pointers hold theirs; LeakSanitizer, above,
# counts these pointers.
if have valgrind; then
  for source in tests/c/*.c; do
    name=$(basename "$source" .c)
    check "tests/c/$name valgrind" env QUICK=1 valgrind --quiet --fair-sched=yes --error-exitcode=9 \
      --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite build/tests/"$name"
  done
else
  skip "tests/c valgrind" "valgrind is not installed"
fi

echo "all checks took $(since "$begin") s"
exit $failed
