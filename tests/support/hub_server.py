"""Server that answers as the Hugging Face hub does, on two ports that stand for two hosts.

    with HubServer() as hub:
        hub.put("dataset", "user/name", {"manifest.json": b"..."})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        ... hub.files("dataset", "user/name") ... hub.asked ...

Files from `LARGE` bytes on are stored by their SHA-256 on the second port, where reads and uploads are redirected to,
with a signature in the query. A private repository answers 401 without a token, and 404 to a token that may not see it.

For tests only. It follows https://huggingface.co/docs/hub/api and the requests of the package `huggingface_hub`.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

TOKEN = "hf_tokenOfTheTests"
SIGNATURE = "signedForTheTests"
LARGE = 2000  # bytes; the hub decides by size and kind


class Asked(NamedTuple):
    """Request received: host is `hub` or `storage`."""

    host: str
    method: str
    path: str
    headers: dict
    status: int
    body: bytes


class HubServer:
    """Hub on 127.0.0.1. `fail` maps (method, part of a path) to statuses of the next such requests."""

    def __init__(self):
        self.commits, self.private, self.objects, self.asked, self.fail = {}, set(), {}, [], {}
        self.lock = threading.Lock()
        self._servers = [_Server(("127.0.0.1", 0), kind) for kind in (_Hub, _Storage)]
        for server in self._servers:
            server.owner = self
        self.url, self.storage = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)

    def __enter__(self):
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def create(self, kind, name, private=False):
        """Create an empty repository, as the hub does: with one commit."""
        self.commits[kind, name] = [("0" * 40, {})]
        if private:
            self.private.add((kind, name))

    def put(self, kind, name, files, private=False):
        """Add files to a repository in one commit; it is created if it does not exist."""
        if (kind, name) not in self.commits:
            self.create(kind, name, private)
        return self.commit(kind, name, {**self.files(kind, name), **files})

    def commit(self, kind, name, files):
        """Append a commit with exactly these files, and return its identifier."""
        digest = hashlib.sha1(repr((len(self.commits[kind, name]), sorted(files.items()))).encode()).hexdigest()
        self.commits[kind, name].append((digest, dict(files)))
        self.objects.update({hashlib.sha256(data).hexdigest(): data for data in files.values() if len(data) >= LARGE})
        return digest

    def files(self, kind, name, revision="main"):
        """Return the files of a revision by path, or None if it does not exist."""
        commits = self.commits[kind, name]
        return commits[-1][1] if revision == "main" else dict(commits).get(revision)


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    host = ""

    def log_message(self, *_):
        pass

    @property
    def hub(self):
        return self.server.owner

    def handle_method(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        for (method, part), statuses in self.hub.fail.items():
            if method == self.command and part in self.path and statuses:
                return self.answer(statuses.pop(0))
        return self.respond()

    do_GET = do_HEAD = do_POST = do_PUT = handle_method  # noqa: N815

    def answer(self, status, data=b"", **headers):
        if isinstance(data, dict | list):
            data = json.dumps(data).encode()
        headers.setdefault("Content-Length", len(data))
        with self.hub.lock:
            self.hub.asked.append(Asked(self.host, self.command, self.path, dict(self.headers), status, self.body))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send(self, data, tag, **headers):
        """Send a file or the range that was asked for."""
        headers |= {"ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None or self.command == "HEAD":
            return self.answer(200, data, **headers)
        first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        if first >= len(data):
            return self.answer(416, Content_Range=f"bytes */{len(data)}")
        return self.answer(206, data[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(data)}", **headers)


class _Storage(_Handler):
    host = "storage"

    def respond(self):
        parts = urlsplit(self.path)
        oid = parts.path.strip("/")
        if parts.query != f"X-Signature={SIGNATURE}":
            return self.answer(403)
        if self.headers.get("Authorization"):  # as S3 does: two ways of signing
            return self.answer(400)
        if self.command == "PUT":
            if hashlib.sha256(self.body).hexdigest() != oid:
                return self.answer(400)
            self.hub.objects[oid] = self.body
            return self.answer(200)
        # Tags of the storage differ from the hub's.
        return self.send(self.hub.objects[oid], oid[:32]) if oid in self.hub.objects else self.answer(404)


class _Hub(_Handler):
    host = "hub"

    def signed(self, oid):
        return f"{self.hub.storage}/{oid}?X-Signature={SIGNATURE}"

    def respond(self):
        sent = self.headers.get("Authorization")
        if sent not in (None, f"Bearer {TOKEN}", "Bearer hf_stranger"):
            return self.answer(401, X_Error_Message="Invalid credentials in Authorization header")
        path = unquote(urlsplit(self.path).path)
        for pattern, method in ROUTES:
            found = re.fullmatch(pattern, path)
            if found:
                return getattr(self, method)(**found.groupdict())
        return self.answer(404)

    def missing(self, code):
        """Answer as for what does not exist: 401 to strangers, so that names do not leak."""
        anonymous = code == "RepoNotFound" and not self.headers.get("Authorization")
        return self.answer(401 if anonymous else 404, X_Error_Code=code, X_Error_Message=code)

    def visible(self, kind, name):
        hidden = (kind, name) in self.hub.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        return (kind, name) in self.hub.commits and not hidden

    def resolve(self, prefix, name, revision, file):
        kind = "dataset" if prefix else "model"
        if not self.visible(kind, name):
            return self.missing("RepoNotFound")
        files = self.hub.files(kind, name, revision)
        if files is None:
            return self.missing("RevisionNotFound")
        if file not in files:
            return self.missing("EntryNotFound")
        data = files[file]
        commit = self.hub.commits[kind, name][-1][0] if revision == "main" else revision
        if len(data) < LARGE:  # redirected too, on the same host
            location = quote(f"/api/resolve-cache/{kind}s/{name}/{commit}/{file}")
            return self.answer(307, Location=location, X_Repo_Commit=commit)
        oid = hashlib.sha256(data).hexdigest()
        linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": len(data), "X-Repo-Commit": commit}
        return self.answer(302, Location=self.signed(oid), ETag=f'"{oid}"', **linked)

    def cached(self, kind, name, commit, file):
        if not self.visible(kind, name):
            return self.missing("RepoNotFound")
        data = self.hub.files(kind, name, commit)[file]
        return self.send(data, hashlib.sha1(data).hexdigest(), X_Repo_Commit=commit)

    def revision(self, kind, name, revision="main"):
        if not self.visible(kind, name):
            return self.missing("RepoNotFound")
        if self.hub.files(kind, name, revision) is None:
            return self.missing("RevisionNotFound")
        facts = {"id": name, "sha": self.hub.commits[kind, name][-1][0], "private": (kind, name) in self.hub.private}
        return self.answer(200, facts)

    def allowed(self, kind, name):
        """Whether the request may write to a repository; answers if not."""
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(403 if self.headers.get("Authorization") else 401, X_Error_Message="no write access")
        elif (kind, name) not in self.hub.commits:
            self.missing("RepoNotFound")
        else:
            return True
        return False

    def repository(self):
        asked = json.loads(self.body)
        kind, name = asked.get("type", "model"), f"{asked['organization']}/{asked['name']}"
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(403 if self.headers.get("Authorization") else 401, X_Error_Message="no write access")
        url = f"{self.hub.url}/{'datasets/' * (kind == 'dataset')}{name}"
        if (kind, name) in self.hub.commits:
            return self.answer(409, {"error": "You already created this repo", "url": url})
        self.hub.create(kind, name, asked.get("visibility") == "private" or asked.get("private", False))
        return self.answer(200, {"url": url})

    def yaml(self):
        return self.answer(200, {"errors": [], "warnings": []})

    def preupload(self, kind, name, revision):
        if not self.allowed(kind, name):
            return None
        known = self.hub.files(kind, name, revision)
        rows = []
        for file in json.loads(self.body)["files"]:
            data = known.get(file["path"])
            large = file["size"] >= LARGE
            oid = None
            if data is not None:
                oid = (
                    hashlib.sha256(data).hexdigest()
                    if len(data) >= LARGE
                    else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                )
            mode = "lfs" if large else "regular"
            rows.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return self.answer(200, {"files": rows})

    def batch(self, prefix, name):
        if not self.allowed("dataset" if prefix else "model", name):
            return None
        rows = []
        for row in json.loads(self.body)["objects"]:
            upload = {"actions": {"upload": {"href": self.signed(row["oid"])}}}
            rows.append({**row, **({} if row["oid"] in self.hub.objects else upload)})
        return self.answer(200, {"transfer": "basic", "objects": rows})

    def commits(self, kind, name, revision):
        if not self.allowed(kind, name):
            return None
        files = dict(self.hub.files(kind, name, revision))
        for line in self.body.splitlines():
            row = json.loads(line)
            key, value = row["key"], row["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return self.answer(400, {"error": "LFS pointer pointed to a file that does not exist"})
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        oid = self.hub.commit(kind, name, files)
        return self.answer(200, {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"})

    def tree(self, kind, name, revision):
        if not self.visible(kind, name):
            return self.missing("RepoNotFound")
        files = self.hub.files(kind, name, revision) or {}
        rows = [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in sorted(files.items())
        ]
        return self.answer(200, rows)


_NAME = r"(?P<name>[^/]+/[^/]+)"
ROUTES = [
    (r"/api/repos/create", "repository"),
    (r"/api/validate-yaml", "yaml"),
    (rf"/api/(?P<kind>dataset|model)s/{_NAME}", "revision"),
    (rf"/api/resolve-cache/(?P<kind>dataset|model)s/{_NAME}/(?P<commit>[^/]+)/(?P<file>.+)", "cached"),
    (rf"/api/(?P<kind>dataset|model)s/{_NAME}/revision/(?P<revision>.+)", "revision"),
    (rf"/api/(?P<kind>dataset|model)s/{_NAME}/preupload/(?P<revision>.+)", "preupload"),
    (rf"/api/(?P<kind>dataset|model)s/{_NAME}/commit/(?P<revision>.+)", "commits"),
    (rf"/api/(?P<kind>dataset|model)s/{_NAME}/tree/(?P<revision>[^/]+)/?", "tree"),
    (rf"/(?P<prefix>datasets/)?{_NAME}\.git/info/lfs/objects/batch", "batch"),
    (rf"/(?P<prefix>datasets/)?{_NAME}/resolve/(?P<revision>[^/]+|refs/pr/[^/]+)/(?P<file>.+)", "resolve"),
]
