"""A stand-in for the W&B server on loopback: as much of it as `wandb sweep`, `agent`, `sync` and online runs speak to.

It gives an agent the runs that a test asks for, keeps what they log, and stops one early as hyperband would.
"""

import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

ENTITY = "tester"
SWEEP = "swp1"
KEY = "0" * 40  # of the length that W&B's own programs check


@dataclass
class Run:
    """What the server knows of a run."""

    args: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    stopped: bool = False
    name: str = ""
    group: str | None = None
    files: dict[str, bytes] = field(default_factory=dict)

    def logged(self, metric: str) -> list[float]:
        """The values of a metric in the order in which they came."""
        return [row[metric] for row in self.history if metric in row]


@dataclass
class Artifact:
    """What the server was sent of one; it is whole when committed."""

    kind: str
    committed: bool = False
    files: dict[str, bytes] = field(default_factory=dict)


class Server:
    """Use it as a context manager.

    Args:
        asks: the arguments of each run that the agent is given, by run id.
        stops: whether the server stops a run, asked while it is at work.
    """

    def __init__(self, asks: dict[str, dict[str, Any]], stops: Callable[[str, Run], bool] = lambda *_: False) -> None:
        self.runs = {run_id: Run(args) for run_id, args in asks.items()}
        self.artifacts: dict[str, Artifact] = {}
        """By name."""
        self.waiting = list(asks)
        self.stops = stops
        self.sweep = ""  # its YAML
        self.operations: list[str] = []
        self.unknown: list[str] = []
        self.lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            server_of_test = self

            def do_POST(self) -> None:
                self._answer()

            def do_PUT(self) -> None:
                self._answer()

            def do_GET(self) -> None:
                self._answer()

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with self.server_of_test.lock:
                    found = self.server_of_test.answer(self.path, body)
                content = json.dumps(found).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self) -> "Server":
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def environment(self) -> dict[str, str]:
        """What points W&B's programs here and nowhere else."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_ENTITY": ENTITY, "WANDB_MODE": "online",
                "WANDB_ERROR_REPORTING": "false", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}  # fmt: skip

    def answer(self, path: str, body: bytes) -> Any:
        """What the server says to a request."""
        if path.endswith("/file_stream"):
            return self._stream(path.split("/")[-2], json.loads(body))
        if path.startswith("/graphql"):
            request = json.loads(body)
            operation = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            name = operation[1] if operation else request["query"][:80]
            self.operations.append(name)
            found = self._operation(name, request.get("variables") or {})
            if found is None:
                return {"data": None, "errors": [{"message": f"{name} is not known here"}]}
            return {"data": found}
        if path.startswith("/upload/"):
            kind, _, place = unquote(path).removeprefix("/upload/").partition("/")
            owner, _, name = place.partition("/")
            (self.runs if kind == "run" else self.artifacts)[owner].files[name] = body
        return {}

    def _operation(self, name: str, given: dict[str, Any]) -> Any:
        answer = getattr(self, f"_{name}", None)
        if answer is None:
            self.unknown.append(name)
            return None
        return answer(given)

    # ----------------------------------------------------------------------------------------------------- the sweep

    def _UpsertSweep(self, given: dict[str, Any]) -> Any:
        self.sweep = given["config"]
        project = {"id": "P", "name": given["projectName"], "entity": {"id": "E", "name": ENTITY}}
        return {"upsertSweep": {"sweep": {"name": SWEEP, "project": project}, "configValidationWarnings": []}}

    def _SweepWithRuns(self, given: dict[str, Any]) -> Any:
        sweep = {"id": "S", "name": SWEEP, "config": self.sweep, "runs": {"edges": []}}
        return {"project": {"sweep": sweep}}

    def _CreateAgent(self, given: dict[str, Any]) -> Any:
        return {"createAgent": {"agent": {"id": "agent1"}}}

    def _Heartbeat(self, given: dict[str, Any]) -> Any:
        at_work: Sequence[str] = list(json.loads(given["runState"]))
        commands: list[dict[str, Any]] = []
        for run_id in at_work:
            self.runs[run_id].stopped = self.runs[run_id].stopped or self.stops(run_id, self.runs[run_id])
            if self.runs[run_id].stopped:
                commands.append({"type": "stop", "run_id": run_id})
        if not at_work and self.waiting:
            run_id = self.waiting.pop(0)
            args = {name: {"value": value} for name, value in self.runs[run_id].args.items()}
            commands.append({"type": "run", "run_id": run_id, "program": "emotion_lightning.train", "args": args})
        elif not at_work:
            commands.append({"type": "exit"})
        return {"agentHeartbeat": {"agent": {"id": "agent1"}, "commands": json.dumps(commands)}}

    # ------------------------------------------------------------------------------------------------------- the runs

    def _Viewer(self, given: dict[str, Any]) -> Any:
        return {"viewer": {"id": "V", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}}

    _GetViewer = _Viewer

    def _ServerFeaturesQuery(self, given: dict[str, Any]) -> Any:
        return {"serverInfo": {"features": []}}

    def _OrganizationCoreWeaveOrganizationID(self, given: dict[str, Any]) -> Any:
        return {"entity": None}

    def _UpsertBucket(self, given: dict[str, Any]) -> Any:
        run = self.runs.setdefault(given["name"], Run({}))
        if given.get("config"):
            run.config = {name: item["value"] for name, item in json.loads(given["config"]).items() if "value" in item}
        run.name = given.get("displayName") or run.name
        run.group = given.get("groupName") or run.group
        bucket = {
            "id": given["name"], "name": given["name"], "displayName": given["name"], "description": "",
            "config": json.dumps({name: {"value": value} for name, value in run.args.items()}), "sweepName": SWEEP,
            "historyLineCount": 0, "project": {"id": "P", "name": "p", "entity": {"id": "E", "name": ENTITY}},
        }  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _upload(self, kind: str, owner: str, name: str) -> str:
        return f"{self.url}/upload/{kind}/{owner}/{quote(name)}"

    def _CreateRunFiles(self, given: dict[str, Any]) -> Any:
        files = [{"name": name, "uploadUrl": self._upload("run", given["run"], name)} for name in given["files"]]
        return {"createRunFiles": {"runID": "R", "uploadHeaders": [], "files": files}}

    def _CreateArtifact(self, given: dict[str, Any]) -> Any:
        asked = given["input"]
        name = asked["artifactCollectionName"]
        self.artifacts[name] = Artifact(asked["artifactTypeName"])
        return {"createArtifact": {"artifact": {"id": name, "state": "PENDING", "artifactSequence": {}}}}

    def _CreateArtifactManifest(self, given: dict[str, Any]) -> Any:
        file = {"id": "F", "uploadUrl": self._upload("artifact", given["artifactID"], "manifest"), "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": given["artifactID"], "file": file}}}

    def _UpdateArtifactManifest(self, given: dict[str, Any]) -> Any:
        made = self._CreateArtifactManifest({"artifactID": given["artifactManifestID"]})
        return {"updateArtifactManifest": made["createArtifactManifest"]}

    def _CreateArtifactFiles(self, given: dict[str, Any]) -> Any:
        nodes = [
            {"storagePath": f"{file['artifactID']}/{file['name']}", "uploadHeaders": [], "uploadMultipartUrls": None,
             "uploadUrl": self._upload("artifact", file["artifactID"], file["name"]),
             "artifact": {"id": file["artifactID"]}}
            for file in given["input"]["artifactFiles"]
        ]  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _CommitArtifact(self, given: dict[str, Any]) -> Any:
        self.artifacts[given["artifactID"]].committed = True
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": ""}}}

    def _RunStoppedStatus(self, given: dict[str, Any]) -> Any:
        return {"project": {"run": {"stopped": self.runs[given["runId"]].stopped}}}

    def _stream(self, run_id: str, sent: dict[str, Any]) -> Any:
        run = self.runs.setdefault(run_id, Run({}))
        files = sent.get("files") or {}
        for line in (files.get("wandb-history.jsonl") or {}).get("content", []):
            run.history.append(json.loads(line))
        for line in (files.get("wandb-summary.json") or {}).get("content", []):
            run.summary = json.loads(line)
        if sent.get("complete"):
            run.exit_code = sent.get("exitcode")
        return {"exitcode": None, "limits": {}}
