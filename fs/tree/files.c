/* The tables of the tree's files: one row a file. What a control file does when written is in fs/commands/command.c. */
#include "files.h"

#include <string.h>
#include <sys/stat.h>

#include "tree_i.h"

/* The mount's umask is taken away from these: 077 by default, since what an agent saw may hold secrets (frameworks.md §1.4). */
#define DIRECTORY (S_IFDIR | 0777)
#define LINK (S_IFLNK | 0777)
#define DATA (S_IFREG | 0444)
#define PRIVATE (S_IFREG | 0400) /* never another's, whatever the umask */
#define WRITABLE (S_IFREG | 0666)
#define CONTROL (S_IFREG | 0666)

static bool stored(const struct index_entry *e, const struct file_row *row)
{
    return e->c.sizes[row->file] >= 0;
}

static bool has_state(const struct index_entry *e, const struct file_row *row)
{
    (void)row;
    return e->c.phase == PHASE_SEALED || e->draft_size >= 0;
}

/* There is a snapshot to make branches of. */
static bool can_branch(const struct index_entry *e, const struct file_row *row)
{
    (void)row;
    return e->c.phase == PHASE_SEALED || e->c.phase == PHASE_SAVED;
}

static bool sealed(const struct index_entry *e, const struct file_row *row)
{
    (void)row;
    return e->c.phase == PHASE_SEALED;
}

/* In NAME/. Kinds are node.h's and stay for ever; the order is that of `ls -U`. What no agent writes comes first: tar and cp keep it,
 * and so a backup that is copied straight into the mount gives itself away before its state comes (fs/mount/copies.c). */
const struct file_row checkpoint_files[] = {
    {.name = "checkpoint.json", .kind = CKPT_CHECKPOINT, .mode = DATA, .source = SOURCE_FILE, .file = FILE_CHECKPOINT, .listed = stored,
     .copied = OF_BACKUP},
    {.name = "snapshot.json", .kind = CKPT_SNAPSHOT, .mode = DATA, .source = SOURCE_FILE, .file = FILE_SNAPSHOT, .listed = stored,
     .copied = OF_BACKUP},
    {.name = "state.json", .kind = CKPT_STATE, .mode = DATA, .who = ROLE_AGENT, .source = SOURCE_STATE, .file = FILE_STATE,
     .listed = has_state, .immutable = true},
    {.name = "meta.json", .kind = CKPT_META, .mode = WRITABLE, .who = ROLE_AGENT, .source = SOURCE_FILE, .file = FILE_META,
     .listed = stored},
    {.name = "transcript.md", .kind = CKPT_TRANSCRIPT, .mode = DATA, .source = SOURCE_FILE, .file = FILE_TRANSCRIPT, .listed = stored,
     .immutable = true, .copied = OF_BACKUP},
    {.name = "pending", .kind = CKPT_PENDING, .mode = DIRECTORY, .source = SOURCE_NONE, .listed = sealed, .copied = OF_BACKUP},
    {.name = "restore", .kind = CKPT_RESTORE, .mode = CONTROL, .source = SOURCE_EMPTY},
    {.name = "resume", .kind = CKPT_RESUME, .mode = CONTROL, .source = SOURCE_EMPTY},
    {.name = "replay", .kind = CKPT_REPLAY, .mode = CONTROL, .source = SOURCE_EMPTY},
    {.name = "cancel", .kind = CKPT_CANCEL, .mode = CONTROL, .source = SOURCE_EMPTY},
    {.name = "status", .kind = CKPT_STATUS, .mode = DATA, .source = SOURCE_TEXT, .copied = LIKE_BACKUP},
    {.name = "result", .kind = CKPT_RESULT, .mode = DATA, .source = SOURCE_FILE, .file = FILE_RESULT, .listed = stored,
     .copied = LIKE_BACKUP},
    {.name = "output", .kind = CKPT_OUTPUT, .mode = DATA, .source = SOURCE_OUTPUT, .file = FILE_OUTPUT, .listed = stored,
     .copied = LIKE_BACKUP},
    {.name = "history.jsonl", .kind = CKPT_HISTORY, .mode = DATA, .source = SOURCE_HISTORY, .file = FILE_HISTORY, .copied = OF_BACKUP},
    {.name = "branches", .kind = CKPT_BRANCHES, .mode = DIRECTORY, .source = SOURCE_NONE, .listed = can_branch},
    {.name = "wait", .kind = CKPT_WAIT, .mode = DATA, .source = SOURCE_WAIT, .hidden = true},
};
const size_t n_checkpoint_files = sizeof(checkpoint_files) / sizeof(*checkpoint_files);

/* In NAME/branches/X/. */
const struct file_row branch_files[] = {
    {.name = "branch.json", .kind = BRANCH_JSON, .mode = DATA, .source = SOURCE_TEXT},
    {.name = "status", .kind = BRANCH_STATUS, .mode = DATA, .source = SOURCE_TEXT},
    {.name = "result", .kind = BRANCH_RESULT, .mode = DATA, .source = SOURCE_FILE, .file = FILE_RESULT},
    {.name = "output", .kind = BRANCH_OUTPUT, .mode = DATA, .source = SOURCE_OUTPUT, .file = FILE_OUTPUT},
    {.name = "resume", .kind = BRANCH_RESUME, .mode = CONTROL, .source = SOURCE_EMPTY},
    {.name = "cancel", .kind = BRANCH_CANCEL, .mode = CONTROL, .source = SOURCE_EMPTY},
    {.name = "promote", .kind = BRANCH_PROMOTE, .mode = CONTROL, .source = SOURCE_EMPTY},
    {.name = "checkpoints", .kind = BRANCH_CHECKPOINTS, .mode = DIRECTORY, .source = SOURCE_NONE},
    {.name = "connection_uri", .kind = BRANCH_URI, .mode = PRIVATE, .source = SOURCE_TEXT, .hidden = true},
    {.name = "wait", .kind = BRANCH_WAIT, .mode = DATA, .source = SOURCE_WAIT, .hidden = true},
};
const size_t n_branch_files = sizeof(branch_files) / sizeof(*branch_files);

/* In the root, before the checkpoints. */
const struct file_row root_files[] = {
    {.name = ".control", .kind = MOUNT_CONTROL, .mode = DIRECTORY},
    {.name = ".import", .kind = MOUNT_IMPORT, .mode = DIRECTORY},
    {.name = ".pending", .kind = MOUNT_PENDING, .mode = DIRECTORY},
    {.name = ".runs", .kind = MOUNT_RUNS, .mode = DIRECTORY},
    {.name = ".by-id", .kind = MOUNT_BY_ID, .mode = DIRECTORY},
    {.name = ".by-snapshot", .kind = MOUNT_BY_SNAPSHOT, .mode = DIRECTORY},
    {.name = ".by-trace", .kind = MOUNT_BY_TRACE, .mode = DIRECTORY},
    {.name = "latest", .kind = MOUNT_LATEST, .mode = LINK},
};
const size_t n_root_files = sizeof(root_files) / sizeof(*root_files);

/* In .runs/RUN_ID/, before its checkpoints. */
const struct file_row run_files[] = {
    {.name = "timeline.svg", .kind = RUN_TIMELINE_SVG, .mode = DATA, .source = SOURCE_TEXT},
    {.name = "timeline.txt", .kind = RUN_TIMELINE_TXT, .mode = DATA, .source = SOURCE_TEXT},
};
const size_t n_run_files = sizeof(run_files) / sizeof(*run_files);

/* In .control/. */
const struct file_row control_files[] = {
    {.name = "active_branch", .kind = MOUNT_ACTIVE_BRANCH, .mode = DATA, .source = SOURCE_TEXT},
    {.name = "connection_uri", .kind = MOUNT_CONNECTION_URI, .mode = PRIVATE, .source = SOURCE_TEXT, .hidden = true},
    {.name = "health", .kind = MOUNT_HEALTH, .mode = DATA, .source = SOURCE_TEXT},
    {.name = "version", .kind = MOUNT_VERSION, .mode = DATA, .source = SOURCE_TEXT},
    {.name = "config", .kind = MOUNT_CONFIG, .mode = DATA, .source = SOURCE_TEXT},
    {.name = "events.jsonl", .kind = MOUNT_EVENTS, .mode = DATA, .source = SOURCE_EVENTS},
    {.name = "metrics", .kind = MOUNT_METRICS, .mode = DATA, .source = SOURCE_METRICS, .hidden = true},
    {.name = "result", .kind = MOUNT_RESULT, .mode = DATA, .source = SOURCE_ACTION},
    {.name = "actions", .kind = MOUNT_ACTIONS, .mode = DIRECTORY},
    {.name = "replaced", .kind = MOUNT_REPLACED, .mode = DIRECTORY},
    {.name = "prune", .kind = MOUNT_PRUNE, .mode = CONTROL, .source = SOURCE_EMPTY},
    {.name = "undo", .kind = MOUNT_UNDO, .mode = CONTROL, .source = SOURCE_EMPTY},
    {.name = "adopt", .kind = MOUNT_ADOPT, .mode = CONTROL, .source = SOURCE_EMPTY},
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

const char *tree_file_name(node_id file)
{
    const struct file_row *row = row_by_kind(checkpoint_files, n_checkpoint_files, node_kind(file));

    return row && node_class(file) == CLASS_CHECKPOINT ? row->name : NULL;
}

/* `agent_checkpoint.json` is somebody's own; .checkpoint.json.x4FgT1 and checkpoint.json.ab12.partial are how tools copy. */
static bool brings(const char *name, const struct file_row *row)
{
    size_t n = strlen(row->name);

    if (S_ISDIR(row->mode))
        return strcmp(name, row->name) == 0;
    if (name[0] == '.')
        return strstr(name, row->name) != NULL;
    return strncmp(name, row->name, n) == 0 && (!name[n] || name[n] == '.' || name[n] == '~');
}

const char *tree_backup_file(const char *name, bool surely)
{
    for (size_t i = 0; i < n_checkpoint_files; i++)
        if (checkpoint_files[i].copied >= (surely ? OF_BACKUP : LIKE_BACKUP) && brings(name, &checkpoint_files[i]))
            return checkpoint_files[i].name;
    return NULL;
}
