# The virtual card: its driver behind XRT and its processes. Included by the Makefile. Tied to Debian's XRT 2.13: where that is missing nothing is
# built, and tests say so. `make vcard` builds it, with what its cards compute with.

XRT_INCLUDE  := /usr/include/xrt
XRT_LIBS     := /usr/lib/$(shell gcc -print-multiarch 2>/dev/null)
# As XRT's own objects come from it, the static library of Debian's version it must be.
XRT_GLUE     := $(XRT_LIBS)/libxrt_hwemu.a
XRT_FOUND    := $(if $(filter aarch64 fuzz,$(VARIANT)),,$(and $(wildcard $(XRT_INCLUDE)/xrt.h),$(wildcard $(XRT_GLUE)),$(wildcard $(XRT_LIBS)/libxrt_coreutil.so.2.13.0),yes))

VCARD_HAL_SRC := $(wildcard accel/vcard/hal*.c)
VCARD_SRC     := $(filter-out $(VCARD_HAL_SRC),$(wildcard accel/vcard/*.c))
VCARD_HAL_OBJ := $(patsubst %.c,$(BUILD)/obj/%.o,$(VCARD_HAL_SRC)) $(BUILD)/obj/accel/vcard/glue.o
VCARD_XRT     := $(BUILD)/vcard/xrt
VCARD_DRIVER  := $(VCARD_XRT)/lib/libxrt_core.so.2
VCARD_FLAGS    = -isystem $(XRT_INCLUDE)
VCARD_CXX_gcc   := g++
VCARD_CXX_clang := clang++
VCARD_CXX      = $(VCARD_CXX_$(CC))

$(VCARD_HAL_OBJ): CFLAGS_ALL += -fPIC -fvisibility=hidden
$(BUILD)/obj/accel/vcard/%.o: CFLAGS_ALL += $(VCARD_FLAGS)
$(BUILD)/obj/tests/vcard/%.o: CFLAGS_ALL += $(VCARD_FLAGS)

$(BUILD)/obj/accel/vcard/glue.o: accel/vcard/glue.cpp | deps-build
	@mkdir -p $(@D)
	$(if $(filter 0,$(V)),@echo "  CXX   $<")
	$(Q)$(VCARD_CXX) -std=c++17 -g $(OPT) -Wall -Wextra -Wpedantic -Wshadow $(if $(CI),-Werror) $(XRT_SANITIZE) -fPIC -I. -c -o $@ $<

# XRT looks for its driver in $XILINX_XRT/lib. Of the static library only what has XRT's system and device is taken; where
# glue.cpp has a function of these, it comes first and counts.
$(VCARD_DRIVER): $(VCARD_HAL_OBJ)
	@mkdir -p $(@D)
	$(Q)$(VCARD_CXX) $(OPT) -pthread -shared -o $@ -Wl,-soname,libxrt_core.so.2 $^ \
	    -Wl,--undefined=_ZN8xrt_core5hwemu17get_userpf_deviceEPvj -Wl,-Bsymbolic -Wl,-z,muldefs $(XRT_GLUE) -l:libxrt_coreutil.so.2

# AddressSanitizer catches exceptions, which C simulations throw, only of a libstdc++ that is there from the start.
VCARD_LIBS = -ldl $(if $(filter asan,$(VARIANT)),-Wl$(comma)--no-as-needed -lstdc++)
$(BUILD)/xnor-vcard: $(patsubst %.c,$(BUILD)/obj/%.o,$(VCARD_SRC)) $(BUILD)/libxn.a
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS) $(VCARD_LIBS)

# The tests' host: a program that uses cards through XRT.
VCARD_TEST_OBJ := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tests/vcard/*.c)) $(patsubst %.cpp,$(BUILD)/obj/%.o,$(wildcard tests/vcard/*.cpp))
$(BUILD)/obj/tests/vcard/%.o: tests/vcard/%.cpp | deps-build
	@mkdir -p $(@D)
	$(if $(filter 0,$(V)),@echo "  CXX   $<")
	$(Q)$(VCARD_CXX) -std=c++17 -g $(OPT) -Wall -Wextra -Wpedantic -Wshadow $(if $(CI),-Werror) $(VCARD_FLAGS) -I. -c -o $@ $<
$(BUILD)/tests/vcard/card_test: $(VCARD_TEST_OBJ) $(BUILD)/libxntest.a $(BUILD)/libxn.a
	@mkdir -p $(@D)
	$(Q)$(VCARD_CXX) $(OPT) -pthread -o $@ $^ -l:libxrt_coreutil.so.2 -luuid $(LIBS)

# What accel/xrt costs over bare calls of XRT. It writes its xclbin with the card's code.
XRT_BENCH := $(if $(XRT_FOUND),$(BUILD)/tests/bench/xrt_bench)
$(BUILD)/obj/tests/bench/xrt_bench.o: CFLAGS_ALL += $(VCARD_FLAGS)
$(BUILD)/tests/bench/xrt_bench: $(patsubst %,$(BUILD)/obj/%.o,tests/bench/xrt_bench tests/vcard/bed accel/vcard/axlf accel/vcard/options) $(BUILD)/libxntest.a $(BUILD)/libxn.a
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ -l:libxrt_coreutil.so.2 -luuid $(LIBS)

VCARD_PROGRAMS := $(if $(XRT_FOUND),$(BUILD)/xnor-vcard $(VCARD_DRIVER) $(BUILD)/tests/vcard/card_test $(XRT_BENCH))

vcard-programs: $(VCARD_PROGRAMS)
	$(if $(XRT_FOUND),,@echo "skipped: the virtual card needs libxrt-dev 2.13")
test-programs bench-programs: vcard-programs

# The geometries that whole networks need; of others a card computes by the scalar definition, slowly.
VCARD_SIMULATIONS := $(BUILD)/libxnor-sim-hls-2t.so $(BUILD)/libxnor-sim-hls-4t.so

vcard: ## Build the virtual card: its driver behind XRT, its processes, and the C simulations of 2T and 4T that they compute with
	@packaging/install-deps build test
	@$(MAKE) $(SUBMAKE) vcard-programs $(VCARD_SIMULATIONS)

.PHONY: vcard vcard-programs
