"""Writes llamaindex_v0.json of tests/data/: the form that Workflows had before 2.0.

    pip install "llama-index-workflows<2" && python llamaindex_v0.py FOLDER
"""
import asyncio
import json
import sys
from pathlib import Path

from workflows import Context, Workflow, step
from workflows.events import HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent


class Asking(Workflow):
    @step
    async def ask(self, ctx: Context, event: StartEvent) -> InputRequiredEvent:
        await ctx.store.set("messages", [{"role": "user", "content": "Drop the tables."}, {"role": "assistant", "content": "All of them?"}])
        return InputRequiredEvent(prefix="Drop the table users?")

    @step
    async def go_on(self, ctx: Context, event: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=event.response)


async def main():
    handler = Asking(timeout=60).run()
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            break
    Path(sys.argv[1], "llamaindex_v0.json").write_text(json.dumps(handler.ctx.to_dict()), encoding="utf-8")
    handler.ctx.send_event(HumanResponseEvent(response="yes"))
    await handler


asyncio.run(main())
