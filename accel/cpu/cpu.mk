# How the CPU kernels are compiled. Included by the Makefile.
#
# Every source in accel/cpu/kernels/ is compiled once a level, its symbols ending in the level's name. level.c picks one at
# run time; the flags here are the ones that it asks the machine about. Kernels get -O3 where the variant optimises for speed.

# Before the first `make deps` there may be no compiler to ask; the make that compiles starts after it.
CPU_MACHINE := $(shell $(CC) -dumpmachine 2>/dev/null)
ifneq ($(filter x86_64-%,$(CPU_MACHINE)),)
CPU_LEVELS := portable popcnt avx2 avx512bw avx512
endif
ifneq ($(filter aarch64-%,$(CPU_MACHINE)),)
CPU_LEVELS := portable neon
endif
CPU_LEVELS ?= portable

CPU_FLAGS_portable :=
CPU_FLAGS_popcnt   := -msse4.2 -mpopcnt
CPU_FLAGS_avx2     := $(CPU_FLAGS_popcnt) -mavx2 -mbmi -mbmi2
CPU_FLAGS_avx512bw := $(CPU_FLAGS_avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl
CPU_FLAGS_avx512   := $(CPU_FLAGS_avx512bw) -mavx512vpopcntdq -mavx512vnni
CPU_FLAGS_neon     := -DLANES_NEON

CPU_OPT_release := -O3
CPU_OPT_clang   := -O3
CPU_OPT_aarch64 := -O3
# Optimized, clang takes four times as long over what UBSan asks, which the suites do not win back.
CPU_OPT_asan    := -O0

CPU_KERNEL_SRC := $(wildcard accel/cpu/kernels/*.c)
CPU_KERNEL_OBJ := $(foreach level,$(CPU_LEVELS),$(patsubst %.c,$(BUILD)/obj/%.$(level).o,$(CPU_KERNEL_SRC)))

define CPU_LEVEL_RULE
$$(BUILD)/obj/accel/cpu/kernels/%.$(1).o: accel/cpu/kernels/%.c accel/cpu/cpu.mk | deps-build
	@mkdir -p $$(@D)
	$$(if $$(filter 0,$$(V)),@echo "  CC    $$< ($(1))")
	$$(Q)$$(CC) $$(CFLAGS_ALL) $$(CPU_OPT_$$(VARIANT)) $$(CPU_FLAGS_$(1)) -DXN_CPU_LEVEL=$(1) -c -o $$@ $$<
endef
$(foreach level,$(CPU_LEVELS),$(eval $(call CPU_LEVEL_RULE,$(level))))

# Assembly that a program writes.
ifneq ($(filter avx512,$(CPU_LEVELS)),)
CPU_KERNEL_OBJ += $(BUILD)/obj/accel/cpu/kernels/gen/avx512.o
endif
LIB_OBJ += $(CPU_KERNEL_OBJ)

$(BUILD)/gen/accel/cpu/avx512.S: accel/cpu/kernels/gen/avx512.py
	@mkdir -p $(@D)
	$(if $(filter 0,$(V)),@echo "  GEN   $@")
	$(Q)$(PYTHON) $< > $@.tmp && mv $@.tmp $@
$(BUILD)/obj/accel/cpu/kernels/gen/%.o: $(BUILD)/gen/accel/cpu/%.S | deps-build
	@mkdir -p $(@D)
	$(if $(filter 0,$(V)),@echo "  AS    $<")
	$(Q)$(CC) -c -o $@ $<
