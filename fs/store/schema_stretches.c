/* Version 8: where each stretch of the active line began (stretch.c), kept when the checkpoint or the branch that it began with is
 * deleted. */
#include "store_i.h"

const char schema_stretches[] =
    "CREATE TABLE stretches ("
    " id bigint PRIMARY KEY," /* what began it: the action of a row of restores, or minus an isolated branch */
    " line_id bigint NOT NULL REFERENCES lines,"
    " from_seq bigint NOT NULL," /* its database has behind it what that place has: so far in the journal's sequence, */
    " from_on bigint);"          /* on that isolated branch; 0 = on the line; null = not known any more, so all that was taken before */
    "COMMENT ON TABLE stretches IS 'Where what replaced the active branch came from; never changed, and written by triggers only.';"

    /* A promoted branch goes on from itself, all else from a checkpoint. Triggers, so that no function and no older program can forget
     * it. */
    "CREATE FUNCTION stretch_begins() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$"
    " BEGIN"
    "  IF TG_TABLE_NAME = 'isolated_branches' THEN"
    "   INSERT INTO checkpointfs.stretches SELECT -NEW.id, NEW.line_id, seq, taken_on FROM checkpointfs.checkpoints"
    "    WHERE id = NEW.checkpoint_id;"
    "  ELSIF NEW.isolated_id <> 0 THEN"
    "   INSERT INTO checkpointfs.stretches VALUES (NEW.action_id, NEW.line_id, NEW.action_id, NEW.isolated_id);"
    "  ELSE"
    "   INSERT INTO checkpointfs.stretches SELECT NEW.action_id, NEW.line_id, seq, taken_on FROM checkpointfs.checkpoints"
    "    WHERE id = NEW.checkpoint_id;"
    "  END IF;"
    "  RETURN NULL;"
    " END $$;"
    "REVOKE ALL ON FUNCTION stretch_begins() FROM PUBLIC;"
    "CREATE TRIGGER begins AFTER INSERT ON restores FOR EACH ROW EXECUTE FUNCTION stretch_begins();"
    "CREATE TRIGGER begins AFTER INSERT ON isolated_branches FOR EACH ROW EXECUTE FUNCTION stretch_begins();"

    /* What there is already. The place of a deleted checkpoint is in the journal: its last take, which the log tells under its number. */
    "INSERT INTO stretches SELECT action_id, line_id, action_id, isolated_id FROM restores WHERE isolated_id <> 0;"
    "INSERT INTO stretches SELECT r.action_id, r.line_id, coalesce(k.seq, t.id, (SELECT max(o.seq) FROM checkpoints o"
    " WHERE o.line_id = r.line_id AND o.id < r.checkpoint_id), 0), coalesce(k.taken_on, t.isolated_id) FROM restores r"
    " LEFT JOIN checkpoints k ON k.id = r.checkpoint_id LEFT JOIN LATERAL (SELECT a.id, a.isolated_id FROM events e JOIN actions a"
    "  ON a.uid = convert_from(e.bytes, 'UTF8')::json->>'action' WHERE e.checkpoint_id = r.checkpoint_id AND a.kind = 'take'"
    "  ORDER BY a.id DESC LIMIT 1) t ON k.id IS NULL WHERE r.isolated_id = 0 AND r.checkpoint_id <> 0;"
    "INSERT INTO stretches SELECT -i.id, i.line_id, k.seq, k.taken_on FROM isolated_branches i JOIN checkpoints k"
    " ON k.id = i.checkpoint_id;"
    "INSERT INTO stretches SELECT -a.isolated_id, a.line_id, coalesce(k.seq, a.id), k.taken_on FROM actions a LEFT JOIN checkpoints k"
    " ON k.id = a.checkpoint_id WHERE a.isolated_id <> 0 AND a.kind IN ('branch', 'replay') AND a.state <> 'refused'"
    " ORDER BY a.id ON CONFLICT DO NOTHING;";
