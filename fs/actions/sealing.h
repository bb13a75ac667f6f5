/* What a state is turned into before it is stored: read once, every file rendered. For the seal, and for what comes in by .import/. */
#ifndef SEALING_H
#define SEALING_H

#include "actions_i.h"
#include "formats/meta.h"
#include "formats/render.h"
#include "formats/state.h"

/* Everything a seal is made of. Zero-initialise; meta, meta_text and their flags are the caller's to fill in before sealing_read. */
struct sealing {
    struct brief b;
    struct buf meta_text;
    bool has_meta_text;
    struct meta meta;
    bool has_meta;
    struct state_info info;
    bool has_info;
    char sha256[SHA256_HEX_SIZE];
    struct checkpoint_facts facts;
    struct buf envelope, checkpoint_json, transcript;
    struct store_call *calls;
    struct buf *call_files;
};
void sealing_clear(struct sealing *s);

/* 0, or -EINVAL saying how: JSON cut short starts with { or [ and its brackets don't close (traps.md 9). */
int sealing_whole(const void *bytes, size_t n, struct err *e);
int sealing_hash(struct sealing *s, const void *bytes, size_t n, struct err *e);
/* What the state tells, with what meta.json supplies. */
int sealing_read(struct sealing *s, const void *bytes, size_t n, struct err *e);
/* Then the facts; `identity`: id, name and created_at, which must live as long as `s`. */
void sealing_facts(struct sealing *s, const struct checkpoint_facts *identity, size_t n);
/* Then the files. */
int sealing_render(struct sealing *s, const void *bytes, size_t n, struct err *e);
/* What the store takes; it borrows from `s` and `bytes`. */
void sealing_fill(const struct sealing *s, const void *bytes, size_t n, pid_t by, struct store_seal *ret);

#endif
