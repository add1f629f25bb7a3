# Needs Rust (cargo) and a C compiler. A C++ compiler and valgrind are used where they exist.
#
#   make demo      serve requests through a pipeline, kill one of its processes, watch it recover
#   make test      everything that is checked: formatting, lints, Rust and C tests, examples, header, symbols
#   make lib       build/lib/libmultiworld.so, and build/lib/libmultiworld_nccl.so to put in NCCL's place
#   make examples  build/examples/*
#   make bench-dropin
#                  what a call costs more through the drop-in than without it
#   make bench-compare
#                  peers and ours side by side: tables and plots (bench/compare.sh --help)
#   make bench-path
#                  what an operation meets on its way, one thing at a time
#   make bench-promises
#                  what each promise costs that is kept on an operation's way (bench/promises.sh --help)
#   make bench-scale
#                  many worlds in a process, many processes in a world (BENCH_FLAGS=--help)
#   make gpu-kit   build/gpu-kit: the tests on a real GPU, to be copied to a machine that has one; run.sh runs them
#   make test-gpu  the same, run here
#   make install   PREFIX=/usr/local, DESTDIR honoured
#   make header    regenerate include/multiworld.h
#   make bindings  regenerate src/nccl/types.rs and functions.rs from NCCL's headers (needs bindgen)
#   make doubles   build/doubles, in place of CUDA and NCCL on machines without a GPU
#   make clean

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR ?= $(PREFIX)/bin
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SOVERSION := 1

CARGO ?= cargo
CC ?= cc
CFLAGS ?= -O2 -g
STRICT := -std=c99 -Wall -Wextra -Werror -pedantic
BUILT_IN := $(or $(CARGO_TARGET_DIR),target)/release
BUILT := $(BUILT_IN)/libmultiworld.so
BUILT_NCCL := $(BUILT_IN)/libmultiworld_nccl.so
BUILT_MW := $(BUILT_IN)/mw
# cargo names the library without a version; programs are linked to its soname, which build/lib provides.
LIB := build/lib/libmultiworld.so.$(SOVERSION)
# NCCL's names have folders of their own, below build/lib and where it is installed, so that nobody gets the
# stand-in who did not ask for it. ldconfig would make a link libnccl.so.2 beside the installed file, too.
LIB_NCCL := build/lib/libmultiworld_nccl.so
NCCLDIR := $(LIBDIR)/multiworld/nccl
C_FLAGS = $(STRICT) $(CFLAGS) $(CPPFLAGS) -Iinclude -pthread
LINK = $(LDFLAGS) -Lbuild/lib -lmultiworld -Wl,-rpath,'$$ORIGIN/../lib' -lm -ldl

# nccl_unmodified takes device memory where both of these are set, to the folders that have include/ and lib/.
CUDA_HOME ?=
NCCL_HOME ?=
ifneq ($(and $(CUDA_HOME),$(NCCL_HOME)),)
WITH_CUDA := -DWITH_CUDA -isystem $(NCCL_HOME)/include -isystem $(CUDA_HOME)/include
LINK_NCCL := -L$(NCCL_HOME)/lib -l:libnccl.so.2 -L$(CUDA_HOME)/lib64 -L$(CUDA_HOME)/lib -lcudart
else
LINK_NCCL := -Lbuild/lib/nccl -lnccl
endif

PIPELINE_SOURCES := $(wildcard c_examples/elastic_pipeline/*.c)
PIPELINE_HEADERS := $(wildcard c_examples/elastic_pipeline/*.h)
EXAMPLES := $(patsubst c_examples/%.c,build/examples/%,$(wildcard c_examples/*.c)) build/examples/elastic_pipeline
C_TESTS := $(patsubst tests/c/%.c,build/tests/%,$(wildcard tests/c/*.c)) build/tests/quick_start
ASAN_TESTS := $(patsubst tests/c/%.c,build/asan/%,$(wildcard tests/c/*.c))

.PHONY: bindings all doubles lib mw examples c-tests asan-tests bench-dropin bench-compare bench-path bench-promises bench-scale demo test test-gpu gpu-kit header install clean cargo-lib

all: lib mw examples

# cargo knows best whether anything is out of date. Who installs what was built before, as root say, may have none.
cargo-lib:
	@if [ -e $(BUILT) ] && [ -e $(BUILT_NCCL) ] && [ -e $(BUILT_MW) ] && ! command -v $(firstword $(CARGO)) >/dev/null; then \
	  echo "no $(firstword $(CARGO)) here: what is in $(BUILT_IN) is taken as it is"; \
	else \
	  echo "$(CARGO) build --release -p multiworld -p multiworld-nccl -p multiworld-cli --lib --bins"; \
	  $(CARGO) build --release -p multiworld -p multiworld-nccl -p multiworld-cli --lib --bins; \
	fi

build/bin/mw: cargo-lib
	@mkdir -p build/bin
	@cmp -s $(BUILT_MW) $@ || install -m 755 $(BUILT_MW) $@

build/lib/libmultiworld.so.$(SOVERSION): cargo-lib
	@mkdir -p build/lib
	@cmp -s $(BUILT) $@ || install -m 755 $(BUILT) $@
	@ln -sf libmultiworld.so.$(SOVERSION) build/lib/libmultiworld.so

$(LIB_NCCL): cargo-lib
	@mkdir -p build/lib/nccl
	@cmp -s $(BUILT_NCCL) $@ || install -m 755 $(BUILT_NCCL) $@
	@ln -sf ../libmultiworld_nccl.so build/lib/nccl/libnccl.so.2
	@ln -sf libnccl.so.2 build/lib/nccl/libnccl.so

# What the tests and benchmarks put in the place of CUDA and NCCL on machines without a GPU.
doubles:
	$(CARGO) build --release -p multiworld-double-cuda -p multiworld-double-nccl
	@mkdir -p build/doubles
	@for name in libcuda.so.1 libcudart.so.12 libcudart.so.13 libcudart.so; do \
	  ln -sf $(abspath $(BUILT_IN))/libmwdouble_cuda.so build/doubles/$$name || exit 1; done
	@ln -sf $(abspath $(BUILT_IN))/libmwdouble_nccl.so build/doubles/libnccl.so.2

lib: $(LIB) $(LIB_NCCL)
mw: build/bin/mw
examples: $(EXAMPLES)
c-tests: $(C_TESTS)
asan-tests: $(ASAN_TESTS)

build/examples/elastic_pipeline: $(PIPELINE_SOURCES) $(PIPELINE_HEADERS) c_examples/common.h include/multiworld.h | $(LIB)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $(PIPELINE_SOURCES) -o $@ $(LINK)

# A program for NCCL. It is not told where the library is: whoever starts it decides which one it gets.
build/examples/nccl_unmodified: c_examples/nccl_unmodified.c | $(LIB_NCCL)
	@mkdir -p $(@D)
	$(CC) $(STRICT) $(CFLAGS) $(CPPFLAGS) $(WITH_CUDA) $< -o $@ $(LDFLAGS) $(LINK_NCCL)

build/examples/%: c_examples/%.c c_examples/common.h include/multiworld.h | $(LIB)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $< -o $@ $(LINK)

build/tests/quick_start.c: README.md tests/extract.sh
	@mkdir -p $(@D)
	tests/extract.sh README.md > $@

build/tests/quick_start: build/tests/quick_start.c include/multiworld.h | $(LIB)
	$(CC) $(C_FLAGS) $< -o $@ $(LINK)

build/tests/%: tests/c/%.c tests/c/check.h include/multiworld.h | $(LIB)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $< -o $@ $(LINK)

build/asan/%: tests/c/%.c tests/c/check.h include/multiworld.h | $(LIB)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -fsanitize=address,undefined -fno-sanitize-recover=undefined $< -o $@ $(LINK)

build/bench/%: bench/%.c
	@mkdir -p $(@D)
	$(CC) $(STRICT) $(CFLAGS) $(CPPFLAGS) $< -o $@ $(LDFLAGS) -ldl

# On a quiet machine; BENCH_FLAGS='--batches 20001' takes ten times as long.
bench-dropin: build/bench/dropin lib doubles
	build/bench/dropin $(LIB_NCCL) build/doubles/libnccl.so.2 $(BENCH_FLAGS)

# On a quiet machine; BENCH_FLAGS='--quick' tries it.
bench-compare:
	CARGO="$(CARGO)" CC="$(CC)" bench/compare.sh $(BENCH_FLAGS)

# On a quiet machine; BENCH_FLAGS=ring, for example, picks those with that in their names.
bench-path:
	$(CARGO) bench -p multiworld --bench path -- $(BENCH_FLAGS)

# On a quiet machine; BENCH_FLAGS='--quick' tries it.
bench-promises:
	CARGO="$(CARGO)" bench/promises.sh $(BENCH_FLAGS)

# On a quiet machine; BENCH_FLAGS='--quick' tries it.
bench-scale:
	$(CARGO) bench --quiet -p multiworld --bench scale -- $(BENCH_FLAGS)

demo: build/examples/elastic_pipeline
	build/examples/elastic_pipeline

test:
	CARGO="$(CARGO)" CC="$(CC)" tests/run.sh

# Everything that the tests on a GPU need, in one folder: such a machine may have neither Rust nor a network. With
# CUDA_HOME and NCCL_HOME also a program for NCCL that takes device memory, which else is compiled over there.
KIT := build/gpu-kit
gpu-kit: lib build/examples/mixed_backends
	@mkdir -p $(KIT)
	$(CARGO) test --release --test gpu --no-run
	@program=$$($(CARGO) test --release --test gpu --no-run --message-format=json 2>/dev/null | \
	  sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1); \
	  [ -n "$$program" ] && install -m 755 "$$program" $(KIT)/gpu-test
	install -m 755 $(LIB) $(KIT)/libmultiworld.so.$(SOVERSION)
	install -m 755 $(LIB_NCCL) $(KIT)/libmultiworld_nccl.so
	install -m 755 build/examples/mixed_backends $(KIT)/mixed_backends
	strip $(KIT)/gpu-test $(KIT)/libmultiworld.so.$(SOVERSION) $(KIT)/libmultiworld_nccl.so $(KIT)/mixed_backends
	$(CC) $(STRICT) $(CFLAGS) -fPIC -shared -pthread tests/gpu/hostid.c -o $(KIT)/hostid.so
	@rm -f $(KIT)/nccl_with_cuda
ifneq ($(and $(CUDA_HOME),$(NCCL_HOME)),)
	$(CC) $(STRICT) $(CFLAGS) $(WITH_CUDA) c_examples/nccl_unmodified.c -o $(KIT)/nccl_with_cuda $(LINK_NCCL)
endif
	install -m 644 c_examples/nccl_unmodified.c tests/gpu/torch_killed.py $(KIT)
	install -m 755 tests/gpu.sh $(KIT)/run.sh
	@du -sh $(KIT)

test-gpu: gpu-kit
	$(KIT)/run.sh

header:
	MW_BLESS=1 $(CARGO) test --test header

bindings:
	src/nccl/bindings.sh

build/multiworld.pc: Makefile Cargo.toml
	@mkdir -p build
	@printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR:$(PREFIX)/%=$${prefix}/%)' \
	  'includedir=$(INCLUDEDIR:$(PREFIX)/%=$${prefix}/%)' '' \
	  'Name: multiworld' \
	  'Description: Many NCCL-like communicators per process, each its own fault domain' \
	  'Version: $(VERSION)' 'Libs: -L$${libdir} -lmultiworld' 'Cflags: -I$${includedir}' > $@

install: lib mw
	@rm -f build/multiworld.pc
	@$(MAKE) --no-print-directory build/multiworld.pc
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(NCCLDIR) $(DESTDIR)$(INCLUDEDIR) \
	  $(DESTDIR)$(BINDIR)
	install -m 755 $(BUILT_MW) $(DESTDIR)$(BINDIR)/mw
	install -m 755 $(BUILT) $(DESTDIR)$(LIBDIR)/libmultiworld.so.$(VERSION)
	ln -sf libmultiworld.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libmultiworld.so.$(SOVERSION)
	ln -sf libmultiworld.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/libmultiworld.so
	install -m 755 $(BUILT_NCCL) $(DESTDIR)$(NCCLDIR)/libmultiworld_nccl.so.$(VERSION)
	ln -sf libmultiworld_nccl.so.$(VERSION) $(DESTDIR)$(NCCLDIR)/libnccl.so.2
	ln -sf libnccl.so.2 $(DESTDIR)$(NCCLDIR)/libnccl.so
	install -m 644 include/multiworld.h $(DESTDIR)$(INCLUDEDIR)/multiworld.h
	install -m 644 build/multiworld.pc $(DESTDIR)$(LIBDIR)/pkgconfig/multiworld.pc

clean:
	$(CARGO) clean
	rm -rf build
