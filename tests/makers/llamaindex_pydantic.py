"""Writes the llamaindex_* (version 1) and pydantic_ai_* states of tests/data/.

    pip install llama-index-workflows pydantic-ai-slim && python llamaindex_pydantic.py FOLDER
"""
import asyncio
import json
import sys
from pathlib import Path

from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults, ToolDenied
from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

folder = Path(sys.argv[1])


class Worked(Event):
    table: str


class Asking(Workflow):
    """Waits inside a step, with a question of its own, after some steps that left things in the store."""

    @step
    async def look(self, ctx: Context, event: StartEvent) -> Worked:
        await ctx.store.set("messages", [{"role": "user", "content": "Drop the tables."},
                                         {"role": "assistant", "content": None, "tool_calls": [
                                             {"id": "call_0", "type": "function", "function": {"name": "list_tables", "arguments": "{}"}}]},
                                         {"role": "tool", "tool_call_id": "call_0", "content": "users, logs"}])
        await ctx.store.set("tables", {"users": 3, "logs": 12})
        await ctx.store.set("note", "plain text")
        return Worked(table="users")

    @step
    async def ask(self, ctx: Context, event: Worked) -> StopEvent:
        answer = await ctx.wait_for_event(HumanResponseEvent, waiter_id="drop users?", requirements={"by": "me"},
                                          waiter_event=InputRequiredEvent(prefix="Drop the table users?"))
        return StopEvent(result=answer.response)


async def llamaindex():
    handler = Asking(timeout=60).run()
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            break
    (folder / "llamaindex_waiting.json").write_text(json.dumps(handler.ctx.to_dict()), encoding="utf-8")
    handler.ctx.send_event(HumanResponseEvent(response="yes", by="me"))
    await handler
    (folder / "llamaindex_done.json").write_text(json.dumps(handler.ctx.to_dict()), encoding="utf-8")


def model(messages, info):
    answered = sum(len(m.parts) for m in messages if m.kind == "request")
    if answered == 1:
        return ModelResponse(parts=[ThinkingPart("I look first."), ToolCallPart("list_tables", {}, tool_call_id="call_0")])
    if answered == 2:
        return ModelResponse(parts=[TextPart("Two tables have to go."), ToolCallPart("drop_table", '{"name": "users"}', tool_call_id="call_1"),
                                    ToolCallPart("drop_table", {"name": "logs"}, tool_call_id="call_2"),
                                    ToolCallPart("list_tables", {}, tool_call_id="call_3")])
    return ModelResponse(parts=[TextPart("All done.")])


async def pydantic_ai():
    agent = Agent(FunctionModel(model, model_name="scripted"), output_type=[str, DeferredToolRequests], instructions="You administer a database.",
                  name="Cleaner")

    @agent.tool_plain
    def list_tables() -> str:
        return "users, logs"

    @agent.tool_plain(requires_approval=True)
    def drop_table(name: str) -> str:
        return f"Dropped {name}."

    result = await agent.run("Drop every table.")
    (folder / "pydantic_ai_interrupted.json").write_bytes(result.all_messages_json())
    assert isinstance(result.output, DeferredToolRequests), result.output
    result = await agent.run(message_history=result.all_messages(), deferred_tool_results=DeferredToolResults(
        approvals={"call_1": True, "call_2": ToolDenied("Keep the logs")}))
    (folder / "pydantic_ai_done.json").write_bytes(result.all_messages_json())


asyncio.run(llamaindex())
asyncio.run(pydantic_ai())
