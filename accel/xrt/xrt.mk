# XRT's part of the backend xrt, a module of its own, where XRT's headers are: /usr/include/xrt (Debian), $XILINX_XRT (AMD's packages), or XRT_ROOT.
# pkg-config is not asked: Debian's xrt.pc adds a driver that must not be linked.
XRT_PREFIXES   := $(XRT_ROOT) $(XILINX_XRT) /opt/xilinx/xrt /usr
XRT_HEADERS := $(firstword $(foreach r,$(XRT_PREFIXES),$(patsubst %/xrt/xrt_device.h,%,$(wildcard $(r)/include/xrt/xrt/xrt_device.h $(r)/include/xrt/xrt_device.h))))
XRT_LINK    := $(addprefix -L,$(wildcard $(patsubst %/xrt,%,$(XRT_HEADERS))/../lib)) -lxrt_coreutil -luuid
# Programs in C, which load what is in C++ here, have not what these checks of UBSan need.
XRT_SANITIZE = $(if $(filter asan,$(VARIANT)),-fno-sanitize=vptr$(comma)function)
XRT_CXX_gcc   := g++
XRT_CXX_clang := clang++
# Cross builds have no XRT: the loader (module.c) says so when an accelerator asks for it.
XRT_MODULE  := $(if $(and $(XRT_HEADERS),$(filter-out aarch64 fuzz,$(VARIANT))),$(BUILD)/xnor-xrt.so)

all: $(XRT_MODULE)

$(BUILD)/xnor-xrt.so: accel/xrt/shim.cpp accel/xrt/api.h | deps-build
	@mkdir -p $(@D)
	$(if $(filter 0,$(V)),@echo "  CXX   $<")
	$(Q)$(XRT_CXX_$(CC)) -std=c++17 -g $(OPT) -Wall -Wextra -Wpedantic $(XRT_SANITIZE) -fPIC -shared -fvisibility=hidden -I. -isystem $(XRT_HEADERS) -o $@ $< $(XRT_LINK)
