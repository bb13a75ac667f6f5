"""Writes the py_* states that tests/data/ holds beside those of ../shared/samples, with the real SDK and scripted models.

    build/venv/bin/python tests/makers/openai_python.py tests/data
"""
import asyncio
import json
import os
import sys

os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"

from agents import Agent, ApplyPatchTool, HostedMCPTool, Runner, ShellTool, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from openai.types.responses import ResponseApplyPatchToolCall, ResponseFunctionShellToolCall
from openai.types.responses.response_output_item import McpApprovalRequest


@function_tool(needs_approval=True)
def drop_table(name: str) -> str:
    return f"Dropped {name}."


@function_tool
def list_tables() -> str:
    return "users, logs"


def save(folder, name, result):
    state = result.to_state() if hasattr(result, "to_state") else result
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(json.dumps(state.to_json(), indent=2))
    return state


def as_tool(agent, name):
    return agent.as_tool(tool_name=name, tool_description=f"Ask {agent.name}.")


async def nested3(folder):
    """Boss asks a lead, who asks two workers at once; both stop; the boss has a call of its own pending too."""
    first = Agent(name="First", tools=[drop_table, list_tables], model=ScriptedModel([
        [function_call("list_tables", "{}", call_id="call_first_list")],
        [function_call("drop_table", {"name": "users"}, call_id="call_first_drop")]]))
    second = Agent(name="Second", tools=[drop_table], model=ScriptedModel([
        [function_call("drop_table", {"name": "logs"}, call_id="call_second_drop")]]))
    lead = Agent(name="Lead", tools=[as_tool(first, "ask_first"), as_tool(second, "ask_second")], model=ScriptedModel([
        [function_call("ask_first", {"input": "drop users"}, call_id="call_lead_1"),
         function_call("ask_second", {"input": "drop logs"}, call_id="call_lead_2")]]))
    boss = Agent(name="Boss", tools=[as_tool(lead, "ask_lead"), drop_table], model=ScriptedModel([
        [function_call("ask_lead", {"input": "clean up"}, call_id="call_boss_1"),
         function_call("drop_table", {"name": "audit"}, call_id="call_boss_2")]]))
    state = save(folder, "py_nested3_interrupted.json", await Runner.run(boss, "Clean up the database."))
    for item in state.get_interruptions():
        if item.raw_item.call_id == "call_first_drop":
            state.reject(item, rejection_message="Keep the users")
        if item.raw_item.call_id == "call_boss_2":
            state.approve(item)
    save(folder, "py_nested3_decided.json", state)


async def same_ids(folder):
    """Two inner agents whose models gave their calls the same id, as models that count from 0 do."""
    def worker(name):
        return Agent(name=name, tools=[drop_table], model=ScriptedModel([
            [function_call("drop_table", {"name": name.lower()}, call_id="call_0")]]))
    boss = Agent(name="Boss", tools=[as_tool(worker("Users"), "ask_users"), as_tool(worker("Logs"), "ask_logs")], model=ScriptedModel([
        [function_call("ask_users", {"input": "go"}, call_id="call_a"), function_call("ask_logs", {"input": "go"}, call_id="call_b")]]))
    save(folder, "py_nested_same_ids.json", await Runner.run(boss, "Clean up."))


async def hosted(folder):
    """A hosted MCP server's call, a shell call, a patch and a function call, all waiting at once."""
    class Editor:
        def create_file(self, operation): return None
        update_file = delete_file = create_file
    agent = Agent(name="Operator", model=ScriptedModel([[
        McpApprovalRequest(id="mcpr_1", type="mcp_approval_request", name="create_issue", server_label="tracker",
                           arguments='{"title": "Drop it", "labels": ["db"]}'),
        ResponseFunctionShellToolCall(id="sh_1", call_id="call_shell", type="shell_call", status="completed",
                                      action={"commands": ["rm -rf /var/lib/old", "ls"], "timeout_ms": 1000, "max_output_length": None},
                                      environment=None),
        ResponseApplyPatchToolCall(id="ap_1", call_id="call_patch", type="apply_patch_call", status="completed",
                                   operation={"type": "update_file", "path": "schema.sql", "diff": "@@\n-DROP TABLE users;\n+-- kept\n"}),
        function_call("drop_table", {"name": "users"}, call_id="call_function"),
    ]]), tools=[
        drop_table, ShellTool(executor=lambda request: "done", needs_approval=True), ApplyPatchTool(editor=Editor(), needs_approval=True),
        HostedMCPTool(tool_config={"type": "mcp", "server_label": "tracker", "server_url": "https://mcp.invalid", "require_approval": "always"})])
    state = save(folder, "py_hosted_interrupted.json", await Runner.run(agent, "Tidy up."))
    for item in state.get_interruptions():
        raw = item.raw_item
        kind = raw["type"] if isinstance(raw, dict) else raw.type
        if kind == "mcp_approval_request":
            state.reject(item, rejection_message="Not on this tracker")
        if kind == "shell_call":
            state.approve(item)
    save(folder, "py_hosted_decided.json", state)


async def stages(folder):
    """One run that stops three times: what each transcript adds to the one before is what happened in between."""
    agent = Agent(name="Cleaner", tools=[drop_table, list_tables], model=ScriptedModel([
        [function_call("list_tables", "{}", call_id="call_0")],
        [function_call("drop_table", {"name": "users"}, call_id="call_1")],
        [assistant_message("users is gone; logs next.", item_id="m1"), function_call("drop_table", {"name": "logs"}, call_id="call_2")],
        [assistant_message("All done.", item_id="m2")]]))
    result = await Runner.run(agent, "Drop every table, one by one.")
    for stage in (1, 2):
        state = save(folder, f"py_stages_{stage}.json", result)
        for item in state.get_interruptions():
            if stage == 1:
                state.approve(item)
            else:
                state.reject(item, rejection_message="Keep the logs")
        result = await Runner.run(agent, state)
    save(folder, "py_stages_3.json", result)


async def main(folder):
    for make in (nested3, same_ids, hosted, stages):
        await make(folder)


asyncio.run(main(sys.argv[1]))
