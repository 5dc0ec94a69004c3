"""A stand-in for the Hugging Face hub on loopback: as much of its HTTP interface as its client speaks to.

Repositories have owners, tokens, commits, large files apart from small ones, and answers for those who may not.
"""

import base64
import hashlib
import json
import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask, Response, jsonify, redirect, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import make_server

OWNER = "me"
TOKEN = "hf_" + "a" * 34
READING = "hf_" + "b" * 34
"""A token of the same user that may not write."""


@dataclass
class Repository:
    """What the hub holds under a name.

    Attributes:
        sdk: of a Space, the library that its program uses.
        private: seen by its owner alone.
        gated: seen by those who accepted its terms, which nobody did.
        commits: files by path, for each commit, the oldest first.
        tags: number of the commit that a tag stands for.
    """

    sdk: str | None = None
    private: bool = False
    gated: bool = False
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{".gitattributes": b""}])
    tags: dict[str, int] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, bytes]:
        """Of the newest commit."""
        return self.commits[-1]

    def sha(self, number: int) -> str:
        """The name of a commit."""
        content = repr((number, sorted((path, _sha1(data)) for path, data in self.commits[number].items())))
        return hashlib.sha1(content.encode()).hexdigest()

    def find(self, revision: str) -> int | None:
        """The number of a commit, by its name, a tag or main."""
        count = len(self.commits)
        named = {self.sha(number): number for number in range(count)} | {"main": count - 1} | self.tags
        return named.get(revision)


class Refusal(HTTPException):
    """An answer as the hub gives it to who may not."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        content = json.dumps({"error": message})
        super().__init__(response=Response(content, status, headers, content_type="application/json"))


class Hub:
    """Use it as a context manager.

    Attributes:
        repositories: by user/name; Spaces by spaces/user/name.
        asked: method and path of every request.
        broken: answer every request with an error of the server.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self.broken = False
        self.large: dict[str, bytes] = {}
        self.server = make_server("127.0.0.1", 0, _application(self), threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.store = f"http://localhost:{self.server.server_port}"  # large files lie at another host
        logging.getLogger("werkzeug").setLevel(logging.ERROR)

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.server.shutdown()
        self.server.server_close()

    def sent(self) -> list[str]:
        """Requests that change something."""
        return [line for line in self.asked if line.split()[0] in ("POST", "PUT", "DELETE") and "validate" not in line]


def log_in(server: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, token: str | None = TOKEN) -> None:
    """Let the hub's client in this process ask the stand-in, with an empty cache of its own."""
    from huggingface_hub import constants

    # What the client reads from the environment when it is loaded, which in this process was long ago.
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)


def _application(hub: Hub) -> Flask:
    app = Flask("hub")

    def user() -> str | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in (TOKEN, READING):
            raise Refusal(401, message="Invalid credentials in Authorization header")
        return OWNER if token else None

    def readable(space: str, name: str, kind: str = "models") -> Repository:
        found = hub.repositories.get(f"{'spaces/' if kind == 'spaces' else ''}{space}/{name}")
        who = user()
        if found is None or (found.private and who != space):
            raise Refusal(404 if who else 401, "RepoNotFound", "Repository not found")
        if found.gated and who != space:
            raise Refusal(403 if who else 401, "GatedRepo", "Access to model is restricted")
        return found

    def writable(space: str, name: str, kind: str = "models") -> Repository:
        found = readable(space, name, kind)
        if space != user() or READING in request.headers["Authorization"]:
            raise Refusal(403, message="You don't have the rights to write to this repository")
        return found

    def commit_of(found: Repository, revision: str) -> int:
        number = found.find(revision)
        if number is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return number

    @app.before_request
    def note() -> None:
        hub.asked.append(f"{request.method} {request.path}")
        if hub.broken:
            raise Refusal(503, message="Service unavailable")

    @app.get("/api/whoami-v2")
    def whoami() -> Any:
        if user() is None:
            raise Refusal(401, message="Invalid username or password.")
        return jsonify(type="user", name=OWNER, fullname=OWNER, orgs=[])

    @app.post("/api/repos/create")
    def create() -> Any:
        asked = request.get_json()
        space = asked.get("organization") or user()
        if user() is None:
            raise Refusal(401, message="Invalid username or password.")
        if space != user() or READING in request.headers["Authorization"]:
            raise Refusal(403, message="You don't have the rights to create a model under this namespace")
        name = f"{space}/{asked['name']}"
        name = f"spaces/{name}" if asked.get("type") == "space" else name
        if name in hub.repositories:
            raise Refusal(409, message="You already created this model repo")
        private = asked.get("private", False) or asked.get("visibility") == "private"
        hub.repositories[name] = Repository(private=private, sdk=asked.get("sdk"))
        return jsonify(url=f"{hub.url}/{name}", name=name)

    @app.post("/api/validate-yaml")
    def validate() -> Any:
        front = yaml.safe_load(request.get_json()["content"].split("---\n")[1])
        wrong = [name for name in ("license", "language") if not isinstance(front.get(name, ""), str)]
        return jsonify(errors=[{"message": name} for name in wrong], warnings=[]), 400 if wrong else 200

    @app.get("/api/<any(models, spaces):kind>/<space>/<name>")
    @app.get("/api/<any(models, spaces):kind>/<space>/<name>/revision/<path:revision>")
    def info(kind: str, space: str, name: str, revision: str = "main") -> Any:
        found = readable(space, name, kind)
        number = commit_of(found, revision)
        readme = found.commits[number].get("README.md", b"").decode()
        return jsonify(
            id=f"{space}/{name}", modelId=f"{space}/{name}", sha=found.sha(number), private=found.private,
            gated=found.gated, disabled=False, tags=[], downloads=0, likes=0,
            siblings=[{"rfilename": path} for path in sorted(found.commits[number])],
            cardData=yaml.safe_load(readme.split("---\n")[1]) if readme.startswith("---\n") else None,
        )  # fmt: skip

    @app.get("/api/models/<space>/<name>/auth-check")
    def auth_check(space: str, name: str) -> Any:
        readable(space, name)
        return jsonify({})

    @app.get("/api/models/<space>/<name>/tree/<revision>")
    @app.get("/api/models/<space>/<name>/tree/<revision>/<path:folder>")
    def tree(space: str, name: str, revision: str, folder: str = "") -> Any:
        found = readable(space, name)
        files = found.commits[commit_of(found, revision)]
        inside = {path: data for path, data in sorted(files.items()) if path.startswith(f"{folder}/") or not folder}
        if folder and not inside:
            raise Refusal(404, "EntryNotFound", f"{folder} does not exist")
        return jsonify(
            [
                {"type": "file", "path": path, "size": len(data), "oid": _sha1(data)}
                | ({"lfs": {"oid": _sha256(data), "size": len(data), "pointerSize": 134}} if _is_large(path) else {})
                for path, data in inside.items()
            ]
        )

    @app.post("/api/<any(models, spaces):kind>/<space>/<name>/preupload/<revision>")
    def preupload(kind: str, space: str, name: str, revision: str) -> Any:
        found = writable(space, name, kind)
        asked = [file["path"] for file in request.get_json()["files"]]
        answers = [
            {
                "path": path,
                "uploadMode": "lfs" if _is_large(path) else "regular",
                "shouldIgnore": False,
                "oid": _oid(path, found.files.get(path)),
            }
            for path in asked
        ]
        return jsonify(files=answers)

    @app.post("/<space>/<name>.git/info/lfs/objects/batch")
    @app.post("/<any(spaces):kind>/<space>/<name>.git/info/lfs/objects/batch")
    def batch(space: str, name: str, kind: str = "models") -> Any:
        writable(space, name, kind)
        objects = [
            {"oid": part["oid"], "size": part["size"]}
            | (
                {}
                if part["oid"] in hub.large
                else {"actions": {"upload": {"href": f"{hub.store}/large/{part['oid']}"}}}
            )
            for part in request.get_json()["objects"]
        ]
        return Response(
            json.dumps({"transfer": "basic", "objects": objects}), content_type="application/vnd.git-lfs+json"
        )

    @app.put("/large/<oid>")
    def put_large(oid: str) -> Any:
        data = request.get_data()
        if _sha256(data) != oid:
            raise Refusal(400, message="not what was announced")
        hub.large[oid] = data
        return ""

    @app.get("/large/<oid>")
    def get_large(oid: str) -> Any:
        if "Authorization" in request.headers:
            raise Refusal(400, message="a token was sent to another host")
        return Response(hub.large[oid], content_type="application/octet-stream")

    @app.post("/api/<any(models, spaces):kind>/<space>/<name>/commit/<revision>")
    def commit(kind: str, space: str, name: str, revision: str) -> Any:
        found = writable(space, name, kind)
        files = dict(found.files)
        for line in request.get_data().decode().splitlines():
            step = json.loads(line)
            value = step["value"]
            match step["key"]:
                case "header":
                    if value.get("parentCommit") not in (None, found.sha(len(found.commits) - 1)):
                        raise Refusal(412, message="A commit has happened since.")
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = hub.large[value["oid"]]
                case other:
                    raise Refusal(400, message=f"a step that nobody asked for: {other}")
        found.commits.append(files)
        sha = found.sha(len(found.commits) - 1)
        return jsonify(success=True, commitOid=sha, commitUrl=f"{hub.url}/{space}/{name}/commit/{sha}")

    @app.route("/<space>/<name>/resolve/<revision>/<path:path>", methods=["GET", "HEAD"])
    def resolve(space: str, name: str, revision: str, path: str) -> Any:
        found = readable(space, name)
        number = commit_of(found, revision)
        data = found.commits[number].get(path)
        headers = {"X-Repo-Commit": found.sha(number)}
        if data is None:
            return Response("", 404, {**headers, "X-Error-Code": "EntryNotFound"})
        if _is_large(path):
            hub.large[_sha256(data)] = data
            answer = redirect(f"{hub.store}/large/{_sha256(data)}", 302)
            answer.headers.update({**headers, "X-Linked-Etag": f'"{_sha256(data)}"', "X-Linked-Size": str(len(data))})
            return answer
        return Response(data, headers={**headers, "ETag": f'"{_sha1(data)}"'})

    return app


def _is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".onnx", ".bin"))


def _oid(path: str, data: bytes | None) -> str | None:
    if data is None:
        return None
    return _sha256(data) if _is_large(path) else _sha1(data)


def _sha1(data: bytes) -> str:
    """As git names a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
