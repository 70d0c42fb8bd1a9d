"""A double of W&B's server on this machine's loopback: keeps what the real client sends.

It shows what is sent, and nothing about the real server. As much of GraphQL and of the file stream as the
client needs to open a page, go on with one, log, keep an artifact, and finish.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = {"id": "RW50aXR5", "name": "tester"}


@dataclass
class Page:
    """A run as the server has it."""

    name: str
    project: str
    fields: dict[str, Any] = field(default_factory=dict)  # group, notes, tags, …
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    opened: int = 0


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """The client hangs up at its end: that is no error."""


class Double:
    """The server; `down`: it answers nothing but errors; `doomed`: from when a page is to be filled."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.artifacts: dict[str, dict[str, bytes]] = {}  # files by name of the artifact
        self.views: list[dict[str, Any]] = []  # specifications of workspaces
        self.keys: set[str] = set()
        self.down = self.doomed = False
        self.lock = threading.Lock()
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None: ...

            def answer(self, answer: object, code: int = 200) -> None:
                body = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def body(self) -> bytes:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

            def do_POST(self) -> None:
                body = self.body()
                if double.down:
                    self.answer({"error": "down"}, 503)
                    return
                with double.lock:
                    if self.path == "/graphql":
                        double.keys.add(self.headers.get("Authorization", ""))
                        self.answer({"data": double.graphql(json.loads(body))})
                        return
                    if found := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
                        double.stream(double.pages[found[1]], json.loads(body))
                    self.answer({})

            def do_PUT(self) -> None:
                body = self.body()
                if found := re.fullmatch(r"/artifact/([^/]+)/(.+)", self.path):
                    double.artifacts[found[1]][found[2]] = body
                self.answer({})

            def do_GET(self) -> None:
                self.answer({})

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def graphql(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What the real server would answer, as far as the client reads it."""
        operation = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
        given = asked.get("variables") or {}
        match operation and operation[1]:
            case "Viewer" | "GetDefaultEntity":
                viewer = {"id": "VQ", "entity": ENTITY["name"], "username": ENTITY["name"], "flags": "{}"}
                return {"viewer": {**viewer, "teams": {"edges": []}}}
            case "RunResumeStatus":
                page = self.pages.get(given["name"])
                project = {"id": "UA", "name": given["project"], "entity": ENTITY}
                return {"model": {**project, "bucket": self.standing(page) if page else None}}
            case "UpsertBucket":
                return self.upsert(given)
            case "CreateRunFiles":
                self.down = self.doomed
                files = [{"name": name, "uploadUrl": f"{self.url}/put"} for name in given["files"]]
                return {"createRunFiles": {"runID": "Ug", "uploadHeaders": [], "files": files}}
            case "ArtifactType":
                return {"project": {"artifact": None}}
            case "CreateArtifact":
                name = given["input"]["artifactCollectionName"]
                self.artifacts[name] = {}
                sequence = {"latestArtifact": None}
                return {
                    "createArtifact": {
                        "artifact": {"id": name, "state": "PENDING", "artifactSequence": sequence}
                    }
                }
            case "CreateArtifactFiles":
                nodes = [
                    self.place(one["artifactID"], one["name"]) for one in given["input"]["artifactFiles"]
                ]
                return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
            case "CreateArtifactManifest":
                file = {"id": "Rg", **self.place(given["artifactID"], given["name"])}
                return {"createArtifactManifest": {"artifactManifest": {"id": "TQ", "file": file}}}
            case "CommitArtifact":
                return {"commitArtifact": {"artifact": {"id": given["artifactID"]}}}
            case "UpsertView2":
                self.views.append(json.loads(given["spec"]))
                return {"upsertView": {"view": {"id": "Vg", "name": given["name"]}, "inserted": True}}
        return {}

    def place(self, artifact: str, name: str) -> dict[str, Any]:
        """Where a file of an artifact goes."""
        url = f"{self.url}/artifact/{artifact}/{name}"
        return {
            "storagePath": name,
            "uploadUrl": url,
            "uploadHeaders": [],
            "uploadMultipartUrls": None,
            "artifact": {"id": artifact},
        }

    def upsert(self, given: dict[str, Any]) -> dict[str, Any]:
        """A page is opened, or its fields change."""
        name = given["name"]
        page = self.pages.setdefault(name, Page(name, given["project"]))
        page.fields |= {key: value for key, value in given.items() if value is not None}
        config = json.loads(given.get("config") or "{}")
        page.config |= {key: one["value"] for key, one in config.items() if key != "_wandb"}
        bucket = {
            "id": "Ug",
            "name": name,
            "displayName": page.fields.get("displayName"),
            "project": {"id": "UA", "name": page.project, "entity": ENTITY},
            "historyLineCount": len(page.history),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": not page.history}}

    def standing(self, page: Page) -> dict[str, Any]:
        """What a client that goes on with a page is told."""
        return {
            "id": "Ug",
            "name": page.name,
            "displayName": page.fields.get("displayName"),
            "logLineCount": 0,
            "historyLineCount": len(page.history),
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(line) for line in page.history[-1:]]),
            "eventsTail": "[]",
            "summaryMetrics": json.dumps(page.summary),
            "config": json.dumps({key: {"value": value} for key, value in page.config.items()}),
            "wandbConfig": json.dumps({"t": 1}),
            "tags": page.fields.get("tags") or [],
        }

    def stream(self, page: Page, body: dict[str, Any]) -> None:
        """Lines of the history go where their offset says: one that is sent twice is there once."""
        files = body.get("files") or {}
        if lines := files.get("wandb-history.jsonl"):
            found = [json.loads(line) for line in lines["content"]]
            page.history[lines["offset"] : lines["offset"] + len(found)] = found
        if lines := files.get("wandb-summary.json"):
            page.summary |= json.loads(lines["content"][-1])
        if body.get("complete"):
            page.exit_code = body.get("exitcode")

    def close(self) -> None:
        """The port is free again."""
        self.server.shutdown()
        self.server.server_close()
