"""Writes the autogen_* and ms_agent_* states of tests/data/.

    pip install autogen-agentchat autogen-ext agent-framework-core && python autogen_ms.py FOLDER
"""
import asyncio
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agent_framework import Executor, FileCheckpointStorage, WorkflowBuilder, WorkflowContext, handler, response_handler
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import FunctionCall
from autogen_core.models import CreateResult, ModelFamily, RequestUsage
from autogen_ext.models.replay import ReplayChatCompletionClient

folder = Path(sys.argv[1])


async def autogen():
    async def list_tables() -> str:
        return "users, logs"
    usage = RequestUsage(prompt_tokens=10, completion_tokens=5)
    info = {"vision": False, "function_calling": True, "json_output": False, "family": ModelFamily.UNKNOWN, "structured_output": False}
    model = ReplayChatCompletionClient([
        CreateResult(finish_reason="function_calls", usage=usage, cached=False,
                     content=[FunctionCall(id="call_0", name="list_tables", arguments="{}")]),
        CreateResult(finish_reason="stop", usage=usage, cached=False, content="There are users and logs."),
        CreateResult(finish_reason="stop", usage=usage, cached=False, content="I would drop the logs only.")] + [CreateResult(
            finish_reason="stop", usage=usage, cached=False, content="Agreed.")] * 4, model_info=info)
    first = AssistantAgent("looker", model, tools=[list_tables], reflect_on_tool_use=True)
    second = AssistantAgent("critic", model)
    team = RoundRobinGroupChat([first, second], termination_condition=MaxMessageTermination(5))
    await team.run(task="Which tables can go?")
    (folder / "autogen_team.json").write_text(json.dumps(await team.save_state()), encoding="utf-8")


@dataclass
class Question:
    prompt: str
    table: str


class Cleaner(Executor):
    @handler
    async def start(self, message: str, ctx: WorkflowContext) -> None:
        ctx.set_state("task", message)
        await ctx.request_info(request_data=Question("Drop it?", "users"), response_type=str)

    @response_handler
    async def answered(self, original_request: Question, response: str, ctx: WorkflowContext) -> None:
        await ctx.yield_output(f"{original_request.table}: {response}")


async def ms_agent():
    with tempfile.TemporaryDirectory() as place:
        workflow = WorkflowBuilder(start_executor=Cleaner(id="cleaner"), checkpoint_storage=FileCheckpointStorage(
            place, allowed_checkpoint_types=["__main__:Question"])).build()
        async for _ in workflow.run("Clean up.", stream=True):
            pass
        newest = max(Path(place).glob("*.json"), key=lambda path: json.loads(path.read_text())["timestamp"])
        (folder / "ms_agent_interrupted.json").write_text(newest.read_text(), encoding="utf-8")


asyncio.run(autogen())
asyncio.run(ms_agent())
