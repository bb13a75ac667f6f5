/* The tables of the tree's files: one row a file. What a control file does when written is in fs/commands/command.c. */
#include "files.h"

#include <string.h>
#include <sys/stat.h>

#include "tree_i.h"

#define DIRECTORY (S_IFDIR | 0755)
#define LINK (S_IFLNK | 0777)
#define DATA (S_IFREG | 0444)
#define PRIVATE (S_IFREG | 0400) /* what an agent saw may hold secrets (frameworks.md §1.4) */
#define WRITABLE (S_IFREG | 0644)
#define CONTROL (S_IFREG | 0600)

static bool stored(const struct index_entry *e, const struct file_row *row)
{
    return e->c.sizes[row->file] >= 0;
}

static bool has_state(const struct index_entry *e, const struct file_row *row)
{
    (void)row;
    return e->c.phase == PHASE_SEALED || e->draft_size >= 0;
}

static bool sealed(const struct index_entry *e, const struct file_row *row)
{
    (void)row;
    return e->c.phase == PHASE_SEALED;
}

/* In NAME/. Kinds are node.h's and stay for ever; the order is that of `ls -U`. What no agent writes comes first: tar and cp keep it,
 * and so a backup that is copied straight into the mount gives itself away before its state comes (fs/mount/copies.c). */
const struct file_row checkpoint_files[] = {
    {.name = "checkpoint.json", .kind = CKPT_CHECKPOINT, .mode = DATA, .source = SOURCE_FILE, .file = FILE_CHECKPOINT, .listed = stored},
    {.name = "snapshot.json", .kind = CKPT_SNAPSHOT, .mode = DATA, .source = SOURCE_FILE, .file = FILE_SNAPSHOT, .listed = stored},
    {.name = "state.json", .kind = CKPT_STATE, .mode = PRIVATE, .source = SOURCE_STATE, .file = FILE_STATE, .listed = has_state,
     .immutable = true},
    {.name = "meta.json", .kind = CKPT_META, .mode = WRITABLE, .source = SOURCE_FILE, .file = FILE_META, .listed = stored},
    {.name = "transcript.md", .kind = CKPT_TRANSCRIPT, .mode = PRIVATE, .source = SOURCE_FILE, .file = FILE_TRANSCRIPT, .listed = stored,
     .immutable = true},
    {.name = "pending", .kind = CKPT_PENDING, .mode = DIRECTORY, .source = SOURCE_NONE, .listed = sealed},
    {.name = "restore", .kind = CKPT_RESTORE, .mode = CONTROL, .source = SOURCE_EMPTY},
    {.name = "resume", .kind = CKPT_RESUME, .mode = CONTROL, .source = SOURCE_EMPTY},
    {.name = "replay", .kind = CKPT_REPLAY, .mode = CONTROL, .source = SOURCE_EMPTY},
    {.name = "cancel", .kind = CKPT_CANCEL, .mode = CONTROL, .source = SOURCE_EMPTY},
    {.name = "status", .kind = CKPT_STATUS, .mode = DATA, .source = SOURCE_TEXT},
    {.name = "result", .kind = CKPT_RESULT, .mode = DATA, .source = SOURCE_FILE, .file = FILE_RESULT, .listed = stored},
    {.name = "output", .kind = CKPT_OUTPUT, .mode = PRIVATE, .source = SOURCE_OUTPUT, .file = FILE_OUTPUT, .listed = stored},
    {.name = "history.jsonl", .kind = CKPT_HISTORY, .mode = DATA, .source = SOURCE_HISTORY, .file = FILE_HISTORY},
    {.name = "wait", .kind = CKPT_WAIT, .mode = DATA, .source = SOURCE_WAIT, .hidden = true},
};
const size_t n_checkpoint_files = sizeof(checkpoint_files) / sizeof(*checkpoint_files);

/* In the root, before the checkpoints. */
const struct file_row root_files[] = {
    {.name = ".control", .kind = MOUNT_CONTROL, .mode = DIRECTORY},
    {.name = ".pending", .kind = MOUNT_PENDING, .mode = DIRECTORY},
    {.name = "latest", .kind = MOUNT_LATEST, .mode = LINK},
};
const size_t n_root_files = sizeof(root_files) / sizeof(*root_files);

/* In .control/. */
const struct file_row control_files[] = {
    {.name = "active_branch", .kind = MOUNT_ACTIVE_BRANCH, .mode = DATA, .source = SOURCE_TEXT},
    {.name = "connection_uri", .kind = MOUNT_CONNECTION_URI, .mode = PRIVATE, .source = SOURCE_TEXT, .hidden = true},
    {.name = "health", .kind = MOUNT_HEALTH, .mode = DATA, .source = SOURCE_TEXT},
    {.name = "version", .kind = MOUNT_VERSION, .mode = DATA, .source = SOURCE_TEXT},
    {.name = "config", .kind = MOUNT_CONFIG, .mode = DATA, .source = SOURCE_TEXT},
    {.name = "events.jsonl", .kind = MOUNT_EVENTS, .mode = DATA, .source = SOURCE_EVENTS},
    {.name = "result", .kind = MOUNT_RESULT, .mode = DATA, .source = SOURCE_ACTION},
    {.name = "actions", .kind = MOUNT_ACTIONS, .mode = DIRECTORY},
    {.name = "prune", .kind = MOUNT_PRUNE, .mode = CONTROL, .source = SOURCE_EMPTY},
};
const size_t n_control_files = sizeof(control_files) / sizeof(*control_files);

const struct file_row *row_by_name(const struct file_row *rows, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

const struct file_row *row_by_kind(const struct file_row *rows, size_t n, unsigned kind)
{
    for (size_t i = 0; i < n; i++)
        if (rows[i].kind == kind)
            return &rows[i];
    return NULL;
}

bool tree_names_own_file(const char *name)
{
    for (size_t i = 0; i < n_checkpoint_files; i++)
        if (checkpoint_files[i].kind != CKPT_STATE && checkpoint_files[i].kind != CKPT_META && strstr(name, checkpoint_files[i].name))
            return true;
    return false;
}
