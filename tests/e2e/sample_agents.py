"""Agents for the adapter's tests. Tools write what they did into $TOOL_LOG, so that a test sees which calls really ran."""
import asyncio
import os

from agents import Agent, RunHooks, Runner, function_tool


def log(line):
    with open(os.environ["TOOL_LOG"], "a", encoding="utf-8") as file:
        file.write(line + "\n")


@function_tool
def add_user(name: str) -> str:
    """Add a user."""
    log(f"add {name}")
    return f"Added {name}."


@function_tool(needs_approval=True)
def drop_users_table() -> str:
    """Drop the users table."""
    log("drop")
    return "Dropped the users table."


@function_tool
def list_users() -> str:
    """List all users."""
    log("list")
    return "Alice, Bob, Charlie"


agent = Agent(name="DB Admin", instructions="You administer a database.", tools=[add_user, drop_users_table, list_users])


class Holder:
    agent = agent


def factory():
    return agent


async def async_factory():
    return agent


def broken_factory():
    raise RuntimeError("no such thing")


def number():
    return 7


renamed = Agent(name="Somebody Else", tools=[drop_users_table])


# An agent that has another one as a tool: the pending call belongs to the inner one.
inner = Agent(name="Dropper", instructions="You drop tables.", tools=[drop_users_table])
outer = Agent(name="Boss", instructions="You delegate.", tools=[
    inner.as_tool(tool_name="ask_dropper", tool_description="Ask the dropper.")])


# A context of the user's own class.
class Tenant:
    def __init__(self, name):
        self.name = name


def exploding_options():
    # What a user's session or hook raises in the middle of a run; the message holds what must not be shown.
    class Hooks(RunHooks):
        async def on_llm_start(self, *_arguments):
            raise ConnectionError(f"cannot reach postgresql://me:hunter2@db/x with {os.environ['SOME_API_KEY']}\nsecond line")
    return {"hooks": Hooks()}


def interrupted_state(starting, prompt):
    """For tests: the state of a run that has stopped for approval."""
    result = asyncio.run(Runner.run(starting, prompt))
    assert result.interruptions
    return result.to_state().to_json()
