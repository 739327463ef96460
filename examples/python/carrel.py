"""carrel's HTTP API, as far as a chat needs it. Copy this file into your product.

Python 3.9 or newer, standard library only. A Carrel holds no connection and no state,
so threads may share one.
"""

import http.client
import json
import random
import time
import uuid
from urllib.parse import quote, urlsplit

QUIET = 60  # seconds without a byte, four of the daemon's keep-alives: the line is dead
TRIES = 4  # of a request at most, in 0.7 s
LISTENS = 10  # for events, in a row that bring none: a restart of the daemon fits in


class Error(Exception):
    """What the daemon answers where it does not do what it is asked (RFC 9457)."""

    def __init__(self, status, problem, retry_after):
        self.status = status  # 401
        self.code = problem.get("code", "")  # "unauthorized"
        self.message = problem.get("detail", "") or f"status {status}, not an answer of carrel's"
        self.retry_after = retry_after  # seconds
        super().__init__(f"{self.code or 'error'}: {self.message}")

    def may_pass(self):
        """Whether the same request may have another answer later."""
        return self.status in (408, 425, 429, 500, 502, 503, 504) and self.code != "budget_exceeded"


class Carrel:
    def __init__(self, url, key=""):
        self.url = urlsplit(url)
        if self.url.scheme not in ("http", "https") or not self.url.hostname:
            raise ValueError(f"{url!r} does not begin with http://HOST or https://HOST")
        self.headers = {"Authorization": "Bearer " + key} if key else {}

    def execute(self, user, message, **config):
        """Starts a run and returns its id. config: agent, model, max_turns, …"""
        body = {"user_id": user, "message": message, "config": config}
        # With the key, a request that is sent again starts no second run.
        headers = {"Prefer": "respond-async", "Idempotency-Key": str(uuid.uuid4())}
        return self._again(lambda: self._json("POST", "/v1/execute", body, headers))["run_id"]

    def events(self, run_id, after=0):
        """Gives the run's events that follow event `after`, each once and in order, and
        ends after the last. A connection that is lost is made again where it broke."""
        tries = 0
        while True:
            before = after
            try:
                for event in self._connect(run_id, after):
                    if event["run_id"] != run_id or event["seq"] != after + 1:
                        raise ValueError(f"{run_id}: event {event['seq']} after event {after}")
                    after = event["seq"]
                    yield event
                    if event["type"] in ("RUN_FINISHED", "RUN_ERROR"):
                        return
                run = self.run(run_id)  # no more came: were those all?
                if run["status"] not in ("queued", "running") and run["last_seq"] <= after:
                    return
                lost = ConnectionError("the events ended before the run did")
            except (OSError, http.client.HTTPException, Error) as e:
                lost = e
            tries = 1 if after > before else tries + 1
            self._pause(tries, LISTENS, lost)

    def _connect(self, run_id, after):
        """Gives the events that one connection brings."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        with self._send("GET", f"/v1/runs/{_part(run_id)}/events", headers=headers) as answer:
            data = b""
            for line in answer:
                if line.startswith(b"data: "):
                    data = line[6:]
                elif line == b"\n" and data:  # only then is it whole
                    yield json.loads(data)
                    data = b""

    def run(self, run_id):
        return self._again(lambda: self._json("GET", f"/v1/runs/{_part(run_id)}"))

    def cancel(self, run_id):
        return self._again(lambda: self._json("POST", f"/v1/runs/{_part(run_id)}/cancel"))

    def approve(self, run_id, approval_id, allow, reason=""):
        """Answers an APPROVAL_REQUESTED."""
        body = {"decision": "allow" if allow else "deny", "reason": reason}
        return self._json("POST", f"/v1/runs/{_part(run_id)}/approvals/{_part(approval_id)}", body)

    def exec(self, user, command):
        """Runs one command, a list or a text for the shell; not again, if the line is lost."""
        return self._json("POST", self._user(user, "exec"), {"command": command})

    def put(self, user, path, content):
        """Stores bytes in a file of the user's workspace, whole or not at all."""
        return self._again(lambda: self._json("PUT", self._user(user, "files/" + path), content))

    def get(self, user, path):
        """Returns a file's bytes."""

        def read():
            with self._send("GET", self._user(user, "files/" + path)) as answer:
                return answer.read()

        return self._again(read)

    def _user(self, user, below):
        return f"/v1/users/{_part(user)}/" + "/".join(_part(name) for name in below.split("/"))

    def _json(self, method, path, body=None, headers=None):
        with self._send(method, path, body, headers) as answer:
            return json.load(answer)

    def _send(self, method, path, body=None, headers=None):
        """Sends a request; the answer is a file to read and to close."""
        headers = {**self.headers, **(headers or {})}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        secure = self.url.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        line = connect(self.url.hostname, self.url.port, timeout=QUIET)
        try:
            # Connection: close leaves the line to the answer, which closes it.
            line.request(method, self.url.path.rstrip("/") + path, body, {**headers, "Connection": "close"})
            answer = line.getresponse()
        except BaseException:
            line.close()
            raise
        if answer.status < 300:
            return answer
        with answer:
            try:
                problem = json.load(answer)
            except ValueError:
                problem = {}  # of a proxy, most likely
        retry_after = answer.headers.get("Retry-After", "")
        raise Error(answer.status, problem, int(retry_after) if retry_after.isdigit() else 0)

    def _again(self, do):
        """Does what may be done twice until it goes well or nothing helps."""
        tries = 0
        while True:
            try:
                return do()
            except (OSError, http.client.HTTPException, Error) as e:
                tries += 1
                self._pause(tries, TRIES, e)

    @staticmethod
    def _pause(tries, most, lost):
        """Waits before the next try, or raises why there is none."""
        wait, may_pass = 0, True
        if isinstance(lost, Error):
            wait, may_pass = lost.retry_after, lost.may_pass()
        if not may_pass or tries >= most or wait > 120:
            raise lost
        # At random, so that all who lost one daemon do not return at once.
        time.sleep(wait + random.uniform(0, min(0.1 * 2 ** (tries - 1), 5)))


def _part(name):
    """Quotes one part of a path. A proxy on the way could take ".." for a step up: with
    it, a name of a user's would lead to what is another's."""
    if name in (".", ".."):
        raise ValueError(f"{name!r} is no name")
    return quote(name, safe="")
