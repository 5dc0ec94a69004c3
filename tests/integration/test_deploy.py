"""The Dockerfile of the server and the page about it, without Docker: the lines are read, and run where they can be."""

import configparser
import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("litserve")

import httpx
import yaml
from helpers.servers import PATIENCE, answers, free_port
from helpers.stand_in_server import listening, served

from emotion_lightning.serving import server
from emotion_lightning.serving.application import PATHS
from emotion_lightning.serving.gate import OPEN_PATHS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PORT = 8000


def instructions() -> list[list[tuple[str, str]]]:
    """Name and arguments of each instruction, for each stage; those before the first stage come first."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8")))
    stages: list[list[tuple[str, str]]] = [[]]
    for line in filter(None, text.splitlines()):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append((name, rest.strip()))
    return stages


def of(stage: list[tuple[str, str]], name: str) -> list[str]:
    """The arguments of the instructions with this name."""
    return [rest for own, rest in stage if own == name]


def copied() -> list[tuple[list[str], str]]:
    """Sources and target of what the first stage copies from the folder of the project."""
    return [(parts[:-1], parts[-1]) for parts in map(shlex.split, of(instructions()[1], "COPY"))]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out: the last line that fits decides."""
    found = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").removeprefix("**/")
            parts = path.split("/") if "**/" in line else path.split("/")[:1]
            found = not line.startswith("!") if any(fnmatch.fnmatch(part, pattern) for part in parts) else found
    return found


def test_what_the_package_is_built_from_is_copied_and_nothing_else_is_sent() -> None:
    sources = {source for some, _ in copied() for source in some}
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    own = PROJECT["project"]
    assert sources == {
        "pyproject.toml", "constraints.txt", own["readme"], *own["license-files"], *wheel["packages"],
        *wheel["force-include"],
    }  # fmt: skip
    assert all((ROOT / source).exists() for source in sources)
    sent = {entry.name for entry in ROOT.iterdir() if not ignored(entry.name)}
    assert sent == sources
    assert ignored("emotion_lightning/data/__pycache__") and not ignored("emotion_lightning/data/cleaning.py")


def test_the_image_runs_the_server_as_nobody_special_and_asks_for_its_health() -> None:
    _, build, final = instructions()
    (user,) = of(final, "USER")
    assert int(user.split(":")[0]) >= 1000
    assert final.index(("USER", user)) < final.index(("ENTRYPOINT", *of(final, "ENTRYPOINT")))
    (entry,) = map(json.loads, of(final, "ENTRYPOINT"))
    assert entry[0].rpartition("/")[2] in PROJECT["project"]["scripts"]
    (install,) = (line for line in of(build, "RUN") if "pip install" in line)
    (extras,) = re.findall(r"\.\[([\w,]+)\]", install)
    assert set(extras.split(",")) <= PROJECT["project"]["optional-dependencies"].keys()
    (check,) = of(final, "HEALTHCHECK")
    asked = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", check)
    assert asked == [(str(PORT), "/health")] and "/health" in PATHS and "/health" in OPEN_PATHS
    assert of(final, "EXPOSE") == [str(PORT)]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="emotion_image_"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def torch_index(default: str) -> str:
    """The index of the Dockerfile, or where that cannot be reached PyPI, which it names for GPUs."""
    try:
        urllib.request.urlopen(f"{default}/torch/", timeout=10).close()
    except OSError:
        return "https://pypi.org/simple"
    return default


@pytest.mark.exhaustive
def test_the_lines_of_the_dockerfile_make_a_server_that_answers(place: Path) -> None:
    _, build, final = instructions()
    places = {path: str(place / path.strip("/").replace("/", "_")) for path in ("/opt/emotions", "/src", "/var/cache")}

    def here(text: str) -> str:
        for path, own in places.items():
            text = text.replace(path, own)
        return text

    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))}
    arguments = dict(argument.split("=", 1) for argument in of(build, "ARG"))
    arguments["TORCH_INDEX"] = torch_index(arguments["TORCH_INDEX"])
    (source,) = (Path(here(folder)) for folder in of(build, "WORKDIR"))
    source.mkdir()
    for name, rest in build:
        if name == "COPY":
            *some, target = shlex.split(rest)
            for one in some:
                if (ROOT / one).is_dir():
                    skipped = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / one, source / target, ignore=skipped)
                else:
                    shutil.copy(ROOT / one, source / target)
        elif name == "RUN":
            subprocess.run(here(rest), shell=True, cwd=source, env=variables | arguments, check=True)
    shutil.rmtree(source)  # it is not in the image

    for line in of(final, "RUN"):
        subprocess.run(here(line).replace("install ", "install -v ", 1), shell=True, check=os.getuid() == 0)
    user, group = (int(part) for part in of(final, "USER")[0].split(":"))
    nobody: dict[str, Any] = {"user": user, "group": group, "extra_groups": []} if os.getuid() == 0 else {}
    if not may_run(here("/opt/emotions/bin/python"), nobody):  # a Python in the home of root
        nobody = {}
    settings = dict(pair.split("=", 1) for line in of(final, "ENV") for pair in shlex.split(here(line)))
    (work,) = (Path(here(folder)) for folder in of(final, "WORKDIR"))
    work.mkdir(parents=True, exist_ok=True)
    (entry,) = (json.loads(here(line)) for line in of(final, "ENTRYPOINT"))
    (check,) = (json.loads(here(line)[line_start(here(line)) :]) for line in of(final, "HEALTHCHECK"))
    bare = {name: variables[name] for name in ("PATH", "LANG") if name in variables} | settings
    with (
        (place / "log").open("w+") as log,
        subprocess.Popen(entry, cwd=work, env=bare, stdout=log, stderr=log, **nobody) as process,
    ):
        try:
            base = f"http://127.0.0.1:{PORT}"
            assert subprocess.run(check, env=bare, capture_output=True, **nobody).returncode != 0  # it loads yet
            answers(process, lambda: httpx.get(f"{base}/health").raise_for_status(), unlike=httpx.HTTPError,
                    seconds=PATIENCE)  # fmt: skip
            assert subprocess.run(check, env=bare, **nobody).returncode == 0
            asked = {"texts": ["We won!"], "explain": True}
            found = httpx.post(f"{base}/predict", json=asked, timeout=PATIENCE).json()["predictions"][0]
            assert found["labels"] and found["words"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 128 + signal.SIGTERM
        finally:
            if process.poll() is None:
                process.kill()
            print((place / "log").read_text())
    assert "Traceback" not in (place / "log").read_text()


def may_run(python: str, user: dict[str, Any]) -> bool:
    """Whether a user can start this Python."""
    try:
        return subprocess.run([python, "-c", ""], **user).returncode == 0
    except PermissionError:
        return False


def line_start(check: str) -> int:
    """Where the command of a HEALTHCHECK begins."""
    return check.index("[", check.index("CMD"))


# ------------------------------------------------------------------------------------------------- the page about it

PAGE = (ROOT / "docs" / "how-to" / "deploy.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code of the page in a language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", PAGE)


def test_kubernetes_asks_paths_that_need_no_token_and_waits_for_the_end(settings: Any) -> None:
    deployment, service = yaml.safe_load_all(blocks("yml")[0])
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    probes = {name: container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {probe["path"] for probe in probes.values()} == {"/health", "/live"} <= set(OPEN_PATHS)
    assert probes["livenessProbe"]["path"] == "/live"
    assert {probe["port"] for probe in probes.values()} == {PORT} == {service["spec"]["ports"][0]["targetPort"]}
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    own = settings(*container["args"], command="serve").serve
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= pause + own.drain_seconds
    assert {server.TOKEN, "OMP_NUM_THREADS"} == {variable["name"] for variable in container["env"]}


def test_systemd_and_nginx_keep_to_the_settings_of_the_server(settings: Any) -> None:
    own = settings(command="serve").serve
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.read_string(blocks("ini")[0])
    service = unit["Service"]
    assert service["KillMode"] == "mixed" and int(service["SuccessExitStatus"]) == 128 + signal.SIGTERM
    assert int(service["TimeoutStopSec"]) > own.drain_seconds
    command, *arguments = service["ExecStart"].split()
    assert command.rpartition("/")[2] in PROJECT["project"]["scripts"] and settings(*arguments, command="serve")
    site = blocks("nginx")[0]
    assert int(re.findall(r"client_max_body_size (\d+)m", site)[0]) * 1024**2 >= own.body_bytes
    assert int(re.findall(r"proxy_read_timeout (\d+)s", site)[0]) > own.timeout


def test_nginx_encrypts_limits_and_hides_the_numbers(place: Path) -> None:
    nginx, openssl = shutil.which("nginx") or shutil.which("/usr/sbin/nginx"), shutil.which("openssl")
    if nginx is None or openssl is None:
        pytest.skip("needs nginx and openssl (Debian: nginx, openssl)")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=emotions.example.org",
         "-keyout", place / "privkey.pem", "-out", place / "fullchain.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    plain, secure = free_port(), free_port()
    with listening(served()) as address:
        site, under_a_path = (
            text.replace("http://127.0.0.1:8000", address.rstrip("/"))
            .replace("listen 80;", f"listen 127.0.0.1:{plain};")
            .replace("listen 443 ssl;", f"listen 127.0.0.1:{secure} ssl;")
            .replace("/etc/letsencrypt/live/emotions.example.org", str(place))
            for text in blocks("nginx")
        )
        whole = site.rstrip().removesuffix("}") + under_a_path + "}\n"
        own = f"pid {place}/pid; error_log {place}/errors; daemon off; user {'root' if os.getuid() == 0 else 'nobody'};"
        paths = "".join(
            f"{name}_temp_path {place}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (place / "nginx.conf").write_text(f"{own} events {{}} http {{ access_log off; {paths}\n{whole} }}")
        with subprocess.Popen([nginx, "-e", place / "errors", "-c", place / "nginx.conf"]) as process:
            try:
                base = f"https://127.0.0.1:{secure}"
                with httpx.Client(base_url=base, verify=False, timeout=60) as client:
                    answers(process, lambda: client.get("/health"), unlike=httpx.HTTPError, seconds=60)
                    check_site(client, plain)
            finally:
                process.terminate()
                process.wait()
                print((place / "errors").read_text())


def check_site(client: httpx.Client, plain: int) -> None:
    moved = httpx.get(f"http://127.0.0.1:{plain}/docs", headers={"host": "emotions.example.org"})
    assert (moved.status_code, moved.headers["location"]) == (301, "https://emotions.example.org/docs")
    answer = client.post("/predict", json={"texts": ["We won!"]})
    assert answer.status_code == 200 and re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert [client.get(path).status_code for path in ("/metrics", "/emotions/metrics")] == [403, 403]
    # Too large for the server, not for nginx: the server's sentence comes through.
    refused = client.post("/predict", content=b"x" * 200_000)
    assert refused.status_code == 413 and "100,000 bytes" in refused.json()["error"]
    page = client.get("/emotions/")
    files = re.findall(r'(?:href|src)="(assets/[\w.]+)"', page.text)
    assert files and all(client.get(f"/emotions/{file}").status_code == 200 for file in files)
    assert client.post("/emotions/predict", json={"texts": ["We won!"]}).status_code == 200
    codes = [client.post("/predict", json={"texts": ["We won!"]}).status_code for _ in range(60)]
    assert codes[:15] == [200] * 15 and 503 in codes  # a burst is answered, a flood is not
