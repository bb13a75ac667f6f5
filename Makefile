# checkpointfs: `make help` lists what can be made.

BUILD     ?= build
CC        ?= gcc
SAN       ?=
PYTEST_ARGS ?=
JOBS      ?= $(shell expr 2 \* `nproc`)
VENV      ?= build/venv
PLAN      ?= paid
KEEP      ?=
PREFIX    ?= /usr/local
DESTDIR   ?=
WARN      := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wconversion -Wvla -Wformat=2 -Wundef -Wswitch-enum
PKGS      := fuse3 libcurl jansson libpq libcrypto
CFLAGS    ?= -O2 -g
# One by one, so that a missing package doesn't take the others' flags away.
PKG_CFLAGS := $(foreach p,$(PKGS) libmicrohttpd cmocka,$(shell pkg-config --cflags $(p) 2>/dev/null))
LANG_FLAGS := -std=gnu11 -D_GNU_SOURCE -Iinclude $(WARN) $(PKG_CFLAGS)
ALL_CFLAGS = $(LANG_FLAGS) $(CFLAGS) $(SAN) -fvisibility=hidden -fstack-protector-strong -MMD -MP
LDLIBS     = $(shell pkg-config --libs $(PKGS)) -lpthread
EMU_LIBS   = $(shell pkg-config --libs libmicrohttpd jansson libpq libcrypto) -lpthread
TEST_LIBS  = $(shell pkg-config --libs cmocka) $(LDLIBS)

# Every folder of fs/ is a part. The emulator is a program of its own; it shares util and pgserver with the mount.
SRC       := $(filter-out fs/emulator/%,$(wildcard fs/*.c fs/*/*.c))
EMU_SRC   := $(wildcard fs/emulator/*.c fs/util/*.c fs/pgserver/*.c)
LIB_SRC   := $(filter-out fs/main.c,$(SRC))
UNIT_SRC  := $(wildcard tests/unit/test_*.c)
obj        = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
UNITS     := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT_SRC))
BINS      := $(BUILD)/checkpointfs $(BUILD)/neon-emulator

# Tests wait more than they work, hence more of them at once than there are cores.
PYTEST     = CHECKPOINTFS_BUILD=$(abspath $(BUILD)) $(VENV)/bin/python -m pytest -c tests/pytest.ini -n $(JOBS) --dist worksteal

CONCURRENT := $(addprefix tests/e2e/test_,shared.py waits.py control.py interrupts.py turns.py leaving.py)

.PHONY: all demo test suite bench lint flags asan tsan install clean help setup
.DEFAULT_GOAL := all

all: $(BINS) ## build build/checkpointfs and build/neon-emulator

$(BUILD)/checkpointfs: $(call obj,fs/main.c) $(BUILD)/libcheckpointfs.a
	$(CC) $(CFLAGS) $(SAN) -o $@ $^ $(LDLIBS)

$(BUILD)/neon-emulator: $(call obj,$(EMU_SRC))
	$(CC) $(CFLAGS) $(SAN) -o $@ $^ $(EMU_LIBS)

$(BUILD)/libcheckpointfs.a: $(call obj,$(LIB_SRC))
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(BUILD)/unit/%: tests/unit/%.c $(BUILD)/libcheckpointfs.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -o $@ $< $(BUILD)/libcheckpointfs.a $(TEST_LIBS)

-include $(shell find $(BUILD)/obj $(BUILD)/unit -name '*.d' 2>/dev/null)

setup: ## install what is missing to build and run (Debian packages by name, a Python virtual environment under build/)
	scripts/setup demo

demo: ## the guide's story from end to end; KEEP=1 leaves the mount up, PLAN=free uses Neon's free plan's limits
	@scripts/setup demo
	@$(MAKE) --no-print-directory -s all
	@BUILD=$(BUILD) PLAN=$(PLAN) KEEP=$(KEEP) scripts/demo/demo

ASAN_FLAGS = CFLAGS="-O1 -g -fno-omit-frame-pointer" SAN="-fsanitize=address,undefined -fno-sanitize-recover=undefined"
TSAN_FLAGS = CFLAGS="-O1 -g" SAN=-fsanitize=thread

test: ## the whole suite, set-up included; JOBS=1: one test after the other, PYTEST_ARGS="-k WORD": some of them
	@scripts/setup test
	@$(MAKE) --no-print-directory -s all $(BUILD)/units
	@$(MAKE) --no-print-directory -s build/asan/checkpointfs BUILD=build/asan $(ASAN_FLAGS)
	@$(MAKE) --no-print-directory -s build/tsan/checkpointfs BUILD=build/tsan $(TSAN_FLAGS)
	@$(MAKE) --no-print-directory -s suite

# What is built is tested. pytest ends with 5 where PYTEST_ARGS asks for no test of that half: wrong only if it asks for none at all.
suite:
	@$(PYTEST) -m "not alone" tests $(PYTEST_ARGS); first=$$?; [ $$first = 0 ] || [ $$first = 5 ] || exit $$first; \
	$(PYTEST) -n 0 -m alone tests $(PYTEST_ARGS); second=$$?; [ $$second != 5 ] || exit $$first; exit $$second

$(BUILD)/units: $(UNITS)
	@touch $@

lint: ## no warnings under gcc and clang; every header compiles by itself; tidy text
	@scripts/setup lint
	@scripts/lint

flags: # for scripts/lint
	@echo $(LANG_FLAGS)

asan: ## the whole suite under AddressSanitizer and UndefinedBehaviorSanitizer, with leak checking
	@$(MAKE) --no-print-directory test BUILD=build/asan VENV=$(VENV) $(ASAN_FLAGS)

tsan: BUILD = build/tsan
tsan: ## the concurrent part of the suite under ThreadSanitizer
	@scripts/setup test
	@$(MAKE) --no-print-directory -s all BUILD=build/tsan $(TSAN_FLAGS)
	@$(PYTEST) $(CONCURRENT) $(PYTEST_ARGS)

bench: all ## times of takes, restores, listings and reads, side by side with plain files and pg_basebackup
	@BUILD=$(BUILD) $(VENV)/bin/python scripts/bench

install: all ## the two programs and their man pages into $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	install $(BINS) $(DESTDIR)$(PREFIX)/bin
	install -m 644 fs/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1

clean: ## remove build/
	rm -rf build

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10
