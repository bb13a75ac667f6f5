"""Writes the langgraph_py_* states of tests/data/ with the real LangGraph and LangChain, and a model that reads from a list.

    pip install langgraph langchain && python langgraph_python.py FOLDER
"""
import base64
import json
import sys
from pathlib import Path
from typing import Annotated, TypedDict

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

folder = Path(sys.argv[1])
serde = JsonPlusSerializer()


class Model(GenericFakeChatModel):
    def bind_tools(self, tools, **_):
        return self


@tool
def add_user(name: str) -> str:
    """Add a user."""
    return f"User {name} added."


@tool
def drop_table(name: str) -> str:
    """Drop a table."""
    return f"Dropped {name}."


def call(name, args, call_id):
    return {"name": name, "args": args, "id": call_id, "type": "tool_call"}


def b64(value):
    """What isn't JSON by itself goes as its serialised bytes."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    kind, data = serde.dumps_typed(value)
    return {"type": kind, "b64": base64.b64encode(data).decode()}


def parts(saver, config):
    found = saver.get_tuple(config)
    return {"config": found.config, "checkpoint": found.checkpoint, "metadata": found.metadata, "parent_config": found.parent_config,
            "pending_writes": [list(write) for write in found.pending_writes]}


def as_json(state):
    """Values as {"type", "b64"}: reference/frameworks.md §3.3."""
    checkpoint = dict(state["checkpoint"])
    checkpoint["channel_values"] = {name: b64(value) for name, value in checkpoint["channel_values"].items()}
    writes = [[task, channel, b64(value)] for task, channel, value in state["pending_writes"]]
    return {**state, "checkpoint": checkpoint, "pending_writes": writes}


def as_objects(state):
    """LangChain's own JSON: {"lc": 1, "type": "constructor", …}."""
    plain = json.loads(json.dumps({**state, "pending_writes": None, "checkpoint": None}))
    checkpoint = dict(state["checkpoint"])
    checkpoint["channel_values"] = dumpd(checkpoint["channel_values"])
    plain["checkpoint"] = checkpoint
    plain["pending_writes"] = [[task, channel, [{"value": i.value, "id": i.id} for i in value] if channel == "__interrupt__" else dumpd(value)]
                               for task, channel, value in state["pending_writes"]]
    return plain


def as_tables(saver, thread):
    """The rows of langgraph-checkpoint-postgres's tables as json_agg gives them: bytea as \\x and hex digits."""
    def row(data):
        return "\\x" + data.hex()
    checkpoints, blobs, writes = [], [], []
    for (thread_id, ns, channel, version), (kind, data) in saver.blobs.items():
        blobs.append({"thread_id": thread_id, "checkpoint_ns": ns, "channel": channel, "version": version, "type": kind, "blob": row(data)})
    for ns, by_id in saver.storage[thread].items():
        for checkpoint_id, (checkpoint, metadata, parent) in by_id.items():
            content = serde.loads_typed(checkpoint)
            checkpoints.append({"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id, "parent_checkpoint_id": parent,
                                "type": None, "checkpoint": {**content, "channel_values": {}}, "metadata": serde.loads_typed(metadata)})
            for (task, index), (_, channel, (kind, data), path) in saver.writes[(thread, ns, checkpoint_id)].items():
                writes.append({"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id, "task_id": task, "idx": index,
                               "channel": channel, "type": kind, "blob": row(data), "task_path": path})
    return {"checkpoints": checkpoints, "checkpoint_blobs": blobs, "checkpoint_writes": writes}


def write(name, value):
    (folder / name).write_text(json.dumps(value, indent=1, default=str) + "\n", encoding="utf-8")


def actions():
    """LangChain's middleware: two calls of one message wait, one that needs no approval doesn't."""
    model = Model(messages=iter([
        AIMessage(content="First a user.", id="m1", tool_calls=[call("add_user", {"name": "Charlie"}, "call_0")]),
        AIMessage(content="Now the tables.", id="m2", tool_calls=[call("drop_table", {"name": "users"}, "call_1"),
                                                                  call("drop_table", {"name": "logs"}, "call_2")]),
        AIMessage(content="Done.", id="m3")]))
    saver = InMemorySaver()
    config = {"configurable": {"thread_id": "thread-7"}}
    agent = create_agent(model, [add_user, drop_table], checkpointer=saver, middleware=[HumanInTheLoopMiddleware(interrupt_on={
        "drop_table": {"allowed_decisions": ["approve", "edit", "reject"]}})])
    agent.invoke({"messages": [HumanMessage("Add Charlie, then drop every table.", id="m0")]}, config)
    state = parts(saver, config)
    write("langgraph_py_actions.json", as_json(state))
    write("langgraph_py_actions_objects.json", as_objects(state))
    write("langgraph_py_actions_tables.json", as_tables(saver, "thread-7"))
    (folder / "langgraph_py_actions.msgpack").write_bytes(serde.dumps_typed(state)[1])
    (folder / "langgraph_py_tuple.msgpack").write_bytes(serde.dumps_typed(saver.get_tuple(config))[1])
    agent.invoke(Command(resume={"decisions": [{"type": "approve"}, {"type": "reject", "message": "Keep the logs"}]}), config)
    write("langgraph_py_actions_done.json", as_json(parts(saver, config)))


class State(TypedDict, total=False):
    messages: Annotated[list, add_messages]
    table: str
    sure: str


def questions():
    """Bare interrupts: two nodes ask at once, one in a subgraph; then one is answered."""
    def ask_table(state):
        return {"table": interrupt("Which table?")}

    def ask_sure(state):
        return {"sure": interrupt({"question": "Are you sure?", "options": ["yes", "no"]})}
    inner = StateGraph(State)
    inner.add_node("ask_sure", ask_sure)
    inner.add_edge(START, "ask_sure")
    outer = StateGraph(State)
    outer.add_node("ask_table", ask_table)
    outer.add_node("inner", inner.compile())
    outer.add_node("end", lambda state: {})
    outer.add_edge(START, "ask_table")
    outer.add_edge(START, "inner")
    outer.add_edge(["ask_table", "inner"], "end")
    outer.add_edge("end", END)
    saver = InMemorySaver()
    graph = outer.compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "thread-8"}}
    graph.invoke({"messages": [HumanMessage("Clean up.", id="m0")]}, config)
    write("langgraph_py_questions.json", as_json(parts(saver, config)))
    first = graph.get_state(config).interrupts[0]
    graph.invoke(Command(resume={first.id: "users"}), config)
    write("langgraph_py_questions_half.json", as_json(parts(saver, config)))


def twice():
    """One node asks twice. What was answered to its first question is stored beside the second one."""
    def ask(*names):
        return interrupt({"action_requests": [{"name": name, "args": {"nth": n}} for n, name in enumerate(names)],
                          "review_configs": [{"action_name": name, "allowed_decisions": ["approve", "reject"]} for name in names]})

    def work(state):
        first = ask("read_rows")
        second = ask("drop_users", "send_mail")
        return {"table": first["decisions"][0]["type"], "sure": second["decisions"][0]["type"]}
    saver = InMemorySaver()
    graph = StateGraph(State).add_node("work", work).add_edge(START, "work").compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "thread-9"}}
    approve = {"type": "approve"}
    graph.invoke({}, config)
    stopped = saver.get_tuple(config).config
    graph.invoke(Command(resume={"decisions": [approve]}), config)
    write("langgraph_py_second.json", as_json(parts(saver, stopped)))
    graph.invoke(Command(resume={"decisions": [{"type": "reject", "message": "Keep them"}, approve]}), config)
    write("langgraph_py_second_done.json", as_json(parts(saver, stopped)))


def failed():
    """A node that was answered and failed behind its question; and one that failed there, was run again and asks a second time."""
    def work(state):
        interrupt({"action_requests": [{"name": "drop_users", "args": {}}, {"name": "send_mail", "args": {}}]})
        if not failures:
            failures.append("once")
            raise RuntimeError("the database is gone")
        interrupt({"action_requests": [{"name": "drop_logs", "args": {}}]})
    saver = InMemorySaver()
    graph = StateGraph(State).add_node("work", work).add_edge(START, "work").compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "thread-10"}}
    failures = []
    graph.invoke({}, config)
    question = graph.get_state(config).interrupts[0]
    try:
        graph.invoke(Command(resume={question.id: {"decisions": [{"type": "approve"}, {"type": "approve"}]}}), config)
    except RuntimeError:
        write("langgraph_py_failed.json", as_json(parts(saver, config)))
    graph.invoke(None, config)
    write("langgraph_py_failed_second.json", as_json(parts(saver, config)))


if __name__ == "__main__":
    actions()
    questions()
    twice()
    failed()
