#!/usr/bin/env python3
"""A language model that always says the same: a local server that speaks the OpenAI API, for the demo and the tests.

POST /v1/responses and /v1/chat/completions (whole or as a stream), GET /v1/models. What it answers is computed from the request
alone, never remembered, so that a run begun by one process can be finished by another, as often as wanted. Which tale it tells is
chosen by words in capitals in the first user message:

    (nothing)     the guide's: add_user(Charlie), drop_users_table, and when that was denied list_users
    PARALLEL n    the guide's with n drop_users_table calls at once
    FILL n        the guide's with n add_user calls first; BLOB n makes each name n bytes longer
    PLAIN         an answer and no tool call
    ECHO          an answer that repeats the last user message
    FAIL          HTTP 400
    STEPS json    a script of its own: [[["tool", {arguments}], …], …, "final text"], one inner list per turn

THINK n in the message or tool output that the model is to answer makes it think for n seconds first; PONDER n in the first
message makes it think so before it answers the output of drop_users_table, which is to say in the process that was woken.
"""
import argparse
import json
import os
import re
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODELS = ["fake-1"]
CREATED = 1767225600
MAX_BODY = 256 << 20


# --- what the request says -----------------------------------------------------------------------------------------------

class Talk:
    """A conversation, whichever of the two APIs it came by: user messages, calls, and outputs by call id, in order."""

    def __init__(self):
        self.users = []
        self.calls = []
        self.outputs = {}
        self.last = ""

    def user(self, text):
        self.users.append(text)
        self.last = text

    def output(self, call_id, text):
        self.outputs[call_id] = text
        self.last = text

    def outputs_of(self, tool):
        return [self.outputs[call_id] for call_id, name in self.calls if name == tool and call_id in self.outputs]


def text_of(content):
    """The text in a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or [] if isinstance(part, dict))


def talk_of_responses(body):
    talk = Talk()
    items = body.get("input", "")
    for item in [{"role": "user", "content": items}] if isinstance(items, str) else items:
        kind = item.get("type", "message")
        if kind == "message" and item.get("role") == "user":
            talk.user(text_of(item.get("content")))
        elif kind == "function_call":
            talk.calls.append((item["call_id"], item["name"]))
        elif kind == "function_call_output":
            talk.output(item["call_id"], text_of(item.get("output")))
    return talk


def talk_of_chat(body):
    talk = Talk()
    for message in body.get("messages", []):
        if message["role"] == "user":
            talk.user(text_of(message.get("content")))
        elif message["role"] == "assistant":
            talk.calls += [(call["id"], call["function"]["name"]) for call in message.get("tool_calls") or []]
        elif message["role"] == "tool":
            talk.output(message["tool_call_id"], text_of(message.get("content")))
    return talk


# --- what the model says to it: a text, or a list of (tool, arguments) -----------------------------------------------------

class Refused(Exception):
    """The model's way of failing: an HTTP 400."""


def number_after(word, text, default):
    found = re.search(rf"\b{word} (\d+)", text)
    return int(found[1]) if found else default


def guide(talk, prompt):
    """Adds the user, drops the table, and takes the other path where that was denied."""
    fill, parallel, blob = (number_after(word, prompt, default) for word, default in (("FILL", 1), ("PARALLEL", 1), ("BLOB", 0)))
    adds, drops, lists = (talk.outputs_of(tool) for tool in ("add_user", "drop_users_table", "list_users"))
    if len(adds) < fill:
        return [("add_user", {"name": (f"User {len(adds) + 1}" if adds else "Charlie") + "x" * blob})]
    if not drops:
        return [("drop_users_table", {})] * parallel
    if lists:
        return f"The users table was not dropped, as the admin decided. Users: {lists[-1]}"
    if broken := [output for output in drops if output.startswith("An error occurred")]:
        return f"The users table could not be dropped: {broken[0]}"
    denied = [output for output in drops if not output.lower().startswith("dropped")]
    if len(denied) == len(drops):
        return [("list_users", {})]
    if denied:
        return f"Added Charlie and dropped the users table; {len(denied)} of {len(drops)} calls were denied."
    return "Added Charlie and dropped the users table."


def script(talk, prompt):
    """Follows the steps written in the prompt; a step is over when its calls are in the conversation."""
    steps, _ = json.JSONDecoder().raw_decode(prompt.split("STEPS ", 1)[1].lstrip())
    made = len(talk.calls)
    for step in steps:
        if isinstance(step, str):
            return step
        if made == 0:
            return [(name, arguments) for name, arguments in step]
        made -= len(step)
    return f"Done. The last word was: {talk.last}"


def fail(_talk, _prompt):
    raise Refused("the prompt asked for a failure")


TALES = {
    "STEPS": script,
    "FAIL": fail,
    "PLAIN": lambda _talk, _prompt: "There is nothing to do.",
    "ECHO": lambda talk, _prompt: f"You said: {talk.users[-1]}",
}


def answer(talk):
    prompt = talk.users[0] if talk.users else ""
    for word, tale in TALES.items():
        if re.search(rf"\b{word}\b", prompt):
            return tale(talk, prompt)
    return guide(talk, prompt)


def seconds_to_think(talk):
    ponder = number_after("PONDER", talk.users[0], 0) if talk.users and talk.outputs_of("drop_users_table") else 0
    return max(ponder, number_after("THINK", talk.last, 0))


def calls_of(talk, reply):
    """The reply's calls as (call id, tool, arguments as text). Ids count the calls of the conversation: no two are alike."""
    return [(f"call_{len(talk.calls) + i:020d}", name, json.dumps(arguments, separators=(",", ":")))
            for i, (name, arguments) in enumerate(reply)] if not isinstance(reply, str) else []


# --- the Responses API -----------------------------------------------------------------------------------------------------

def turn_of(talk):
    return len(talk.calls) + len(talk.users) - 1


def responses_body(body, talk, reply):
    turn = turn_of(talk)
    output = [{"type": "function_call", "id": f"fc_{call_id[5:]:0>32}", "call_id": call_id, "name": name, "arguments": arguments,
               "status": "completed"} for call_id, name, arguments in calls_of(talk, reply)]
    if isinstance(reply, str):
        output = [{"type": "message", "id": f"msg_{turn:032d}", "role": "assistant", "status": "completed",
                   "content": [{"type": "output_text", "text": reply, "annotations": [], "logprobs": []}]}]
    used = len(json.dumps(body.get("input", ""))) // 4
    said = max(1, sum(len(json.dumps(item)) for item in output) // 16)
    return {"id": f"resp_{turn:032d}", "object": "response", "created_at": CREATED, "status": "completed",
            "model": body.get("model", MODELS[0]), "output": output, "error": None, "incomplete_details": None,
            "instructions": body.get("instructions"), "metadata": {}, "parallel_tool_calls": True, "temperature": 1.0,
            "top_p": 1.0,
            "tool_choice": body.get("tool_choice", "auto"), "tools": body.get("tools", []),
            "usage": {"input_tokens": used, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                      "output_tokens": said, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": used + said}}


def responses_events(whole):
    begun = dict(whole, status="in_progress", output=[], usage=None)
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for index, item in enumerate(whole["output"]):
        at = {"item_id": item["id"], "output_index": index}
        if item["type"] == "function_call":
            yield "response.output_item.added", {"output_index": index, "item": dict(item, arguments="", status="in_progress")}
            yield "response.function_call_arguments.delta", dict(at, delta=item["arguments"])
            yield "response.function_call_arguments.done", dict(at, arguments=item["arguments"], name=item["name"])
        else:
            part = item["content"][0]
            at["content_index"] = 0
            yield "response.output_item.added", {"output_index": index, "item": dict(item, content=[], status="in_progress")}
            yield "response.content_part.added", dict(at, part=dict(part, text=""))
            for word in re.findall(r"\S*\s*", part["text"])[:-1]:
                yield "response.output_text.delta", dict(at, delta=word, logprobs=[])
            yield "response.output_text.done", dict(at, text=part["text"], logprobs=[])
            yield "response.content_part.done", dict(at, part=part)
        yield "response.output_item.done", {"output_index": index, "item": item}
    yield "response.completed", {"response": whole}


# --- chat completions ------------------------------------------------------------------------------------------------------

def chat_body(body, talk, reply):
    message = {"role": "assistant", "content": reply if isinstance(reply, str) else None, "refusal": None}
    if calls := calls_of(talk, reply):
        message["tool_calls"] = [{"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
                                 for call_id, name, arguments in calls]
    used = len(json.dumps(body.get("messages", []))) // 4
    said = max(1, len(json.dumps(message)) // 16)
    return {"id": f"chatcmpl-{turn_of(talk):032d}", "object": "chat.completion", "created": CREATED,
            "model": body.get("model", MODELS[0]),
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls" if calls else "stop"}],
            "usage": {"prompt_tokens": used, "completion_tokens": said, "total_tokens": used + said,
                      "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}}}


def chat_chunks(whole, with_usage):
    def chunk(delta, finish=None):
        return {"id": whole["id"], "object": "chat.completion.chunk", "created": CREATED, "model": whole["model"],
                "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}
    choice = whole["choices"][0]
    yield chunk({"role": "assistant", "content": ""})
    for index, call in enumerate(choice["message"].get("tool_calls", [])):
        yield chunk({"tool_calls": [{"index": index, "id": call["id"], "type": "function",
                                     "function": {"name": call["function"]["name"], "arguments": ""}}]})
        yield chunk({"tool_calls": [{"index": index, "function": {"arguments": call["function"]["arguments"]}}]})
    for word in re.findall(r"\S*\s*", choice["message"]["content"] or "")[:-1]:
        yield chunk({"content": word})
    yield chunk({}, choice["finish_reason"])
    if with_usage:
        yield {**chunk({}), "choices": [], "usage": whole["usage"]}


# --- the server ------------------------------------------------------------------------------------------------------------

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        if self.server.verbose:
            super().log_message(format, *args)

    def reply_json(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("x-request-id", "req_fake")
        self.end_headers()
        self.wfile.write(data)

    def reply_error(self, status, message):
        self.close_connection = True
        self.reply_json(status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}})

    def reply_stream(self, blocks):
        """Server-sent events; the connection's end is the stream's, which spares chunked encoding."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for block in blocks:
            self.wfile.write(block.encode())

    def do_GET(self):
        if self.path.partition("?")[0] != "/v1/models":
            return self.reply_error(404, f"no such path: {self.path}")
        self.reply_json(200, {"object": "list", "data": [
            {"id": name, "object": "model", "created": CREATED, "owned_by": "local"} for name in MODELS]})

    def do_POST(self):
        ways = {"/v1/responses": (talk_of_responses, self.post_responses), "/v1/chat/completions": (talk_of_chat, self.post_chat)}
        if self.path.partition("?")[0] not in ways:
            return self.reply_error(404, f"no such path: {self.path}")
        parse, post = ways[self.path.partition("?")[0]]
        try:
            length = int(self.headers.get("Content-Length", ""))
            if not 0 <= length <= MAX_BODY:
                raise ValueError("Content-Length out of range")
            body = json.loads(self.rfile.read(length))
            talk = parse(body)
            said = answer(talk)
        except Refused as refusal:
            return self.reply_error(400, str(refusal))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return self.reply_error(400, f"cannot read the request: {type(error).__name__}: {error}")
        if (seconds := seconds_to_think(talk)) and self.server.ending.wait(seconds):
            return self.reply_error(503, "the server is ending")
        try:
            post(body, talk, said)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def post_responses(self, body, talk, said):
        whole = responses_body(body, talk, said)
        if not body.get("stream"):
            return self.reply_json(200, whole)
        self.reply_stream(f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': number, **data})}\n\n"
                          for number, (kind, data) in enumerate(responses_events(whole)))

    def post_chat(self, body, talk, said):
        whole = chat_body(body, talk, said)
        if not body.get("stream"):
            return self.reply_json(200, whole)
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self.reply_stream([*(f"data: {json.dumps(chunk)}\n\n" for chunk in chat_chunks(whole, with_usage)), "data: [DONE]\n\n"])


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address, verbose):
        super().__init__(address, Handler)
        self.verbose = verbose
        self.ending = threading.Event()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 (default): any free one")
    parser.add_argument("--port-file", help="file to write the port into, once the server answers")
    parser.add_argument("--verbose", action="store_true", help="log each request on stderr")
    options = parser.parse_args()

    server = Server(("127.0.0.1", options.port), options.verbose)

    def end(_signal, _frame):
        server.ending.set()
        # shutdown() waits for serve_forever, which runs in this very thread.
        threading.Thread(target=server.shutdown).start()
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)

    port = server.server_address[1]
    if options.port_file:
        temporary = f"{options.port_file}.{os.getpid()}"
        with open(temporary, "w", encoding="ascii") as file:
            file.write(f"{port}\n")
        os.replace(temporary, options.port_file)
    else:
        print(f"http://127.0.0.1:{port}/v1", flush=True)
    server.serve_forever(poll_interval=0.05)
    server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
