#!/usr/bin/env python3
"""Runs the guide's agent until it needs a person, takes a checkpoint with mkdir and two files, and exits.

Usage: run_agent.py MOUNT NAME [PROMPT]   DATABASE_URL says which database the agent works on.
"""
import asyncio
import importlib.metadata
import json
import os
import sys
import uuid

from agents import Runner

from agent import agent

PROMPT = "Add Charlie to the database, then drop the users table entirely."


def take_checkpoint(mount, name, state):
    directory = os.path.join(mount, name)
    os.mkdir(directory)  # the database's snapshot is under way from here on

    meta = {
        "run_id": f"run_{uuid.uuid4().hex}",
        "step_id": f"turn-{state['current_turn']}",
        "framework_version": importlib.metadata.version("openai-agents"),
        "reason": "needs approval",
    }
    if traceparent := os.environ.get("TRACEPARENT"):
        meta["traceparent"] = traceparent
    with open(os.path.join(directory, "meta.json"), "w", encoding="utf-8") as file:
        json.dump(meta, file, indent=2)

    # The first write returns when the snapshot has settled, the close seals the checkpoint.
    with open(os.path.join(directory, "state.json"), "w", encoding="utf-8") as file:
        json.dump(state, file, indent=2)


def main():
    mount, name, *prompt = sys.argv[1:]
    result = asyncio.run(Runner.run(agent, *prompt or [PROMPT]))
    if not result.interruptions:
        print(f"Finished: {result.final_output}")
        return
    for item in result.interruptions:
        print(f"{item.agent.name} wants to call {item.tool_name}({item.arguments or ''}) and needs approval.")
    take_checkpoint(mount, name, result.to_state().to_json())
    print(f"Took checkpoint {name}; exiting until someone decides.")


if __name__ == "__main__":
    main()
