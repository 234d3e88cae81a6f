# xnord: an inference server for binary neural networks. `make help` lists what there is.
#
# VARIANT=release|debug|asan|tsan|clang chooses compiler and flags; each has its own folder build/$(VARIANT).

VARIANT ?= release
BUILD   := build/$(VARIANT)
PYTHON  ?= /usr/bin/python3
PREFIX  ?= /usr
V       ?= 0
Q       := $(if $(filter 1,$(V)),,@)

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
OPT_release := -O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong
OPT_debug   := -O0 -DXN_FAULTS
OPT_asan    := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all -DXN_FAULTS
OPT_tsan    := -O1 -fno-omit-frame-pointer -fsanitize=thread -DXN_FAULTS
OPT_clang   := -O2
OPT_fuzz    := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all
CC      := $(CC_$(VARIANT))
OPT     := $(OPT_$(VARIANT))

PKGS    := libmicrohttpd jansson libjpeg libpng zlib nettle libsystemd
# Deferred, so that `make deps` and `make help` work where nothing is installed yet.
PKG_CFLAGS = $(eval PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS)))$(PKG_CFLAGS)
PKG_LIBS   = $(eval PKG_LIBS := $(shell pkg-config --libs $(PKGS)))$(PKG_LIBS)
CFLAGS_ALL  = -std=c17 -D_GNU_SOURCE -g $(OPT) $(WARN) -pthread -I. $(PKG_CFLAGS) -MMD -MP $(CFLAGS)
LDFLAGS_ALL = $(OPT) -pthread -Wl,-z,relro,-z,now $(LDFLAGS)
LIBS        = $(PKG_LIBS) -lm

LIB_SRC    := $(wildcard common/*.c model/*.c accel/*.c accel/cpu/*.c)
DAEMON_SRC := $(filter-out daemon/main.c,$(wildcard daemon/*.c daemon/*/*.c))
CTL_SRC    := $(wildcard clients/xnorctl/*.c)
TEST_SRC   := $(wildcard tests/unit/test_*.c tests/conformance/test_*.c tests/checkasm/test_*.c)
FUZZ_SRC   := $(wildcard tests/fuzz/fuzz_*.c)
BENCH_SRC  := $(wildcard tests/bench/bench_*.c)
OBJ         = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
LIB_OBJ    := $(call OBJ,$(LIB_SRC))

all: $(BUILD)/xnord $(BUILD)/xnorctl ## Build the daemon and xnorctl (installs what is missing: run `make deps` yourself to choose when)

include accel/cpu/cpu.mk

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
$(BUILD)/xnorctl: $(call OBJ,$(CTL_SRC)) $(BUILD)/libxn.a
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)
# A test program is one source file, linked with everything.
$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(BUILD)/libxnd.a $(BUILD)/libxn.a
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS) -lcmocka

.PHONY: all deps-build
deps-build:
	@packaging/install-deps build
.SECONDARY:
-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
