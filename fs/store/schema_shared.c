/* Version 3: several mounts on one store. What changed is told in the order of commits; an action can be given to another mount. */
#include "store_i.h"

const char schema_shared[] =
    "ALTER TABLE actions DROP CONSTRAINT actions_kind_check;"
    "ALTER TABLE actions ADD CONSTRAINT actions_kind_check CHECK (kind IN ('take', 'restore', 'resume', 'replay', 'cancel', 'delete',"
    " 'undo', 'adopt', 'branch', 'promote', 'prune', 'import'));"
    "ALTER TABLE actions ADD assigned boolean NOT NULL DEFAULT false;" /* to mount_id by another mount, and not yet begun */
    "ALTER TABLE actions ADD cancel boolean NOT NULL DEFAULT false;"   /* its agent is to end */

    /* ---- what changed, for the other mounts. A sequence's numbers are no commit order; these are: the head's row is locked from the
     * first change of a transaction to its end, so whoever sees a number sees all before it ---- */
    "CREATE TABLE change_heads (line_id bigint PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 50);"
    "CREATE TABLE changes ("
    " line_id bigint NOT NULL, n bigint NOT NULL,"
    " what text NOT NULL," /* checkpoint, action, line, log; others may come */
    " row_id bigint NOT NULL,"
    " at timestamptz NOT NULL DEFAULT clock_timestamp(),"
    " PRIMARY KEY (line_id, n));"
    "CREATE INDEX ON changes (at);"
    "CREATE FUNCTION note_changes(p_line bigint, p_what text, p_rows bigint[]) RETURNS void"
    " LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$"
    " DECLARE v_n bigint; v_k bigint := cardinality(p_rows);"
    " BEGIN"
    "  IF p_line IS NULL OR v_k = 0 THEN RETURN; END IF;"
    "  INSERT INTO checkpointfs.change_heads AS h VALUES (p_line, v_k)"
    "   ON CONFLICT (line_id) DO UPDATE SET n = h.n + v_k RETURNING n INTO v_n;"
    "  INSERT INTO checkpointfs.changes (line_id, n, what, row_id)"
    "   SELECT p_line, v_n - v_k + i, p_what, r FROM unnest(p_rows) WITH ORDINALITY AS u(r, i);"
    "  PERFORM pg_notify('checkpointfs', p_line::text);" /* only wakes: what changed is in the table */
    " END $$;"
    "REVOKE ALL ON FUNCTION note_changes(bigint, text, bigint[]) FROM PUBLIC;"

    /* Triggers note them, so that no function can forget to. One row of a statement is the common case. */
    "CREATE FUNCTION changed_rows() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$"
    " DECLARE v record;"
    " BEGIN"
    "  IF TG_TABLE_NAME = 'event_heads' THEN"
    "   FOR v IN SELECT line_id, array_agg(0::bigint) AS rows FROM moved GROUP BY line_id LOOP"
    "    PERFORM checkpointfs.note_changes(v.line_id, 'log', v.rows);"
    "   END LOOP;"
    "  ELSIF TG_TABLE_NAME = 'lines' THEN"
    "   FOR v IN SELECT id, array_agg(id) AS rows FROM moved GROUP BY id LOOP"
    "    PERFORM checkpointfs.note_changes(v.id, 'line', v.rows);"
    "   END LOOP;"
    "  ELSE"
    "   FOR v IN SELECT line_id, array_agg(id) AS rows FROM moved GROUP BY line_id ORDER BY line_id LOOP"
    "    PERFORM checkpointfs.note_changes(v.line_id, TG_ARGV[0], v.rows);"
    "   END LOOP;"
    "  END IF;"
    "  RETURN NULL;"
    " END $$;"
    "REVOKE ALL ON FUNCTION changed_rows() FROM PUBLIC;"
    "CREATE TRIGGER made AFTER INSERT ON checkpoints REFERENCING NEW TABLE AS moved FOR EACH STATEMENT"
    " EXECUTE FUNCTION changed_rows('checkpoint');"
    "CREATE TRIGGER changed AFTER UPDATE ON checkpoints REFERENCING NEW TABLE AS moved FOR EACH STATEMENT"
    " EXECUTE FUNCTION changed_rows('checkpoint');"
    "CREATE TRIGGER gone AFTER DELETE ON checkpoints REFERENCING OLD TABLE AS moved FOR EACH STATEMENT"
    " EXECUTE FUNCTION changed_rows('checkpoint');"
    "CREATE TRIGGER made AFTER INSERT ON actions REFERENCING NEW TABLE AS moved FOR EACH STATEMENT"
    " EXECUTE FUNCTION changed_rows('action');"
    "CREATE TRIGGER changed AFTER UPDATE ON actions REFERENCING NEW TABLE AS moved FOR EACH STATEMENT"
    " EXECUTE FUNCTION changed_rows('action');"
    "CREATE TRIGGER changed AFTER UPDATE ON lines REFERENCING NEW TABLE AS moved FOR EACH STATEMENT EXECUTE FUNCTION changed_rows();"
    "CREATE TRIGGER changed AFTER UPDATE ON event_heads REFERENCING NEW TABLE AS moved FOR EACH STATEMENT"
    " EXECUTE FUNCTION changed_rows();";
