"""A model behind an endpoint, for the tests: a real HTTP server that answers as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from framework.lm.endpoint import Endpoint

# From a request to a text, or to an embedding (a list), or to (status, headers), or to a number of seconds to hang.
Say = Callable[[dict[str, Any]], Any]


class Slowly:
    """Says what another says, a moment later; knows how many were asked at a time at most."""

    def __init__(self, say: Say) -> None:
        self._say, self._lock = say, threading.Lock()
        self.together = self.most = 0

    def __call__(self, request: dict[str, Any]) -> Any:
        with self._lock:
            self.together += 1
            self.most = max(self.most, self.together)
        time.sleep(0.05)
        with self._lock:
            self.together -= 1
        return self._say(request)


@dataclass
class Server:
    """What it is asked, and what it says."""

    say: Say = lambda request: "{}"
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    url: str = ""

    def endpoint(self, **changed: Any) -> Endpoint:
        """An endpoint that points here."""
        settings: dict[str, Any] = {"base_url": self.url, "api_key_env": "A_KEY", "time_limit_s": 5.0, "attempts": 2, "concurrency": 4}
        return Endpoint(**{**settings, "max_cost": 1.0, "max_calls": None, "input_price": 0.0, "output_price": 0.0, "cache": None, **changed})


def _body(path: str, said: Any) -> dict[str, Any]:
    if path == "/v1/embeddings":
        usage: dict[str, int] = {"prompt_tokens": 100, "total_tokens": 100}
        return {"object": "list", "model": "m", "usage": usage, "data": [{"object": "embedding", "index": 0, "embedding": said}]}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "usage": usage, "choices": [choice]}


@contextmanager
def serving() -> Iterator[Server]:
    """Speaks the protocols of chat completions and embeddings on a free port of this machine."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append(request)
            state.keys.append(self.headers["Authorization"])
            said = state.say(request)
            if isinstance(said, float):
                time.sleep(said)
                said = (503, {})
            status, headers = said if isinstance(said, tuple) else (200, {})
            content = json.dumps(_body(self.path, said) if status == 200 else {"error": {"message": "no"}}).encode()
            try:
                self.send_response(status)
                for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except OSError:  # nobody waits any more
                pass

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    state.url = f"http://127.0.0.1:{http.server_port}/v1"
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield state
    http.shutdown()
    http.server_close()
