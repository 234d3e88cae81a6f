# The engine in SystemVerilog: Verilated libraries, tests, LUT counts. A geometry is P,PI,PR,AM_ROWS,RM_ROWS,WB_WORDS, commas as dashes in file names.
#
# rtl-test is short: one small geometry. With SEEDS=n all small ones, n programs each; with GEOMETRIES="..." those.
RTL_SRC        := $(wildcard rtl/*.sv rtl/*.svh rtl/sim/*.cpp) rtl/build hls/include/xnor_isa.h hls/include/xnor_sim.h
RTL_SEEDS      := $(or $(SEEDS),60)
RTL_LARGER     := 4,4,2,256,256,64 8,8,4,256,256,64
RTL_GEOMETRIES := 2,1,1,256,256,64 $(if $(SEEDS),$(RTL_LARGER))
RTL_NETWORKS   := 8,8,4,12288,4096,1024# 4T
RTL_IMAGES      = $(or $(IMAGES),3)
rtl_library     = build/rtl/$(subst $(comma),-,$(1)).so
RTL_TESTED      = $(or $(GEOMETRIES),$(RTL_GEOMETRIES))

build/rtl/%.so: $(RTL_SRC)
	@mkdir -p $(@D)
	$(if $(filter 0,$(V)),@echo "  RTL   $@")
	$(Q)rtl/build $(subst -,$(comma),$*) $@

rtl-programs: $(BUILD)/tests/engine/test_simulators $(call rtl_library,$(firstword $(RTL_GEOMETRIES)))

build/rtl/dsp/bench: rtl/gen/dsp.sv rtl/xn_dsp.sv rtl/xn_array.sv
	$(if $(filter 0,$(V)),@echo "  RTL   $@")
	$(Q)env -u MAKEFLAGS verilator --binary -O3 -Wno-fatal -Wno-lint -Wno-STMTDLY -Irtl --top-module bench --Mdir $(@D) -o bench $^ >$(@D).log

rtl-test: ## Random programs through the Verilated engine and the scalar definition: every word and cycle, a stalling memory, starts after errors (SEEDS of each: 60; GEOMETRIES: other ones, "8,4,4,256,256,64 ...")
	@packaging/install-deps build test rtl
	@mkdir -p build/rtl
	@$(MAKE) $(SUBMAKE) build/rtl/dsp/bench
	@build/rtl/dsp/bench +verilator+seed+$(or $(SEED),1)
	@$(MAKE) $(SUBMAKE) $(BUILD)/tests/engine/test_simulators $(foreach g,$(RTL_TESTED),$(call rtl_library,$(g)))
	@set -e; $(foreach g,$(RTL_TESTED),$(foreach how,--cycles --stalls --damaged, \
	    $(BUILD)/tests/engine/test_simulators --geometry $(g) --seeds $(RTL_SEEDS) $(how) $(call rtl_library,$(g));))

rtl-formal: ## Properties of the RTL's units proven by yosys and z3 (RTL_FORMAL: options of rtl/formal/prove, --mutants for one)
	@packaging/install-deps build demo rtl
	@PYTHONDONTWRITEBYTECODE=1 $(PYTHON) rtl/formal/prove $(RTL_FORMAL)

rtl-networks: ## Shipped networks through the Verilated engine as 4T: exact logits, and the cycles of the model (IMAGES of each: 3)
	@packaging/install-deps build test rtl
	@$(MAKE) $(SUBMAKE) $(BUILD)/tests/engine/test_networks $(call rtl_library,$(RTL_NETWORKS))
	@$(BUILD)/tests/engine/test_networks --geometry 4T --cycles --images $(RTL_IMAGES) $(call rtl_library,$(RTL_NETWORKS)) $(wildcard models/*/*.xnor)

rtl-synth: ## LUTs, registers, memories and DSPs of whole engines, 2T and 4T, by yosys, against rtl/budget.json and their boards
	@packaging/install-deps build demo rtl
	@$(PYTHON) rtl/synth

rtl-dot: ## The binary dot product in LUTs: the generated compressors proven by simulation and counted by yosys (RTL_DOT: options of rtl/gen/measure)
	@packaging/install-deps build test rtl
	@PYTHONDONTWRITEBYTECODE=1 $(PYTHON) rtl/gen/measure $(RTL_DOT)

.PHONY: rtl-programs rtl-test rtl-networks rtl-synth rtl-dot rtl-formal
