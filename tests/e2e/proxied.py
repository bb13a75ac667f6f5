"""Between a mount and its store: a TCP proxy that fails at a chosen COMMIT, once the server has it or before, or that is only slow.

    with Postgres() as server, StoreProxy(server.store("s")[1]) as proxy, Mount(store=proxy.conninfo) as m:
        with proxy.at_commit("SET step") as cut:   # of the next transaction that has a statement with these words
            ...
            cut.wait()                             # that COMMIT came, and was passed on; the store is away from here on
        ...                                        # and is back"""

import contextlib
import re
import select
import socket
import threading
import time

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from mount import DEADLINE

UNTYPED = (80877103, 80877104)  # SSLRequest, GSSENCRequest: answered by one byte, and the startup packet still follows


class Messages:
    """What a client says, cut into messages (PostgreSQL: 53.2, 53.7): of a Query or a Parse also its statement."""

    def __init__(self):
        self.rest, self.started = b"", False

    def feed(self, data):
        self.rest += data
        while True:
            head = 1 if self.started else 0
            if len(self.rest) < head + 4:
                return
            size = head + int.from_bytes(self.rest[head:head + 4], "big")
            if len(self.rest) < size:
                return
            whole, self.rest = self.rest[:size], self.rest[size:]
            if not self.started:
                self.started = int.from_bytes(whole[4:8], "big") not in UNTYPED
                yield whole, ""
            else:
                yield whole, self.statement(whole)

    @staticmethod
    def statement(whole):
        if whole[:1] == b"Q":
            return whole[5:-1].decode()
        return whole[5:].split(b"\0")[1].decode() if whole[:1] == b"P" else ""


class Rule:
    """`reaches`: whether the server gets the COMMIT. `stalls`: connections stay and say nothing; else they are cut, and new ones refused."""

    def __init__(self, words, reaches, stalls):
        self.words, self.reaches, self.stalls = re.compile(words), reaches, stalls
        self.met = threading.Event()

    def wait(self, timeout=DEADLINE):
        assert self.met.wait(timeout), f"no transaction committed that has /{self.words.pattern}/"


class StoreProxy:
    """`conninfo` leads through it, `direct` past it. `delay`: so many seconds later every answer of the server comes."""

    def __init__(self, conninfo, delay=0):
        parts, self.direct = conninfo_to_dict(conninfo), conninfo
        self.server = (parts["host"], int(parts["port"]))
        self.delay = delay
        self.rule = self.away = None
        self.ends = False
        self.lock = threading.Lock()
        self.threads = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.conninfo = make_conninfo(conninfo, host="127.0.0.1", port=self.listener.getsockname()[1], sslmode="disable",
                                      gssencmode="disable")

    def __enter__(self):
        self.start(self.accept)
        return self

    def __exit__(self, *exc):
        self.ends = True
        for thread in self.threads:
            thread.join(DEADLINE)
        self.listener.close()

    def start(self, target, *args):
        self.threads.append(threading.Thread(target=target, args=args, daemon=True))
        self.threads[-1].start()

    @contextlib.contextmanager
    def at_commit(self, words, reaches=True, stalls=False):
        """From the COMMIT of the next transaction with a statement that has these words (a regular expression) the store is away, until
        the block is left."""
        self.rule = Rule(words, reaches, stalls)
        try:
            yield self.rule
        finally:
            with self.lock:
                self.rule = self.away = None

    def accept(self):
        while not self.ends:
            if not select.select([self.listener], [], [], 0.05)[0]:
                continue
            client = self.listener.accept()[0]
            if self.away and not self.away.stalls:
                client.close()
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                server = socket.create_connection(self.server)
            except OSError:
                client.close()  # the server itself is away
                continue
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.start(self.pump, client, server)

    def pump(self, client, server):
        messages, said = Messages(), []
        with client, server, contextlib.suppress(OSError):
            while not self.ends:
                if self.away and not self.away.stalls:
                    return
                if self.away:
                    time.sleep(0.02)
                    continue
                ready = select.select([client, server], [], [], 0.05)[0]
                if client in ready and not self.asked(messages, said, client, server):
                    return
                if server in ready and not self.away and not self.answered(client, server):
                    return

    def asked(self, messages, said, client, server):
        """False: it is over."""
        data = client.recv(65536)
        for whole, statement in messages.feed(data):
            if statement.startswith("BEGIN"):
                said.clear()
            said.append(statement)
            if statement == "COMMIT" and self.meets(said, server, whole):
                return True
            server.sendall(whole)
        return bool(data)

    def meets(self, said, server, whole):
        """Whether the rule is about this COMMIT: then the server's answer is awaited and not passed on."""
        with self.lock:
            rule = self.rule
            if not rule or self.away or not any(rule.words.search(s) for s in said):
                return False
            if rule.reaches:
                server.sendall(whole)
                assert server.recv(65536)
            self.away = rule
        rule.met.set()
        return True

    def answered(self, client, server):
        data = server.recv(65536)
        if self.delay:
            time.sleep(self.delay)
        client.sendall(data)
        return bool(data)
