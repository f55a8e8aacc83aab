"""A hub of our own, on this machine: what the real one answers, for folders that a test fills."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import huggingface_hub.constants as constants

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """`folders`: the files of each name; `gated`: names whose files are refused; `broken`: files that end half way."""

    folders: dict[str, Path]
    gated: set[str]
    broken: set[str]

    def log_message(self, *words: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        parts = unquote(urlparse(self.path).path).strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if name not in self.folders:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
        if any(asked not in ("main", SHA) for kind, asked in zip(parts, parts[1:], strict=False)
               if kind in ("revision", "resolve", "tree")):  # fmt: skip
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
        files = sorted(path for path in self.folders[name].rglob("*") if path.is_file())
        names = {path.relative_to(self.folders[name]).as_posix(): path for path in files}
        if parts[0] == "api":
            return self._send(200, json.dumps(self._told(name, names, "tree" in parts)).encode(), {}, body)
        if name in self.gated:
            return self._send(403, b"", {"X-Error-Code": "GatedRepo"}, body)
        self._file(names["/".join(parts[4:])], body)

    def _told(self, name: str, names: dict[str, Path], tree: bool) -> object:
        if tree:
            return [dict(type="file", path=n, size=p.stat().st_size, oid="0" * 40) for n, p in names.items()]
        return dict(id=name, sha=SHA, siblings=[dict(rfilename=file) for file in names])

    def _file(self, path: Path, body: bool) -> None:
        content = path.read_bytes()
        told = {"X-Repo-Commit": SHA, "ETag": f'"{path.name}"'}
        if path.name in self.broken and body:
            return self._send(500, b"", {}, body)
        self._send(200, content, told, body)

    def _send(self, status: int, content: bytes, told: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for key, value in {**told, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@contextmanager
def serving(monkeypatch, cache: Path, folders: dict[str, Path], **kinds: set[str]) -> Iterator[None]:
    """Within, the hub is ours, and nothing has been downloaded yet beyond what is in `cache`."""
    told = dict(folders=folders, gated=kinds.get("gated", set()), broken=kinds.get("broken", set()))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (Hub,), told))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    to(monkeypatch, url, cache)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def to(monkeypatch, url: str, cache: Path) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", url)
