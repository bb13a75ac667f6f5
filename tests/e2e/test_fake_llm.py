"""scripts/llm/fake_openai.py under the real OpenAI client: both APIs, whole and streamed, and nothing remembered."""
import json
import subprocess
import threading
import urllib.error
import urllib.request

import openai
import pytest

from llm import DEADLINE, DENIED, GUIDE_PROMPT, PYTHON, SCRIPTS, running_llm

TOOLS = ("add_user", "drop_users_table", "list_users")


@pytest.fixture
def client(fake_llm):
    with openai.OpenAI(base_url=fake_llm.base_url, api_key="not-a-key", max_retries=0, timeout=DEADLINE) as client:
        yield client


class Responses:
    """One way to hold a conversation; `say` returns the text or the calls as (id, tool, arguments)."""

    def __init__(self, client, stream):
        self.client, self.stream, self.items = client, stream, []

    def user(self, text):
        self.items.append({"role": "user", "content": text})

    def result(self, call, text):
        self.items.append({"type": "function_call_output", "call_id": call[0], "output": text})

    def say(self):
        tools = [{"type": "function", "name": name, "parameters": {}, "strict": False} for name in TOOLS]
        if self.stream:
            with self.client.responses.stream(model="fake-1", input=self.items, tools=tools) as stream:
                text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
                whole = stream.get_final_response()
            assert text == whole.output_text
        else:
            whole = self.client.responses.create(model="fake-1", input=self.items, tools=tools)
        self.items += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in whole.output]
        assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens > 0
        return whole.output_text or [(i.call_id, i.name, i.arguments) for i in whole.output]


class Chat:
    def __init__(self, client, stream):
        self.client, self.stream, self.messages = client, stream, []

    def user(self, text):
        self.messages.append({"role": "user", "content": text})

    def result(self, call, text):
        self.messages.append({"role": "tool", "tool_call_id": call[0], "content": text})

    def say(self):
        tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in TOOLS]
        if self.stream:
            with self.client.chat.completions.stream(model="fake-1", messages=self.messages, tools=tools,
                                                     stream_options={"include_usage": True}) as stream:
                whole = stream.until_done().get_final_completion()
        else:
            whole = self.client.chat.completions.create(model="fake-1", messages=self.messages, tools=tools)
        message = whole.choices[0].message
        self.messages.append({"role": "assistant", "content": message.content, "tool_calls": [
            {"id": c.id, "type": "function", "function": {"name": c.function.name, "arguments": c.function.arguments}}
            for c in message.tool_calls or []] or None})
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens > 0
        assert whole.choices[0].finish_reason == ("tool_calls" if message.tool_calls else "stop")
        return message.content or [(c.id, c.function.name, c.function.arguments) for c in message.tool_calls]


@pytest.fixture(params=[(Responses, False), (Responses, True), (Chat, False), (Chat, True)],
                ids=["responses", "responses-stream", "chat", "chat-stream"])
def talk(request, client):
    way, stream = request.param
    return way(client, stream)


def test_the_guide_approved(talk):
    talk.user(GUIDE_PROMPT)
    add, = talk.say()
    assert add[1:] == ("add_user", '{"name":"Charlie"}')
    talk.result(add, "Added Charlie.")
    drop, = talk.say()
    assert drop[1:] == ("drop_users_table", "{}") and drop[0] != add[0]
    talk.result(drop, "Dropped the users table.")
    assert talk.say() == "Added Charlie and dropped the users table."


def test_the_guide_denied(talk):
    talk.user(GUIDE_PROMPT)
    add, = talk.say()
    talk.result(add, "Added Charlie.")
    drop, = talk.say()
    talk.result(drop, DENIED)
    users, = talk.say()
    assert users[1:] == ("list_users", "{}")
    talk.result(users, "Alice, Bob, Charlie")
    assert talk.say() == "The users table was not dropped, as the admin decided. Users: Alice, Bob, Charlie"


def test_a_tool_that_broke_is_no_denial(talk):
    talk.user(GUIDE_PROMPT)
    talk.result(talk.say()[0], "Added Charlie.")
    talk.result(talk.say()[0], "An error occurred while running the tool. Please try again.")
    assert talk.say().startswith("The users table could not be dropped: An error occurred")


def test_three_at_once(talk):
    talk.user(GUIDE_PROMPT + " PARALLEL 3")
    talk.result(talk.say()[0], "Added Charlie.")
    drops = talk.say()
    assert [name for _id, name, _arguments in drops] == ["drop_users_table"] * 3 and len({d[0] for d in drops}) == 3
    for drop, text in zip(drops, ("Dropped the users table.", "no", "Dropped the users table.")):
        talk.result(drop, text)
    assert talk.say() == "Added Charlie and dropped the users table; 1 of 3 calls were denied."


def test_many_and_long(talk):
    talk.user(GUIDE_PROMPT + " FILL 3 BLOB 5000")
    names = []
    while (call := talk.say()[0])[1] == "add_user":
        names.append(json.loads(call[2])["name"])
        talk.result(call, "ok")
    assert [name.rstrip("x") for name in names] == ["Charlie", "User 2", "User 3"] and len(names[0]) == 5007


def test_a_script(talk):
    talk.user("STEPS " + json.dumps([[["a", {"n": 1}], ["b", {}]], [["c", {}]], "The end."]) + " and more words")
    first, second = talk.say()
    assert (first[1:], second[1:]) == (("a", '{"n":1}'), ("b", "{}"))
    talk.result(first, "1")
    talk.result(second, "2")
    third, = talk.say()
    assert third[1] == "c"
    talk.result(third, "3")
    assert talk.say() == "The end."


def test_words(talk):
    talk.user("ECHO one")
    assert talk.say() == "You said: ECHO one"
    talk.user("Zwei „Wörter“ \U0001f600")
    assert talk.say() == "You said: Zwei „Wörter“ \U0001f600"


def test_a_failure(talk):
    talk.user("FAIL please")
    with pytest.raises(openai.BadRequestError, match="asked for a failure"):
        talk.say()


def test_the_answer_hangs_on_the_request_alone(client):
    ask = lambda c: c.responses.create(model="fake-1", input=GUIDE_PROMPT).model_dump()
    with running_llm() as other, openai.OpenAI(base_url=other.base_url, api_key="x", max_retries=0) as elsewhere:
        assert ask(client) == ask(client) == ask(elsewhere)


def test_models(client):
    assert [model.id for model in client.models.list()] == ["fake-1"]


def test_what_is_no_request(fake_llm):
    def post(path, data):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(fake_llm.base_url + path, data=data), timeout=DEADLINE)
        return refused.value.code, json.load(refused.value)["error"]["message"]
    assert post("/responses", b"{")[0] == 400
    assert post("/responses", b"[]")[0] == 400
    assert post("/chat/completions", b'{"messages":[{}]}') == (400, "cannot read the request: KeyError: 'role'")
    assert post("/embeddings", b"{}") == (404, "no such path: /v1/embeddings")


def test_thinking_ends_with_the_server():
    with running_llm() as server:
        errors = []

        def ask():
            with openai.OpenAI(base_url=server.base_url, api_key="x", max_retries=0, timeout=DEADLINE) as client:
                try:
                    client.responses.create(model="fake-1", input=f"ECHO THINK {10 * DEADLINE}")
                except openai.OpenAIError as error:
                    errors.append(error)
        thread = threading.Thread(target=ask)
        thread.start()
        assert server.stop() == 0
        thread.join(DEADLINE)
        assert not thread.is_alive() and len(errors) == 1


def test_the_port_file_appears_when_it_answers(tmp_path):
    port_file = tmp_path / "port"
    server = subprocess.Popen([PYTHON, SCRIPTS / "llm" / "fake_openai.py", "--port-file", port_file])
    try:
        while not port_file.exists():
            assert server.poll() is None
        with urllib.request.urlopen(f"http://127.0.0.1:{port_file.read_text().strip()}/v1/models", timeout=DEADLINE) as answer:
            assert json.load(answer)["data"][0]["id"] == "fake-1"
    finally:
        server.terminate()
        assert server.wait(DEADLINE) == 0
