"""Writes the adk_* states of tests/data/: sessions as the session service gives them, in both spellings.

    pip install google-adk && python adk.py FOLDER
"""
import asyncio
import sys
from pathlib import Path

from google.adk.agents import LlmAgent
from google.adk.apps import App
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.adk.tools import FunctionTool
from google.genai import types

folder = Path(sys.argv[1])


class Scripted(BaseLlm):
    async def generate_content_async(self, llm_request, stream=False):
        answers = [p for c in llm_request.contents for p in c.parts or [] if p.function_response]
        if not answers:
            parts = [types.Part(text="I look first."), types.Part(function_call=types.FunctionCall(name="list_tables", args={}, id="fc_0"))]
        elif len(answers) == 1:
            parts = [types.Part(function_call=types.FunctionCall(name="drop_table", args={"name": "users"}, id="fc_1")),
                     types.Part(function_call=types.FunctionCall(name="drop_table", args={"name": "logs"}, id="fc_2"))]
        else:
            parts = [types.Part(text="All done.")]
        yield LlmResponse(content=types.Content(role="model", parts=parts), usage_metadata=types.GenerateContentResponseUsageMetadata(
            prompt_token_count=10, candidates_token_count=5, total_token_count=15))


def list_tables() -> str:
    """List the tables."""
    return "users, logs"


def drop_table(name: str) -> str:
    """Drop a table."""
    return f"Dropped {name}."


async def main():
    agent = LlmAgent(name="cleaner", model=Scripted(model="scripted"), tools=[list_tables, FunctionTool(drop_table, require_confirmation=True)])
    sessions = InMemorySessionService()
    runner = Runner(app=App(name="cleaning", root_agent=agent), session_service=sessions)
    session = await sessions.create_session(app_name="cleaning", user_id="me", session_id="s-1")
    asked = []

    async def say(parts):
        async for event in runner.run_async(user_id="me", session_id="s-1", new_message=types.Content(role="user", parts=parts)):
            asked.extend(c for c in event.get_function_calls() if c.name == "adk_request_confirmation")

    async def save(name, by_alias):
        now = await sessions.get_session(app_name="cleaning", user_id="me", session_id="s-1")
        (folder / name).write_text(now.model_dump_json(by_alias=by_alias, exclude_none=by_alias), encoding="utf-8")

    await say([types.Part(text="Drop every table.")])
    await save("adk_interrupted.json", True)
    await save("adk_interrupted_snake.json", False)
    await say([types.Part(function_response=types.FunctionResponse(id=call.id, name=call.name, response={"confirmed": i == 0}))
               for i, call in enumerate(asked)])
    await save("adk_done.json", True)


asyncio.run(main())
