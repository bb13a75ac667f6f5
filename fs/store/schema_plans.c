/* Version 6: prune plans and imports. */
#include "store_i.h"

const char schema_plans[] =
    /* ---- what may go: plans, their items, and how far their application came ---- */
    "CREATE TABLE plans ("
    " id bigserial PRIMARY KEY,"
    " uid text NOT NULL UNIQUE,"
    " line_id bigint NOT NULL REFERENCES lines,"
    " made_by bigint NOT NULL REFERENCES actions,"
    " rules text NOT NULL,"
    " made_at bigint NOT NULL DEFAULT now_ns(),"
    " applied_by bigint REFERENCES actions);"
    "CREATE INDEX ON plans (line_id);"
    "CREATE INDEX ON plans (applied_by);"
    /* no foreign key to the checkpoint: what became of it is told after it is gone */
    "CREATE TABLE plan_items ("
    " plan_id bigint NOT NULL REFERENCES plans,"
    " n integer NOT NULL,"
    " checkpoint_id bigint NOT NULL,"
    " uid text NOT NULL, name text NOT NULL,"
    " what text NOT NULL CHECK (what IN ('snapshot', 'checkpoint')),"
    " why text NOT NULL,"
    " pending boolean NOT NULL,"   /* it awaited a decision when it was planned */
    " latest boolean NOT NULL,"    /* it was the latest, and its snapshot may go all the same */
    " snapshots integer NOT NULL, state_bytes bigint NOT NULL," /* what it frees */
    " snapshot_id text,"           /* announced: this is deleted */
    " outcome text CHECK (outcome IN ('deleting', 'deleted', 'skipped')),"
    " message text,"
    " PRIMARY KEY (plan_id, n));"
    "COMMENT ON TABLE plans IS 'What prune said it would delete. Applied at most once.';"

    /* ---- what the plan's limits leave: as Neon said last ---- */
    "CREATE TABLE room ("
    " project_id text PRIMARY KEY,"
    " max_snapshots bigint NOT NULL DEFAULT -1,"     /* -1: not known */
    " max_root_branches bigint NOT NULL DEFAULT -1,"
    " max_branches bigint NOT NULL DEFAULT -1,"
    " snapshots bigint NOT NULL DEFAULT 0,"          /* those that count */
    " root_branches bigint NOT NULL DEFAULT 0,"
    " branches bigint NOT NULL DEFAULT 0,"
    " looked_at bigint NOT NULL DEFAULT now_ns());"

    /* ---- replaced branches ---- */
    "ALTER TABLE line_branches ADD id bigserial UNIQUE, ADD name text, ADD size bigint NOT NULL DEFAULT -1,"
    " ADD created_at bigint NOT NULL DEFAULT 0, ADD gone boolean NOT NULL DEFAULT false,"
    " ADD by_action text, ADD by_checkpoint text, ADD by_name text, ADD changed_at bigint NOT NULL DEFAULT now_ns();"
    /* what replaced it is kept as it was then: the checkpoint may be renamed or deleted later, and these bytes must stay */
    "CREATE FUNCTION branch_changed() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN"
    " NEW.changed_at := checkpointfs.now_ns();"
    " IF TG_OP = 'INSERT' OR NEW.replaced_at IS DISTINCT FROM OLD.replaced_at THEN"
    "  NEW.gone := false;"
    "  SELECT a.uid, k.uid, k.name INTO NEW.by_action, NEW.by_checkpoint, NEW.by_name FROM checkpointfs.actions a"
    "  LEFT JOIN checkpointfs.checkpoints k ON k.id = a.checkpoint_id WHERE a.id = NEW.replaced_by;"
    " END IF;"
    " RETURN NEW; END $$;"
    "CREATE TRIGGER branch_changed BEFORE INSERT OR UPDATE ON line_branches FOR EACH ROW EXECUTE FUNCTION branch_changed();"
    "CREATE TRIGGER told AFTER INSERT ON line_branches REFERENCING NEW TABLE AS moved FOR EACH STATEMENT"
    " EXECUTE FUNCTION changed_rows('replaced');"
    "CREATE TRIGGER told_again AFTER UPDATE ON line_branches REFERENCING NEW TABLE AS moved FOR EACH STATEMENT"
    " EXECUTE FUNCTION changed_rows('replaced');"
    "UPDATE line_branches b SET by_action = a.uid, by_checkpoint = k.uid, by_name = k.name FROM actions a"
    " LEFT JOIN checkpoints k ON k.id = a.checkpoint_id WHERE a.id = b.replaced_by;"

    /* ---- when a snapshot is to expire ---- */
    "ALTER TABLE checkpoints ADD wanted_expiry bigint NOT NULL DEFAULT 0," /* what meta.json says, ns; 0 = never */
    " ADD asked_expiry bigint NOT NULL DEFAULT 0;"                         /* what Neon was last told by this store */
    "CREATE INDEX checkpoints_expiry ON checkpoints (line_id) WHERE wanted_expiry <> asked_expiry;";
