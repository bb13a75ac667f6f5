# checkpointfs: `make help` lists what can be made.

BUILD     ?= build
CC        ?= gcc
SAN       ?=
PYTEST_ARGS ?=
WARN      := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wconversion -Wvla -Wformat=2 -Wundef -Wswitch-enum
PKGS      := fuse3 libcurl jansson libpq libcrypto inih
CFLAGS    ?= -O2 -g
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE -Iinclude $(WARN) $(CFLAGS) $(SAN) -fvisibility=hidden -fstack-protector-strong -MMD -MP \
             $(shell pkg-config --cflags $(PKGS) libmicrohttpd cmocka 2>/dev/null)
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

.PHONY: all demo test test-unit bench lint asan tsan clean help setup headers install
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
