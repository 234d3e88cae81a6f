# The engine in SystemVerilog: Verilated libraries of small geometries, tests, LUT counts.
RTL_SRC        := $(wildcard rtl/*.sv rtl/*.svh rtl/sim/*.cpp) rtl/build
RTL_GEOMETRIES := 2,1,1,256,256,64 4,2,2,256,256,64
RTL_LIBRARIES  := $(patsubst %,build/rtl/%.so,$(subst $(comma),-,$(RTL_GEOMETRIES)))
RTL_SEEDS      ?= 100

build/rtl/%.so: $(RTL_SRC)
	@mkdir -p $(@D)
	$(Q)rtl/build $(subst -,$(comma),$*) $@

rtl-test: ## Random programs through the Verilated engine and the scalar definition: every word, every cycle, a stalling memory, damaged programs
	@packaging/install-deps build test rtl
	@$(MAKE) --no-print-directory $(BUILD)/tests/engine/test_simulators $(RTL_LIBRARIES)
	@for g in $(RTL_GEOMETRIES); do \
	    for how in --cycles --stalls --damaged; do \
	        $(BUILD)/tests/engine/test_simulators --geometry $$g --seeds $(RTL_SEEDS) $$how build/rtl/$$(echo $$g | tr , -).so || exit 1; \
	    done; \
	done

rtl-synth: ## LUTs, registers, block RAMs and DSPs of the RTL's units by yosys, against rtl/budget.json
	@packaging/install-deps build demo rtl
	@$(PYTHON) rtl/synth

rtl-dot: ## The binary dot product in LUTs: the generated compressors proven by simulation and counted by yosys (RTL_DOT: options of rtl/gen/measure)
	@packaging/install-deps build test rtl
	@PYTHONDONTWRITEBYTECODE=1 $(PYTHON) rtl/gen/measure $(RTL_DOT)

.PHONY: rtl-dot
.PHONY: rtl-test rtl-synth
