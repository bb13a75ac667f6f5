"""Writes the crewai_* states of tests/data/: a flow that waits for feedback, as its persistence keeps it.

    pip install crewai && python crewai_flow.py FOLDER
"""
import json
import os
import sqlite3
import sys
import tempfile
from pathlib import Path

os.environ["CREWAI_DISABLE_TELEMETRY"] = "true"
os.environ["OTEL_SDK_DISABLED"] = "true"
os.environ["CREWAI_TRACING_ENABLED"] = "false"

from crewai.flow import Flow, start, listen
from crewai.flow.human_feedback import human_feedback
from crewai.flow.async_feedback import HumanFeedbackPending
from crewai.flow.persistence.sqlite import SQLiteFlowPersistence
from pydantic import BaseModel

folder = Path(sys.argv[1])


class State(BaseModel):
    id: str = ""
    table: str = "users"
    messages: list = [{"role": "user", "content": "Drop every table."}]


class Provider:
    def request_feedback(self, context, flow):
        raise HumanFeedbackPending(context=context)


class Cleaning(Flow[State]):
    @start()
    @human_feedback(message="Drop the table users?", provider=Provider())
    def propose(self):
        return "DROP TABLE users"

    @listen(propose)
    def done(self, result):
        return str(result)


with tempfile.TemporaryDirectory() as place:
    path = os.path.join(place, "flows.db")
    Cleaning(persistence=SQLiteFlowPersistence(path), suppress_flow_events=True).kickoff()
    base = sqlite3.connect(path)
    base.row_factory = sqlite3.Row
    print([tuple(r) for r in base.execute("select name from sqlite_master")])
    row = dict(base.execute("SELECT flow_uuid, context_json, state_json, created_at FROM pending_feedback").fetchone())
    (folder / "crewai_feedback.json").write_text(json.dumps(row), encoding="utf-8")
    row = {**row, "context": json.loads(row["context_json"]), "state": json.loads(row["state_json"])}
    (folder / "crewai_feedback_objects.json").write_text(json.dumps({"context": row["context"], "state": row["state"]}), encoding="utf-8")
