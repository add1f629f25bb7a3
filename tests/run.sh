#!/usr/bin/env bash
# Runs every check, goes on after a failure, and fails at the end if any failed. Prints one line per check,
# "check NAME: ok", "... FAILED" or "... skipped (why)"; cargo's own "test result:" lines count its tests. Logs
# are kept in build/logs.
set -u
cd "$(dirname "$0")/.." || exit 1
CARGO=${CARGO:-cargo}
CC=${CC:-cc}
CXX=${CXX:-c++}
LOGS=build/logs
# More than any check takes, so that nothing hangs for ever.
LIMIT=${LIMIT:-600}
failed=0
mkdir -p "$LOGS"

# check NAME COMMAND...: runs it quietly, shows its output if it fails.
check() {
  local name=$1 log
  shift
  log=$LOGS/${name//[\/ ]/-}.log
  if timeout --kill-after=10 "$LIMIT" "$@" >"$log" 2>&1 </dev/null; then
    echo "check $name: ok"
  else
    local code=$?
    sed 's/^/    /' "$log"
    echo "check $name: FAILED (exit code $code)"
    failed=1
  fi
}

skip() { echo "check $1: skipped ($2)"; }

check format "$CARGO" fmt --check
check clippy "$CARGO" clippy --quiet --all-targets -- -D warnings

# Rust tests are counted by cargo.
timeout --kill-after=10 1800 "$CARGO" test --no-fail-fast 2>&1 | tee "$LOGS/cargo.log"
if [ "${PIPESTATUS[0]}" -ne 0 ]; then failed=1; fi

check build make --no-print-directory -j2 lib examples c-tests

header_as() { # compiler, flags...
  local unit=build/header_check.$1
  shift
  printf '#include <multiworld.h>\n#include <multiworld.h>\nint main(void) { return mwSuccess; }\n' >"$unit"
  "$@" -Wall -Wextra -Werror -pedantic -Iinclude -fsyntax-only "$unit"
}
export -f header_as
check "header as C99" bash -c 'header_as c "$0" -std=c99' "$CC"
if command -v "$CXX" >/dev/null; then
  check "header as C++17" bash -c 'header_as cc "$0" -std=c++17' "$CXX"
else
  skip "header as C++17" "no C++ compiler"
fi

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

soname() { readelf -d build/lib/libmultiworld.so.1 | grep -q 'SONAME.*\[libmultiworld\.so\.1\]'; }
export -f soname
check soname bash -c soname

installed() {
  local root
  root=$(mktemp -d) || return 1
  make --no-print-directory install DESTDIR="$root" PREFIX=/opt/mw &&
    [ -e "$root/opt/mw/lib/libmultiworld.so" ] && [ -e "$root/opt/mw/lib/libmultiworld.so.1" ] &&
    grep -q '^Version: [0-9]' "$root/opt/mw/lib/pkgconfig/multiworld.pc" &&
    "$CC" -std=c99 -I"$root/opt/mw/include" c_examples/send_recv.c -o "$root/program" \
      -L"$root/opt/mw/lib" -lmultiworld &&
    LD_LIBRARY_PATH="$root/opt/mw/lib" "$root/program"
  local code=$?
  rm -rf "$root"
  return $code
}
export -f installed
check install bash -c installed

export MW_IFNAME=lo
for transport in shm tcp; do
  for source in tests/c/*.c; do
    name=$(basename "$source" .c)
    check "tests/c/$name $transport" env MW_TRANSPORT=$transport build/tests/"$name"
  done
  for source in c_examples/*.c; do
    name=$(basename "$source" .c)
    check "c_examples/$name $transport" env MW_TRANSPORT=$transport build/examples/"$name"
  done
  check "c_examples/elastic_pipeline $transport" \
    env MW_TRANSPORT=$transport build/examples/elastic_pipeline --requests 3000 README.md
done
check "README quick start" env MW_STORE="tcp://127.0.0.1:$((20000 + RANDOM % 10000))" build/tests/quick_start

# Facilities that old kernels and containers lack must have a substitute that works.
for missing in futex_waitv robust cma memfd futex_waitv,robust,cma,memfd; do
  check "c_examples/all_reduce without $missing" env MW_DISABLE=$missing build/examples/all_reduce
  check "c_examples/peer_failure without $missing" env MW_DISABLE=$missing build/examples/peer_failure
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
check "elastic_pipeline refuses a missing input" bash -c 'refuses /does/not/exist'

# Memory errors in the C tests, and in the library as far as malloc and free show them.
if echo 'int main(void){return 0;}' | "$CC" -fsanitize=address,undefined -xc - -o build/probe 2>/dev/null; then
  check "build with sanitizers" make --no-print-directory asan-tests
  for source in tests/c/*.c; do
    name=$(basename "$source" .c)
    # Threads of the library live as long as the process; what they own is no leak.
    check "tests/c/$name sanitizers" env ASAN_OPTIONS=detect_leaks=0 build/asan/"$name"
  done
else
  skip "tests/c sanitizers" "the compiler has none"
fi
if command -v valgrind >/dev/null; then
  for source in tests/c/*.c; do
    name=$(basename "$source" .c)
    check "tests/c/$name valgrind" env QUICK=1 valgrind --quiet --fair-sched=yes --error-exitcode=9 \
      --leak-check=full --errors-for-leak-kinds=definite build/tests/"$name"
  done
else
  skip "tests/c valgrind" "valgrind is not installed"
fi

exit $failed
