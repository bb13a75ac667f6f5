"""Answers of neon-emulator judged by Neon's own OpenAPI document, and a proxy that judges what Neon's clients get."""

import http.client
import http.server
import json
import os
import re
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema

ROOT = Path(__file__).resolve().parents[2]
CONFORMANCE = Path(os.environ.get("CONFORMANCE", ROOT / "build" / "conformance"))
PREFIX = "/api/v2"
FORMATS = jsonschema.FormatChecker([])
for name, form in {
    "date-time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "email": r"[^@\s]+@[^@\s]+",
}.items():
    FORMATS.checks(name)(lambda value, form=re.compile(form): not isinstance(value, str) or bool(form.fullmatch(value)))


def install():
    """Neon's clients, its document, schemathesis; instant when they are there."""
    subprocess.run([ROOT / "scripts" / "setup-conformance"], check=True)


def to_json_schema(node):
    """OpenAPI 3.0 says nullable where JSON schema has a type more."""
    if isinstance(node, list):
        return [to_json_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: to_json_schema(value) for key, value in node.items()}
    if out.pop("nullable", False) is True:
        out = {"anyOf": [out, {"type": "null"}]}
    return out


class Document:
    def __init__(self):
        self.document = to_json_schema(json.loads((CONFORMANCE / "openapi.json").read_text()))
        self.validators = {}
        self.routes = []
        for path, item in self.document["paths"].items():
            form = re.compile(re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(path)) + "$")
            for method, operation in item.items():
                if method != "parameters":
                    self.routes.append((method.upper(), form, path, operation))
        # Literal segments before variables: /branches/count isn't a branch.
        self.routes.sort(key=lambda route: route[2].count("{"))
        self.checked = set()

    def resolve(self, node):
        while "$ref" in node:
            target = self.document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = target
        return node

    def validator(self, path, method, status):
        key = (path, method, status)
        if key not in self.validators:
            operation = next(o for m, _, p, o in self.routes if (m, p) == (method, path))
            responses = operation["responses"]
            found = responses.get(str(status)) or (responses.get("default") if status >= 400 else None)
            assert found is not None, f"{method} {path}: {status} isn't one of {list(responses)}"
            content = self.resolve(found).get("content", {}).get("application/json")
            schema = None
            if content:
                schema = jsonschema.Draft4Validator(
                    content["schema"] | {"components": self.document["components"]}, format_checker=FORMATS
                )
            self.validators[key] = schema
        return self.validators[key]

    def check(self, method, path, status, text):
        """Fails where an answer of a documented route isn't as the document has it."""
        path = urlsplit(path).path
        route = next(((m, p) for m, form, p, _ in self.routes if m == method and form.match(path)), None)
        if route is None or status in (301, 524):
            return
        schema = self.validator(route[1], method, status)
        self.checked.add((method, route[1], status))
        if status == 204 or schema is None:
            return
        errors = [f"{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in schema.iter_errors(json.loads(text))]
        assert not errors, f"{method} {route[1]} {status}: {errors[:5]} in {text[:500]}"


_document = None


def document():
    """The document, or None where it isn't installed (a single test file that was run by itself)."""
    global _document
    if _document is None and (CONFORMANCE / "openapi.json").exists():
        _document = Document()
    return _document


class JudgingProxy:
    """Stands between a client and the emulator, hands everything on, and keeps what was said and what was wrong with it."""

    def __init__(self, emulator):
        self.requests, self.problems = [], []
        target = urlsplit(emulator.host)
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                connection = http.client.HTTPConnection(target.hostname, target.port, timeout=60)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                try:
                    connection.request(self.command, self.path, body or None, headers)
                    response = connection.getresponse()
                    text = response.read()
                except (OSError, http.client.HTTPException):
                    self.close_connection = True
                    return
                finally:
                    connection.close()
                proxy.judge(self.command, self.path, dict(self.headers), body, response.status, text)
                self.send_response(response.status)
                for key, value in response.getheaders():
                    if key.lower() not in ("connection", "date", "transfer-encoding", "content-length"):
                        self.send_header(key, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    @property
    def host(self):
        return f"http://127.0.0.1:{self.server.server_port}{PREFIX}"

    def judge(self, method, path, headers, body, status, text):
        self.requests.append(
            {"method": method, "path": path.removeprefix(PREFIX), "headers": headers, "body": body.decode(), "status": status}
        )
        try:
            document().check(method, path.removeprefix(PREFIX), status, text.decode())
        except AssertionError as error:
            self.problems.append(str(error))

    def said(self, method, part):
        return [r for r in self.requests if r["method"] == method and part in r["path"]]

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
