"""Many checkpoints that were never taken: copies of one in the store alone. So many real takes would take longer than a test."""

import psycopg

ANEW = {"id": "nextval('checkpoints_id_seq')", "uid": "'ck-' || lpad(to_hex(n), 20, '0')", "seq": "nextval('actions_id_seq')",
        "attempt_id": "0", "result_action": "0", "result_bytes": "-1", "result_at": "0"}


def copy_checkpoint(conninfo, name, times, copies, **columns):
    """`conninfo`: of the store's owner. `copies`: SQL for a copy's name, `columns` for what else differs from the original; `n` counts the copies
    from 1."""
    new = ANEW | {"name": copies, "taken_name": copies} | columns
    with psycopg.connect(conninfo, autocommit=True) as store:
        store.execute("SET search_path = checkpointfs")
        every = [r[0] for r in store.execute("SELECT column_name FROM information_schema.columns WHERE table_schema = 'checkpointfs'"
                                             " AND table_name = 'checkpoints' ORDER BY ordinal_position")]
        store.execute(f"INSERT INTO checkpoints ({', '.join(every)}) SELECT {', '.join(new.get(c, 'c.' + c) for c in every)}"
                      f" FROM checkpoints c, generate_series(1, {times}) n WHERE c.name = '{name}'")
