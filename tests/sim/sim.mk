# The simulator: daemon/sched and what it needs, without the rest of the daemon.
SIM_SRC   := $(filter-out tests/sim/xnord_sim.c tests/sim/test_%.c,$(wildcard tests/sim/*.c)) \
             $(addprefix daemon/sched/,sched.c choose.c admit.c energy.c demand.c cost.c) common/heap.c common/fault.c
SIM_OBJ   := $(call OBJ,$(SIM_SRC))
SIM_TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/sim/test_*.c))

sim-programs: $(BUILD)/tests/sim/xnord-sim $(SIM_TESTS)
$(BUILD)/tests/sim/xnord-sim: $(BUILD)/obj/tests/sim/xnord_sim.o $(SIM_OBJ)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ -lm
$(SIM_TESTS): $(BUILD)/tests/sim/%: $(BUILD)/obj/tests/sim/%.o $(SIM_OBJ)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ -lm -lcmocka
.PHONY: sim-programs
