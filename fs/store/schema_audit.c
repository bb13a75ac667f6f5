/* Version 2: the hash chains of the audit log (design.md §7.8).
 *
 * Each line ends with its place in the log, and where it is about a checkpoint, with its place in that checkpoint's history:
 *
 *     …,"seq":7,"prev":"HASH"[,"checkpoint_seq":3,"checkpoint_prev":"HASH"],"hash":"HASH"}
 *
 * `hash` is the lower-case hex SHA-256 of the line's bytes without the part `,"hash":"…"` and without the newline; `prev` is the
 * `hash` of the line before in events.jsonl, `checkpoint_prev` that of the line before in history.jsonl, and 64 zeros where there
 * is none. Lines from before this version have no chain: what follows the last of them names the SHA-256 of its bytes, without
 * the newline. scripts/verify-audit checks a copy. */
#include "store_i.h"

#define NOTHING "0000000000000000000000000000000000000000000000000000000000000000"
#define LINE_HASH "encode(sha256(substring(e.bytes FOR octet_length(e.bytes) - 1)), 'hex')"

const char schema_audit[] =
    "ALTER TABLE event_heads ADD hash text NOT NULL DEFAULT '" NOTHING "';"
    "ALTER TABLE history_heads ADD hash text NOT NULL DEFAULT '" NOTHING "';"
    "UPDATE event_heads h SET hash = " LINE_HASH " FROM events e WHERE e.line_id = h.line_id AND e.seq = h.seq;"
    "UPDATE history_heads h SET hash = " LINE_HASH " FROM (SELECT DISTINCT ON (checkpoint_id) checkpoint_id, bytes FROM events"
    " WHERE checkpoint_id IS NOT NULL ORDER BY checkpoint_id, history_off DESC) e WHERE e.checkpoint_id = h.checkpoint_id;"

    /* The head's row lock makes one writer per line, from its first statement on: numbers have no gaps, offsets and hashes follow
     * each other. A caller can't say anything that stands for what is added here: that is the line's end, and of two members of
     * one name parsers take the later. Everything is named with its schema, and a caller's temporary schema comes last. */
    "CREATE OR REPLACE FUNCTION append_event(p_line bigint, p_checkpoint bigint, p_json text) RETURNS bigint"
    " LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$"
    " DECLARE head checkpointfs.event_heads; history checkpointfs.history_heads; v_text text; v_hash text;"
    "  v_bytes bytea; v_n bigint; v_now bigint;"
    " BEGIN"
    "  IF json_typeof(p_json::json) <> 'object' OR right(p_json, 1) <> '}' OR position(E'\\n' IN p_json) > 0"
    "   OR p_json ~ '^[[:space:]]*[{][[:space:]]*[}]$' THEN"
    "   RAISE EXCEPTION 'an event is a JSON object on one line, with something in it' USING ERRCODE = '22P02';"
    "  END IF;"
    "  SELECT * INTO head FROM checkpointfs.event_heads WHERE line_id = p_line FOR UPDATE;"
    "  IF NOT FOUND THEN"
    "   INSERT INTO checkpointfs.event_heads VALUES (p_line, 0, 0, 0) ON CONFLICT DO NOTHING;"
    "   SELECT * INTO head FROM checkpointfs.event_heads WHERE line_id = p_line FOR UPDATE;"
    "  END IF;"
    "  v_now := greatest(checkpointfs.now_ns(), head.changed_at);"
    "  v_text := left(p_json, -1) || ',\"seq\":' || head.seq + 1 || ',\"prev\":\"' || head.hash || '\"';"
    "  IF p_checkpoint IS NOT NULL THEN"
    "   SELECT * INTO history FROM checkpointfs.history_heads WHERE checkpoint_id = p_checkpoint FOR UPDATE;"
    "   IF NOT FOUND THEN"
    "    INSERT INTO checkpointfs.history_heads VALUES (p_checkpoint, 0, 0, 0) RETURNING * INTO history;"
    "   END IF;"
    "   v_text := v_text || ',\"checkpoint_seq\":' || history.n + 1 || ',\"checkpoint_prev\":\"' || history.hash || '\"';"
    "  END IF;"
    "  v_hash := encode(sha256(convert_to(v_text || '}', 'UTF8')), 'hex');"
    "  v_bytes := convert_to(v_text || ',\"hash\":\"' || v_hash || E'\"}\\n', 'UTF8');"
    "  v_n := octet_length(v_bytes);"
    "  UPDATE checkpointfs.event_heads SET seq = head.seq + 1, size = head.size + v_n, changed_at = v_now, hash = v_hash"
    "   WHERE line_id = p_line;"
    "  IF p_checkpoint IS NOT NULL THEN"
    "   UPDATE checkpointfs.history_heads SET n = history.n + 1, size = history.size + v_n, changed_at = v_now, hash = v_hash"
    "    WHERE checkpoint_id = p_checkpoint;"
    "  END IF;"
    "  INSERT INTO checkpointfs.events VALUES (p_line, head.seq + 1, head.size, p_checkpoint, history.size, v_bytes, v_now);"
    "  PERFORM pg_notify('checkpointfs', p_line || ' ' || coalesce(p_checkpoint, 0));"
    "  RETURN head.seq + 1;"
    " END $$;"
    "COMMENT ON COLUMN event_heads.hash IS 'Of the last line: keep it elsewhere, and nobody can cut the log unnoticed.';"
    "COMMENT ON COLUMN history_heads.hash IS 'Of the last line about this checkpoint.';";
