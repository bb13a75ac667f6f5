#!/usr/bin/env python3
"""Runs the guide's agent until it needs a person, takes a checkpoint with mkdir and two files, and exits.

DATABASE_URL says which database the agent works on.
"""
import argparse
import asyncio
import importlib.metadata
import json
import os
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mount", metavar="MOUNT")
    parser.add_argument("name", metavar="NAME", help="the checkpoint's")
    parser.add_argument("prompt", metavar="PROMPT", nargs="?", default=PROMPT, help="what the agent is told; the guide's by default")
    options = parser.parse_args()

    result = asyncio.run(Runner.run(agent, options.prompt))
    if not result.interruptions:
        print(f"Finished: {result.final_output}")
        return
    for item in result.interruptions:
        print(f"{item.agent.name} wants to call {item.tool_name}({item.arguments or ''}) and needs approval.")
    take_checkpoint(options.mount, options.name, result.to_state().to_json())
    print(f"Took checkpoint {options.name}; exiting until someone decides.")


if __name__ == "__main__":
    main()
