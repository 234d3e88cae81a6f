# xnord: an inference server for binary neural networks. `make help` lists what there is.
#
# VARIANT=release|debug|asan|tsan|clang chooses compiler and flags; each has its own folder build/$(VARIANT). VARIANT=aarch64 cross-builds against
# Debian's arm64 libraries, which packaging/sysroot unpacks.

VARIANT ?= release
BUILD   := build/$(VARIANT)
PYTHON  ?= /usr/bin/python3
PREFIX  ?= /usr
# As many jobs as there are processors, also where `make` was called without -j.
SUBMAKE  = --no-print-directory $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc))
V       ?= 0
Q       := $(if $(filter 1,$(V)),,@)
SYSROOT := build/sysroot-arm64

VERSION := $(shell cat VERSION)
GIT     := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wvla -Wmissing-prototypes -Wstrict-prototypes
WARN    += $(if $(CI),-Werror)
CC_release := gcc
CC_debug   := gcc
CC_asan    := clang
CC_tsan    := clang
CC_clang   := clang
CC_fuzz    := clang
CC_aarch64 := aarch64-linux-gnu-gcc --sysroot=$(SYSROOT)
OPT_release := -O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong
OPT_debug   := -O0 -DXN_FAULTS
OPT_asan    := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all -DXN_FAULTS
OPT_tsan    := -O1 -fno-omit-frame-pointer -fsanitize=thread -DXN_FAULTS
OPT_clang   := -O2
OPT_aarch64 := -O2
OPT_fuzz    := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all
CC      := $(CC_$(VARIANT))
OPT     := $(OPT_$(VARIANT))

PKGS    := libmicrohttpd gnutls jansson libturbojpeg spng zlib nettle libsystemd libcurl
# Deferred, so that `make deps` and `make help` work where nothing is installed yet.
PKG_CONFIG := pkg-config
ifeq ($(VARIANT),aarch64)
PKG_CONFIG := PKG_CONFIG_SYSROOT_DIR=$(SYSROOT) PKG_CONFIG_LIBDIR=$(SYSROOT)/usr/lib/aarch64-linux-gnu/pkgconfig:$(SYSROOT)/usr/share/pkgconfig pkg-config
endif
PKG_CFLAGS = $(eval PKG_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PKGS)))$(PKG_CFLAGS)
PKG_LIBS   = $(eval PKG_LIBS := $(shell $(PKG_CONFIG) --libs $(PKGS)))$(PKG_LIBS)
CFLAGS_ALL  = -std=c17 -D_GNU_SOURCE -g -ffp-contract=off $(OPT) $(WARN) -pthread -I. $(PKG_CFLAGS) -MMD -MP $(CFLAGS)
LDFLAGS_ALL = $(OPT) -pthread -Wl,-z,relro,-z,now $(LDFLAGS)
# XRT throws: AddressSanitizer catches that only of a libstdc++ which is there from the start.
LIBS        = $(PKG_LIBS) -lm $(if $(filter asan,$(VARIANT)),-Wl$(comma)--no-as-needed -lstdc++)

LIB_SRC    := $(wildcard common/*.c model/*.c accel/*.c accel/cpu/*.c accel/engine/*.c accel/xrt/*.c)
DAEMON_SRC := $(filter-out daemon/main.c,$(wildcard daemon/*.c daemon/*/*.c))
CTL_SRC    := $(filter-out clients/xnorctl/main.c,$(wildcard clients/xnorctl/*.c))
SUPPORT_SRC := $(wildcard tests/support/*.c)
TEST_SRC   := $(wildcard tests/unit/test_*.c tests/conformance/test_*.c tests/checkasm/test_*.c)
FUZZ_SRC   := $(wildcard tests/fuzz/fuzz_*.c)
BENCH_SRC  := $(wildcard tests/bench/bench_*.c)
TOOL_SRC   := $(wildcard tests/tools/*.c)
OBJ         = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
LIB_OBJ    := $(call OBJ,$(LIB_SRC))

all: $(BUILD)/xnord $(BUILD)/xnorctl ## Build the daemon and xnorctl (installs what is missing: run `make deps` yourself to choose when)

include accel/cpu/cpu.mk
include accel/xrt/xrt.mk
include hls/hls.mk
comma := ,
include rtl/rtl.mk
include accel/vcard/vcard.mk
include tests/sim/sim.mk

$(BUILD)/obj/%.o: %.c | deps-build
	@mkdir -p $(@D)
	$(if $(filter 0,$(V)),@echo "  CC    $<")
	$(Q)$(CC) $(CFLAGS_ALL) -DXN_VERSION='"$(VERSION)"' -DXN_GIT='"$(GIT)"' -c -o $@ $<

$(BUILD)/libxn.a: $(LIB_OBJ)
	$(Q)rm -f $@ && ar rcs $@ $^
$(BUILD)/libxnd.a: $(call OBJ,$(DAEMON_SRC))
	$(Q)rm -f $@ && ar rcs $@ $^
$(BUILD)/xnord: $(BUILD)/obj/daemon/main.o $(BUILD)/libxnd.a $(BUILD)/libxn.a
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)
$(BUILD)/libxnctl.a: $(call OBJ,$(CTL_SRC))
	$(Q)rm -f $@ && ar rcs $@ $^
$(BUILD)/xnorctl: $(BUILD)/obj/clients/xnorctl/main.o $(BUILD)/libxnctl.a $(BUILD)/libxn.a
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)
# The scalar engine as the HLS and RTL ones are: a shared library behind hls/include/xnor_sim.h.
$(BUILD)/libxnor-sim-scalar.so: accel/engine/run.c hls/include/xnor_isa.h hls/include/xnor_sim.h | deps-build
	@mkdir -p $(@D)
	$(Q)$(CC) $(filter-out -MMD -MP,$(CFLAGS_ALL)) $(LDFLAGS_ALL) -fPIC -shared -o $@ $<
# A test program is one source file, linked with everything.
TEST_PROGRAMS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(TEST_SRC))
TOOL_PROGRAMS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(TOOL_SRC))
BENCH_PROGRAMS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(BENCH_SRC))
# The fuzz targets, driven by files instead of libFuzzer: regressions for every compiler.
REPLAY_PROGRAMS := $(patsubst tests/fuzz/fuzz_%.c,$(BUILD)/tests/fuzz/replay_%,$(FUZZ_SRC))
FUZZ_PROGRAMS := $(patsubst tests/fuzz/fuzz_%.c,build/fuzz/tests/fuzz/fuzz_%,$(FUZZ_SRC))

$(BUILD)/libxntest.a: $(call OBJ,$(SUPPORT_SRC))
	$(Q)rm -f $@ && ar rcs $@ $^
TEST_LIBS = $(BUILD)/libxntest.a $(BUILD)/libxnctl.a $(BUILD)/libxnd.a $(BUILD)/libxn.a
$(BUILD)/tests/fuzz/replay_%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(BUILD)/obj/tests/fuzz/driver.o $(TEST_LIBS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)
$(BUILD)/tests/fuzz/fuzz_%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(TEST_LIBS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -fsanitize=fuzzer -o $@ $^ $(LIBS)
$(BUILD)/xnor-bench: $(BUILD)/obj/tests/bench/xnor_bench.o $(TEST_LIBS)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)
$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(TEST_LIBS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS) -lcmocka

# suite-programs: what tests/run repeats on every variant.
suite-programs: $(TEST_PROGRAMS)
test-programs: suite-programs $(SIM_TESTS) $(TOOL_PROGRAMS) $(REPLAY_PROGRAMS) $(BUILD)/xnor-bench
bench-programs: $(BENCH_PROGRAMS) $(BUILD)/xnor-bench
fuzz-programs: $(FUZZ_PROGRAMS)

# ---- what a person calls -------------------------------------------------------------------------------------------

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(filter %Makefile %.mk,$(MAKEFILE_LIST))

deps: ## Install the Debian packages to build, test, measure and train
	packaging/install-deps build demo test rtl bench train

demo: ## Serve the shipped network on this machine's CPU, classify sample images over HTTP (KEEP=1 leaves it serving; ACCEL=vcard: on a virtual FPGA card)
	@packaging/install-deps build demo $(if $(filter vcard,$(ACCEL)),test)
	@$(MAKE) $(SUBMAKE) all $(if $(filter vcard,$(ACCEL)),vcard-programs $(BUILD)/libxnor-sim-hls-2t.so)
	@BUILD=$(BUILD) KEEP=$(KEEP) ACCEL=$(ACCEL) packaging/demo

INTEROP_SECONDS ?= 240
test: ## Build and run every suite (INTEROP_SECONDS, 240: what clients from PyPI may take to install; those that do not are skipped)
	@packaging/install-deps build demo test rtl conformance
	@$(MAKE) $(SUBMAKE) test-clients & $(MAKE) $(SUBMAKE) test-builds; built=$$?; wait; exit $$built
	@$(PYTHON) tests/run --build $(BUILD) --clang build/clang --asan build/asan --tsan build/tsan

# What is installed from PyPI mostly waits, beside the builds.
test-clients:
	@tests/interop/install --within $(INTEROP_SECONDS) clients perf-analyzer kserve

# All at once, so that no processor waits for the end of one before the next. Of clang and tsan only what tests/run runs: what clang warns of in the rest shows in asan's.
TEST_BUILDS := $(addprefix test-build-,release clang asan tsan aarch64)
test-builds: $(TEST_BUILDS)
test-build-release:
	@$(MAKE) $(SUBMAKE) all test-programs hls-programs rtl-programs
test-build-clang:
	@$(MAKE) $(SUBMAKE) VARIANT=clang all suite-programs
test-build-asan:
	@$(MAKE) $(SUBMAKE) VARIANT=asan all test-programs
test-build-tsan:
	@$(MAKE) $(SUBMAKE) VARIANT=tsan all suite-programs $(if $(XRT_FOUND),vcard-programs)
# Where this does not build, tests/integration/test_emulated.py, which makes it again, says why.
test-build-aarch64:
	@$(MAKE) $(SUBMAKE) VARIANT=aarch64 $(addprefix build/aarch64/tests/,checkasm/test_cpu_kernels conformance/test_exact conformance/test_rows) || true

test-fast: ## Unit, conformance and kernel suites of one variant only
	@$(MAKE) $(SUBMAKE) all test-programs
	@$(PYTHON) tests/run --build $(BUILD) unit checkasm conformance fuzz

asan: ## Unit, conformance, fuzz regression and integration suites under AddressSanitizer and UBSan
	@packaging/install-deps build demo test
	@$(MAKE) $(SUBMAKE) VARIANT=asan all test-programs
	@$(PYTHON) tests/run --build build/asan unit checkasm conformance fuzz integration

tsan: ## Unit, conformance and integration suites under ThreadSanitizer
	@packaging/install-deps build demo test
	@$(MAKE) $(SUBMAKE) VARIANT=tsan all test-programs
	@$(PYTHON) tests/run --build build/tsan unit checkasm conformance integration

hls-test: ## The engine in HLS C++: each unit's bench, random and damaged programs against the scalar definition (SEEDS of each: 40)
	@packaging/install-deps build test
	@$(MAKE) $(SUBMAKE) hls-run

hls-asan: ## The same under AddressSanitizer and UBSan
	@packaging/install-deps build test
	@$(MAKE) $(SUBMAKE) VARIANT=asan hls-run

aarch64: ## Cross-build everything for 64-bit ARM, run the C suites under qemu-aarch64
	@packaging/install-deps build test
	@$(MAKE) $(SUBMAKE) VARIANT=aarch64 all test-programs
	@$(PYTHON) tests/run --build build/aarch64 --emulator "qemu-aarch64 -cpu cortex-a53 -L $(SYSROOT)" unit checkasm conformance fuzz

MODEL ?= models/fashion-mnist/fashion-mnist.xnor
verify: ## PyTorch oracle = Python interpreter = C reference = CPU backend at every level, on the whole test set of MODEL (FOLDER: where its files lie)
	@packaging/install-deps build demo test
	@$(MAKE) $(SUBMAKE) all
	PYTHONPATH=train $(PYTHON) -m xnortrain verify $(MODEL) --images all $(if $(FOLDER),--folder $(FOLDER)) --xnorctl $(BUILD)/xnorctl

TRAIN_DEMO := build/train-demo
train-demo: ## Train, export and verify a usable Fashion-MNIST network in some minutes (an interrupted one goes on)
	@packaging/install-deps build demo test train
	@$(MAKE) $(SUBMAKE) all
	train/xnor-train train --config train/configs/demo.toml --run $(TRAIN_DEMO) --out $(TRAIN_DEMO)/fashion-demo.xnor
	train/xnor-train verify $(TRAIN_DEMO)/fashion-demo.xnor --images all --xnorctl $(BUILD)/xnorctl

conformance: ## Programs of others against the daemon: Prometheus, and from PyPI (in .venv-conformance) tritonclient, perf_analyzer, KServe's client, schemathesis
	@packaging/install-deps build test conformance
	@$(MAKE) $(SUBMAKE) $(BUILD)/xnord
	@tests/interop/install clients perf-analyzer kserve
	@$(PYTHON) tests/run --build $(BUILD) interop

FUZZ_SECONDS ?= 60
fuzz: ## Run every libFuzzer target for FUZZ_SECONDS (60)
	@packaging/install-deps build test
	@$(MAKE) $(SUBMAKE) VARIANT=fuzz fuzz-programs
	@tests/fuzz/run $(FUZZ_SECONDS) $(FUZZ_PROGRAMS)

bench: ## Measure backend, server, start-up and what there is of XRT; prints JSON
	@packaging/install-deps build demo bench
	@$(MAKE) $(SUBMAKE) all bench-programs >&2
	@$(PYTHON) tests/bench/run --build $(BUILD)

bench-xrt: ## Of this, XRT's part alone: the cost of a run over bare calls, and how the daemon scales over the units of a virtual card
	@packaging/install-deps build demo test bench
	@$(MAKE) $(SUBMAKE) all bench-programs >&2
	@$(PYTHON) tests/bench/run --build $(BUILD) --only-xrt

bench-serving: ## Measure what the scheduler promises, through the daemon on virtual cards: overload, deadlines, fairness, eco; prints JSON
	@packaging/install-deps build demo test bench
	@$(MAKE) $(SUBMAKE) all bench-programs >&2
	@$(PYTHON) tests/bench/overload --build $(BUILD)

bench-peers: ## Measure whole networks beside ONNX Runtime and Larq Compute Engine (from PyPI, in .venv-bench-*); prints a table
	@packaging/install-deps build bench
	@$(MAKE) $(SUBMAKE) bench-programs >&2
	@test -x .venv-bench-ort/bin/python || $(PYTHON) -m venv .venv-bench-ort
	@.venv-bench-ort/bin/pip install --quiet --disable-pip-version-check -r tests/bench/peers/requirements-ort.txt
	@test -x .venv-bench-larq/bin/python || $(PYTHON) -m venv .venv-bench-larq
	@.venv-bench-larq/bin/pip install --quiet --disable-pip-version-check -r tests/bench/peers/requirements-larq.txt || \
	    echo "skipped: Larq Compute Engine does not install here" >&2
	@$(PYTHON) tests/bench/peers/run --build $(BUILD)

sim: ## Compare the scheduler with the policies of Triton, Clipper and AMD's server in the simulator; prints a table
	@packaging/install-deps build
	@$(MAKE) $(SUBMAKE) sim-programs >&2
	@$(BUILD)/tests/sim/xnord-sim compare

SEEDS ?= 100000
sim-check: ## Run SEEDS (100000) random scenarios of the simulator, all invariants checked
	@packaging/install-deps build
	@$(MAKE) $(SUBMAKE) sim-programs >&2
	@$(BUILD)/tests/sim/xnord-sim check --seed 1 --seeds $(SEEDS)

sim-plots: ## Draw the pictures of docs/scheduling.md from the simulator
	@packaging/install-deps build test
	@$(MAKE) $(SUBMAKE) sim-programs >&2
	@$(PYTHON) tests/sim/plot --build $(BUILD) docs

bench-servers: ## Measure what a request costs beside Triton's server and MLServer (from PyPI, in .venv-bench-*); prints a table
	@packaging/install-deps build bench
	@$(MAKE) $(SUBMAKE) all >&2
	@test -x .venv-bench-triton/bin/python || $(PYTHON) -m venv .venv-bench-triton
	@.venv-bench-triton/bin/pip install --quiet --disable-pip-version-check --no-deps -r tests/bench/peers/requirements-triton.txt || \
	    echo "skipped: Triton's server does not install here" >&2
	@test -x .venv-bench-mlserver/bin/python || $(PYTHON) -m venv .venv-bench-mlserver
	@.venv-bench-mlserver/bin/pip install --quiet --disable-pip-version-check -r tests/bench/peers/requirements-mlserver.txt || \
	    echo "skipped: MLServer does not install here" >&2
	@$(PYTHON) tests/bench/peers/serving --build $(BUILD)

format: ## Lay out all C sources with clang-format
	clang-format -i $$(git ls-files '*.c' '*.h')

install: install-xnord install-python $(if $(XRT_FOUND),install-vcard) ## Install into $(DESTDIR)$(PREFIX) and $(DESTDIR)/etc

install-xnord: all
	install -Dm755 -t $(DESTDIR)$(PREFIX)/bin $(BUILD)/xnord $(BUILD)/xnorctl
	$(if $(XRT_MODULE),install -Dm755 -t $(DESTDIR)$(PREFIX)/lib/xnord $(XRT_MODULE))
	install -Dm644 -t $(DESTDIR)$(PREFIX)/share/xnord/models models/*/*.xnor
	install -Dm644 -t $(DESTDIR)$(PREFIX)/share/xnord config/xnord.schema.json
	install -Dm644 -t $(DESTDIR)/lib/systemd/system packaging/systemd/xnord.service packaging/systemd/xnord.socket
	install -Dm644 packaging/systemd/xnord.sysusers $(DESTDIR)/usr/lib/sysusers.d/xnord.conf
	install -Dm644 -t $(DESTDIR)$(PREFIX)/share/xnord/prometheus packaging/prometheus/xnord.rules.yml packaging/prometheus/scrape.example.yml
	install -Dm644 -t $(DESTDIR)$(PREFIX)/share/man/man1 docs/man/xnorctl.1
	install -Dm644 -t $(DESTDIR)$(PREFIX)/share/man/man5 docs/man/*.5
	install -Dm644 -t $(DESTDIR)$(PREFIX)/share/man/man8 docs/man/*.8
	install -d $(DESTDIR)/etc/xnord
	sed 's,"\.\./models/[^"/]*/,"$(PREFIX)/share/xnord/models/,' config/xnord.json > $(DESTDIR)/etc/xnord/xnord.json

# Where Debian's Python looks for modules: in one folder for all of its versions under /usr, in one for each elsewhere.
PYTHON_VERSION = $(if $(filter /usr,$(PREFIX)),3,$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'))
install-python:
	install -Dm644 -t $(DESTDIR)$(PREFIX)/lib/python$(PYTHON_VERSION)/dist-packages/xnord clients/python/xnord/*.py clients/python/xnord/py.typed

# What a card computes with lies where the program finds it from its own place, ../lib/xnord/vcard.
install-vcard: $(BUILD)/xnor-vcard $(VCARD_DRIVER) $(VCARD_SIMULATIONS)
	install -Dm755 -t $(DESTDIR)$(PREFIX)/bin $(BUILD)/xnor-vcard
	install -Dm644 -t $(DESTDIR)$(PREFIX)/lib/xnord/vcard/xrt/lib $(VCARD_DRIVER)
	install -Dm644 -t $(DESTDIR)$(PREFIX)/lib/xnord/vcard $(VCARD_SIMULATIONS)
	install -Dm644 -t $(DESTDIR)$(PREFIX)/share/man/man1 docs/man/xnor-vcard.1

deb: ## Build the Debian packages, xnord, python3-xnord and xnord-vcard, into build/deb
	@packaging/install-deps build package
	rm -rf build/deb && mkdir -p build/deb/xnord-$(VERSION)
	git ls-files -z | xargs -0 cp -d --parents -t build/deb/xnord-$(VERSION)
	cp -r packaging/debian build/deb/xnord-$(VERSION)/debian
	cd build/deb/xnord-$(VERSION) && dpkg-buildpackage -us -uc -b
	@ls -l build/deb/*.deb

deb-test: deb ## Check the Debian packages: control fields, contents, and the virtual card run from them
	@packaging/install-deps test
	@$(PYTHON) -m pytest -q -p no:cacheprovider tests/package

clean: ## Remove everything that was built
	rm -rf build

.PHONY: all help deps demo train-demo sim sim-check sim-plots test test-clients test-builds $(TEST_BUILDS) test-fast asan tsan hls-test hls-asan verify conformance fuzz bench bench-xrt bench-serving bench-servers bench-peers format install install-xnord install-python install-vcard deb deb-test clean aarch64 suite-programs test-programs bench-programs fuzz-programs deps-build
deps-build:
	@packaging/install-deps build
	@$(if $(filter aarch64,$(VARIANT)),packaging/sysroot arm64 $(SYSROOT))
.SECONDARY:
-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
