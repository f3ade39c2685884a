# SPDX-License-Identifier: MIT OR Apache-2.0
# tenon: one non-recursive Makefile. `make help` lists the targets.

BUILD        ?= build
CROSS        ?=
PREFIX       ?= /usr/local
FUZZ_SECONDS ?= 30
VERSION      := 0.1.0

CC     := $(CROSS)gcc
AR     := $(CROSS)ar
CLANG  ?= clang
WARN   := -Wall -Wextra -Wconversion -Wshadow -Wvla -Werror
CFLAGS ?= -O2 -g
ALL     = -std=c11 -D_GNU_SOURCE $(WARN) -Iinclude $(CFLAGS) \
            -MMD -MP -MT $@ -MF $(BUILD)/dep/$(subst /,_,$@).d
LIBS   := -pthread
ifneq ($(STATIC),)
LIBS   += -static
endif
REPLAY := -Ifuzz -include fuzz/replay.c
SAN    := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

ifeq ($(V),)
Q   := @
say  = @printf '  %-7s %s\n' $(1) $(2);
endif

# What this is built for. An arm64 machine has a device tree; a cross build has libfdt from source.
MACHINE := $(if $(CROSS),$(CROSS:-=),$(shell uname -m))
ARM64   := $(filter aarch64%,$(MACHINE))
FDT     := $(if $(ARM64),-lfdt)
ifneq ($(CROSS),)
ALL    += -isystem $(BUILD)/cross/src/fdt -isystem $(BUILD)/cross/src/cmocka
LIBS   += -L$(BUILD)/cross/$(MACHINE)
endif

HEADERS  := $(wildcard include/tn_*.h)
MICROVM  := $(patsubst examples/%.c,$(BUILD)/%.o,$(wildcard examples/microvm/*.c))
EXAMPLES := $(patsubst examples/%.c,%,$(wildcard examples/*.c)) microvm
# Tests of machines and of KVM have guests of one architecture.
X86_ONLY   := kvm kvm_x86 kvm_x86_state uffd vm vm_devices vm_fault vm_fork vm_fork_wired \
              vm_hostile vm_image vm_records vm_state vm_virtio vm_x86
ARM64_ONLY := kvm_arm64 kvm_arm64_state vm_arm64
UNITS    := $(filter-out $(if $(ARM64),$(X86_ONLY),$(ARM64_ONLY)), \
              $(patsubst tests/test_%.c,%,$(wildcard tests/test_*.c)))
THREADED := $(filter loop vsock_unix vm kvm kvm_x86 vm_virtio vm_devices vm_net \
              vm_vsock vm_balloon vm_hostile uffd vm_fork vm_fork_wired,$(UNITS))
FUZZERS  := $(patsubst fuzz/fuzz_%.c,%,$(wildcard fuzz/fuzz_*.c))
BENCHES  := $(patsubst tests/bench/bench_%.c,%,$(wildcard tests/bench/bench_*.c))
PROOFS   := $(patsubst tests/proof/%.c,%,$(wildcard tests/proof/*.c))
ELFS     := $(patsubst tests/guests/%.c,%,$(wildcard tests/guests/*.c))
GUESTS   := $(patsubst tests/guests/%.S,%,$(wildcard tests/guests/*.S))
FOREIGN   = $(addprefix $(BUILD)/cross/,$(shell tests/cross/target programs))

MAKEFLAGS += --jobs=$(shell nproc)
export BUILD FUZZ_SECONDS

.PHONY: all lib examples help run test tests unit unit-cross replay check check-layers \
        check-common check-headers check-docs check-lint check-format format fuzz prove \
        prove-mutants coverage bench \
        bench-net install clean guests deps
.DELETE_ON_ERROR:
.SECONDARY:

all: lib examples ## the library and the examples (the default)

help: ## this list
	@echo 'make TARGET [BUILD=dir] [STATIC=1] [CROSS=prefix-] [V=1]'
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

# ---- what is built ----

lib: $(BUILD)/libtenon.a $(BUILD)/tenon.pc ## libtenon.a and tenon.pc

examples: $(EXAMPLES:%=$(BUILD)/bin/%) ## every example, in BUILD/bin

$(BUILD)/tenon.o: lib/tenon.c | deps-build
	$(Q)mkdir -p $(@D) $(BUILD)/dep
	$(call say,CC,$@)$(CC) $(ALL) -fPIC -c $< -o $@

$(BUILD)/libtenon.a: $(BUILD)/tenon.o
	$(call say,AR,$@)rm -f $@ && $(AR) rcs $@ $<

# Whoever links with a libtenon.a that has tn_fdt in it links with libfdt too.
$(BUILD)/tenon.pc: lib/tenon.pc.in $(BUILD)/tenon.o Makefile
	$(Q)fdt=$$($(CROSS)nm -u $(BUILD)/tenon.o | sed -n 's/.* fdt_create$$/ -lfdt/p') && \
	    sed -e 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' -e "s|@FDT@|$$fdt|" $< > $@

# Elsewhere only what uses tn_fdt links with libfdt.
$(BUILD)/%/fdt: FDT := -lfdt
ifneq ($(CROSS),)
deps-build: $(if $(ARM64),deps-arm64)
$(BUILD)/tenon.o $(EXAMPLES:%=$(BUILD)/bin/%) $(UNITS:%=$(BUILD)/test/%) \
    $(MICROVM): | $(BUILD)/cross/$(MACHINE)/libfdt.a
$(UNITS:%=$(BUILD)/test/%): | $(BUILD)/cross/$(MACHINE)/libcmocka.a
endif

$(BUILD)/bin/microvm: $(MICROVM)
	$(Q)mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(CFLAGS) $^ -o $@ $(LIBS) $(FDT)

$(BUILD)/microvm/%.o: examples/microvm/%.c | deps-build
	$(Q)mkdir -p $(@D) $(BUILD)/dep
	$(call say,CC,$@)$(CC) $(ALL) -DTENON_VERSION='"$(VERSION)"' -c $< -o $@

$(BUILD)/bin/%: examples/%.c | deps-build
	$(Q)mkdir -p $(@D) $(BUILD)/dep
	$(call say,CC,$@)$(CC) $(ALL) $< -o $@ $(LIBS) $(FDT)

# The same test, plain and optimised by gcc, and with sanitizers by clang.
$(BUILD)/test/%: tests/test_%.c | deps-test
	$(Q)mkdir -p $(@D) $(BUILD)/dep
	$(call say,CC,$@)$(CC) $(ALL) -Itests $< -o $@ -lcmocka $(LIBS) $(FDT)

$(BUILD)/asan/%: tests/test_%.c | deps-test
	$(Q)mkdir -p $(@D) $(BUILD)/dep
	$(call say,CLANG,$@)$(CLANG) $(ALL) -O1 $(SAN) -Itests $< -o $@ -lcmocka $(LIBS) $(FDT)

$(BUILD)/tsan/%: tests/test_%.c | deps-test
	$(Q)mkdir -p $(@D) $(BUILD)/dep
	$(call say,CLANG,$@)$(CLANG) $(ALL) -O1 -fsanitize=thread -Itests $< -o $@ -lcmocka \
	    $(LIBS) $(FDT)

$(BUILD)/msan/%: fuzz/fuzz_%.c fuzz/replay.c | deps-test
	$(Q)mkdir -p $(@D) $(BUILD)/dep
	$(call say,CLANG,$@)$(CLANG) $(ALL) -O1 -fsanitize=memory $(REPLAY) $< -o $@ $(FDT)

$(BUILD)/replay/%: fuzz/fuzz_%.c fuzz/replay.c | deps-test
	$(Q)mkdir -p $(@D) $(BUILD)/dep
	$(call say,CLANG,$@)$(CLANG) $(ALL) -O1 $(SAN) $(REPLAY) $< -o $@ $(FDT)

$(BUILD)/fuzz/%: fuzz/fuzz_%.c | deps-test
	$(Q)mkdir -p $(@D) $(BUILD)/dep
	$(call say,FUZZER,$@)$(CLANG) $(ALL) -O1 -fsanitize=fuzzer,address,undefined \
	    -fno-sanitize-recover=all -Ifuzz $< -o $@ $(FDT)

$(BUILD)/cov/%: tests/test_%.c | deps-test
	$(Q)mkdir -p $(@D) $(BUILD)/dep
	$(call say,CLANG,$@)$(CLANG) $(ALL) -O0 -fprofile-instr-generate -fcoverage-mapping -Itests \
	    $< -o $@ -lcmocka $(LIBS) $(FDT)

$(BUILD)/covfuzz/%: fuzz/fuzz_%.c fuzz/replay.c | deps-test
	$(Q)mkdir -p $(@D) $(BUILD)/dep
	$(call say,CLANG,$@)$(CLANG) $(ALL) -O0 -fprofile-instr-generate -fcoverage-mapping $(REPLAY) \
	    $< -o $@ $(FDT)

# As a VMM of many machines is best built; its memory is measured.
$(BUILD)/bench/fork: LIBS += -static

$(BUILD)/bench/%: tests/bench/bench_%.c | deps-build
	$(Q)mkdir -p $(@D) $(BUILD)/dep
	$(call say,CC,$@)$(CC) $(ALL) -Itests/bench $< -o $@ $(LIBS)

$(BUILD)/guests/%.bin: tests/guests/%.S tests/guests/guest.ld tests/guests/guest.inc | deps-build
	$(Q)mkdir -p $(@D) $(BUILD)/dep
	$(call say,GUEST,$@)gcc -ffreestanding -nostdlib -static -no-pie -Wl,--build-id=none \
	    -Wl,-T,tests/guests/guest.ld -Wl,--oformat=binary -Iinclude -Itests/guests $< -o $@

# A guest in C is an ELF kernel for whole machines.
$(BUILD)/guests/%.elf: tests/guests/%.c $(wildcard tests/guests/*.h) | deps-build
	$(Q)mkdir -p $(@D) $(BUILD)/dep
	$(call say,GUEST,$@)gcc -std=c11 -Wall -Wextra -O1 -ffreestanding -fno-pic -fno-stack-protector \
	    -mgeneral-regs-only -mno-red-zone -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-n \
	    -Wl,--no-warn-rwx-segments -Wl,-Ttext-segment=0x100000 $< -o $@

guests: $(GUESTS:%=$(BUILD)/guests/%.bin) $(ELFS:%=$(BUILD)/guests/%.elf)

# ---- running Linux ----

run: deps-testbed $(BUILD)/bin/microvm ## boot a stock Linux in the reference microVM
	$(Q)tests/testbed/run-linux

# ---- other machines' binaries ----

cross-programs: $(FOREIGN)

$(BUILD)/cross/src/%.stamp: tests/cross/fetch
	$(Q)mkdir -p $(@D)
	$(call say,FETCH,$*)if tests/cross/fetch $*; then touch $@; fi

.SECONDEXPANSION:
$(BUILD)/cross/%.a: $(BUILD)/cross/src/$$(subst lib,,$$(notdir $$*)).stamp \
                    | $(if $(CROSS),deps-build,deps-cross)
	$(call say,CROSS,$@)tests/cross/target $(patsubst %/,%,$(dir $*)) library \
	    $(subst lib,,$(notdir $*))

$(BUILD)/cross/%: tests/test_$$(notdir $$*).c tests/cross/target \
                  $(BUILD)/cross/$$(dir $$*)libcmocka.a $(BUILD)/cross/$$(dir $$*)libfdt.a
	$(Q)mkdir -p $(@D) $(BUILD)/dep
	$(call say,CROSS,$@)tests/cross/target $(patsubst %/,%,$(dir $*)) cc -Itests -MMD -MP -MT $@ \
	    -MF $(BUILD)/dep/$(subst /,_,$@).d $< -o $@

# ---- evidence ----

test: deps-check deps-testbed unit-programs cross-programs ## every test; ends with "N passed, ..."
	$(Q)tests/run.sh check unit replay cli cross linux

tests: $(UNITS:%=$(BUILD)/test/%) ## compile the unit tests, also for another machine by CROSS

unit-programs: $(UNITS:%=$(BUILD)/test/%) $(UNITS:%=$(BUILD)/asan/%) $(THREADED:%=$(BUILD)/tsan/%) \
               $(FUZZERS:%=$(BUILD)/replay/%) $(FUZZERS:%=$(BUILD)/msan/%) guests examples

unit: unit-programs ## the unit tests and the seed replay only
	$(Q)tests/run.sh unit replay

unit-cross: cross-programs ## the unit tests as arm64, riscv64, i686 and Windows programs
	$(Q)tests/run.sh cross

check: check-layers check-common check-headers check-docs check-lint check-format ## static checks
	@echo 'check: all hold'

check-layers: ; $(Q)tests/check/layers.sh
check-common: ; $(Q)tests/check/common.sh
check-headers: deps-check ; $(Q)tests/check/headers.sh
check-docs: deps-check ; $(Q)tests/check/manual.sh
check-lint: deps-check ; $(Q)tests/check/lint.sh
check-format: deps-check ; $(Q)tests/check/format.sh

format: deps-check ## reformat the sources
	$(Q)tests/check/format.sh --fix

fuzz: $(FUZZERS:%=$(BUILD)/fuzz/%) ## run each harness for FUZZ_SECONDS
	$(Q)fuzz/run.sh $(FUZZERS)

prove: deps-prove ## discharge the contracts with Frama-C WP
	$(Q)tests/proof/prove.sh $(PROOFS)

prove-mutants: deps-prove ## each mutant must break a proof
	$(Q)tests/proof/mutants.sh

COVERED := $(UNITS:%=$(BUILD)/cov/%) $(FUZZERS:%=$(BUILD)/covfuzz/%)
coverage: $(COVERED) guests ## line coverage per header
	$(Q)tests/coverage.sh

bench: deps-bench $(BENCHES:%=$(BUILD)/bench/%) $(BUILD)/bin/microvm guests ## ratios, with budgets
	$(Q)tests/bench/run.sh $(BENCHES)

bench-net: deps-testbed ## the network beside QEMU's, in the testbed: some minutes
	$(Q)tests/testbed/bench-net

# ---- housekeeping ----

install: lib ## headers, libtenon.a, tenon.pc to DESTDIR/PREFIX
	$(Q)install -d $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/lib/pkgconfig
	$(Q)install -m 644 $(HEADERS) $(DESTDIR)$(PREFIX)/include
	$(Q)install -m 644 $(BUILD)/libtenon.a $(DESTDIR)$(PREFIX)/lib
	$(Q)install -m 644 $(BUILD)/tenon.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig

clean: ## remove BUILD
	$(Q)rm -rf $(BUILD)

# Debian packages, by what they are for; tests/deps.sh installs what is missing, and says so.
deps-%: ; $(Q)tests/deps.sh $*

-include $(wildcard $(BUILD)/dep/*.d)
