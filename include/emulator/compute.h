/* Computes: the PostgreSQL server of a branch, and consistent copies of its data. Called without the lock. */
#ifndef EMULATOR_COMPUTE_H
#define EMULATOR_COMPUTE_H

#include <stdint.h>

#include <libpq-fe.h>

#include "emulator/emulator.h"

/* Where the data of a branch or snapshot is; new string. */
char *compute_branch_dir(const struct emulator *e, const char *branch);
char *compute_snapshot_dir(const struct emulator *e, const char *snapshot);

/* A new, empty cluster with the role and database every project begins with. */
int compute_init(struct emulator *e, const char *branch, const char *role, const char *role_password, const char *database,
                 struct err *err);

/* Starts the server of a branch on `port`, or finds it running there. */
int compute_start(struct emulator *e, const char *branch, int port, struct err *err);
int compute_stop(struct emulator *e, const char *branch);
bool compute_running(struct emulator *e, const char *branch, int *ret_port);

/* A superuser's connection to a database of a branch. Where no server runs, one is started for the time of the session. */
struct compute_session {
    PGconn *conn;
    char *branch;
    bool temporary;
    struct emulator *e;
};
int compute_session_open(struct emulator *e, const char *branch, const char *database, struct compute_session *ret_session,
                         struct err *err);
/* The same, but -ENOTCONN where no server runs: for who doesn't hold the project's turn. */
int compute_session_attach(struct emulator *e, const char *branch, const char *database, struct compute_session *ret_session,
                           struct err *err);
void compute_session_close(struct compute_session *session);

/* Runs one statement. -EIO with PostgreSQL's words. */
int compute_exec(PGconn *conn, const char *sql, struct err *err);

/* Copies the data of a branch, running or not, into the new directory `to`: complete, consistent and on the disk when it
 * returns 0. `ret_lsn` (free() it) is the point that the copy has, `ret_bytes` the size of its databases. */
int compute_copy_branch(struct emulator *e, const char *branch, const char *to, char **ret_lsn, int64_t *ret_bytes,
                        struct err *err);

/* Copies the data of a snapshot into a new branch. */
int compute_copy_snapshot(struct emulator *e, const char *snapshot, const char *branch, struct err *err);

/* Role and database statements; names are quoted here. */
int compute_create_role(PGconn *conn, const char *name, const char *password, bool login, struct err *err);
int compute_set_password(PGconn *conn, const char *name, const char *password, struct err *err);
int compute_create_database(PGconn *conn, const char *name, const char *owner, struct err *err);

#endif
