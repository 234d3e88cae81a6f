# The engine in HLS C++ as a C simulation: a shared library for each geometry, and the units' test benches. Included by the Makefile.
#
# A geometry is P,PI,PR,AM_ROWS,RM_ROWS,WB_WORDS. Small ones are for random programs, the last two are 2T and 4T (accel/engine/geometry.c) for whole networks.

HLS_p1 := 1,1,1,2048,1024,300
HLS_p2 := 2,1,1,1024,1024,64
HLS_p4 := 4,2,2,1024,1024,100
HLS_p8 := 8,8,4,512,512,200
HLS_2t := 4,4,2,4608,4096,512
HLS_4t := 8,8,4,12288,4096,1024
HLS_GEOMETRIES := p1 p2 p4 p8 2t 4t

comma := ,
# P,PI,... as macros; popcounts of x86-64 are an instruction that its first machines had not.
hls_part   = $(word $(2),$(subst $(comma), ,$(HLS_$(1))))
HLS_MACROS = -DXN_P=$(call hls_part,$(1),1) -DXN_PI=$(call hls_part,$(1),2) -DXN_PR=$(call hls_part,$(1),3) \
             -DXN_AM_ROWS=$(call hls_part,$(1),4) -DXN_RM_ROWS=$(call hls_part,$(1),5) -DXN_WB_WORDS=$(call hls_part,$(1),6)

HLS_CXX_gcc   := g++
HLS_CXX_clang := clang++
HLS_CXX    = $(HLS_CXX_$(CC))
HLS_WARN   := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-unknown-pragmas $(if $(CI),-Werror)
HLS_FLAGS  = -std=c++14 -g $(OPT) $(if $(filter x86_64-%,$(CPU_MACHINE)),-mpopcnt) $(HLS_WARN) -I. -Ihls/sim
HLS_HEADERS := $(wildcard hls/include/*.h hls/src/*.h hls/sim/*.h hls/test/*.h)

HLS_LIBRARIES := $(HLS_GEOMETRIES:%=$(BUILD)/libxnor-sim-hls-%.so)
HLS_BENCHES   := $(patsubst hls/test/test_%.cpp,$(BUILD)/hls/test_%,$(wildcard hls/test/test_*.cpp))

$(BUILD)/libxnor-sim-hls-%.so: hls/sim/simulator.cpp $(HLS_HEADERS) | deps-build
	@mkdir -p $(@D)
	$(if $(filter 0,$(V)),@echo "  CXX   $@")
	$(Q)$(HLS_CXX) $(HLS_FLAGS) -DXN_HLS_SIMULATION $(call HLS_MACROS,$*) -fPIC -shared -o $@ $<

# A bench is one source file with all tops.
$(BUILD)/hls/tops.o: hls/test/tops.cpp $(HLS_HEADERS) | deps-build
	@mkdir -p $(@D)
	$(Q)$(HLS_CXX) $(HLS_FLAGS) -DXN_HLS_SIMULATION $(call HLS_MACROS,p4) -c -o $@ $<
$(BUILD)/hls/test_%: hls/test/test_%.cpp $(BUILD)/hls/tops.o
	$(if $(filter 0,$(V)),@echo "  CXX   $<")
	$(Q)$(HLS_CXX) $(HLS_FLAGS) -DXN_HLS_SIMULATION $(call HLS_MACROS,p4) -o $@ $^
# The kernel itself, its ports plain pointers as Vitis has them.
$(BUILD)/hls/kernel: hls/test/kernel_test.cpp hls/src/xnor_engine.cpp $(HLS_HEADERS) | deps-build
	@mkdir -p $(@D)
	$(Q)$(HLS_CXX) $(HLS_FLAGS) $(call HLS_MACROS,p4) -o $@ $(filter %.cpp,$^)

hls-programs: $(HLS_LIBRARIES) $(HLS_BENCHES) $(BUILD)/hls/kernel $(BUILD)/tests/engine/test_simulators $(BUILD)/tests/engine/test_networks
# Random programs word by word, then damaged ones; shipped networks where nothing slows them down.
HLS_SEEDS  = $(or $(SEEDS),40)
HLS_IMAGES = $(or $(IMAGES),$(if $(filter release clang,$(VARIANT)),10,1))
hls-run: hls-programs
	@$(PYTHON) hls/boards/build --check
	@set -e; for bench in $(HLS_BENCHES) $(BUILD)/hls/kernel; do $$bench $(HLS_SEEDS); done; \
	$(foreach mode,"" --damaged,$(foreach g,p1 p2 p4 p8,$(BUILD)/tests/engine/test_simulators $(filter-out "",$(mode)) \
	    --geometry $(HLS_$(g)) --seeds $(HLS_SEEDS) $(BUILD)/libxnor-sim-hls-$(g).so;)) \
	$(BUILD)/tests/engine/test_networks --geometry 4T --images $(HLS_IMAGES) $(BUILD)/libxnor-sim-hls-4t.so $(wildcard models/*/*.xnor)

.PHONY: hls-programs hls-run
