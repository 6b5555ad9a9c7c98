"""A Ray actor that owns one Node worker process: carries its bytes, moves its files, keeps its log, and ends it when it ends."""
import asyncio
import os
import secrets
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import ray

# Replies come from fd 3, which is a pipe to this process. A stopped or hung worker would not notice that its stdin ended: it is killed with
# this process. What is left of its files goes when the pipe `alive`, which it alone holds open, is closed, however it died; by a session
# of its own, since Ray ends the group of processes of a dead actor.
LAUNCH = """
setsid /bin/sh -c 'read _ < "$0/alive"; IFS=:; rm -rf -- $FT_SCRATCH' "$0" < /dev/null > /dev/null 2>&1 &
exec setpriv --pdeathsig KILL "$@" 3>&1 1>&2 4> "$0/alive"
"""


class NodeWorker:
    def __init__(self, command, options):
        self.command, self.options = [arg.replace("{here}", os.getcwd()) for arg in command], options
        self.replies, self.log, self.died = bytearray(), bytearray(), None
        self.news, self.asked = asyncio.Event(), time.monotonic()

    async def start(self):
        """Starts the worker; what can't be started is told as `error`."""
        if missing := [folder for folder in self.options["folders"] if not os.path.isdir(folder)]:
            return {"error": f"{missing[0]} is not there"}
        if not shutil.which(self.command[0]):
            return {"error": f"{self.command[0]} can't be run"}
        # As scratch-folder.ts names them.
        name = f"frame-thinker-{os.getpid()}-{os.stat('/proc/self/ns/pid').st_ino & 0xFFFF:04x}{secrets.token_hex(2)}"
        folders = [os.path.join(parent, name) for parent in ("/dev/shm", tempfile.gettempdir())]
        env = {**os.environ, **self.options["env"], "FT_SCRATCH": ":".join(folders)}
        pipes = {kind: asyncio.subprocess.PIPE for kind in ("stdin", "stdout", "stderr")}
        try:
            for folder in folders:
                os.mkdir(folder, 0o700)
            os.mkfifo(f"{folders[0]}/alive")
            launch = ["/bin/sh", "-c", LAUNCH, folders[0], *self.command]
            self.process = await asyncio.create_subprocess_exec(*launch, cwd=self.options["cwd"], env=env, **pipes, limit=2**22)
        except OSError as error:
            return {"error": str(error)}
        self.tasks = [asyncio.create_task(self.supervise()), asyncio.create_task(self.watch_driver())]
        free = [os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize for folder in folders]
        node = {"node": ray.get_runtime_context().get_node_id(), "address": ray.util.get_node_ip_address()}
        return {"pid": self.process.pid, **node, "folders": folders, "free": free}

    async def send(self, frame):
        """Writes frames. A dead worker shows by `receive`."""
        with suppress(ConnectionError):
            self.process.stdin.write(frame)
            await self.process.stdin.drain()

    async def receive(self, seconds):
        """What came since the last time, waited for at most so long: replies, log, how the worker ended."""
        self.asked = time.monotonic()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.news.wait(), seconds)
        self.news.clear()
        self.asked = time.monotonic()
        came = {"replies": bytes(self.replies), "log": bytes(self.log), "died": self.died}
        self.replies.clear()
        self.log.clear()
        return came

    async def take(self, paths):
        """Files as objects of the cluster, and no files any more; the last result says that all went well."""
        contents = [await asyncio.to_thread(Path(path).read_bytes) for path in paths]
        await self.remove(paths)
        return *contents, None

    async def put(self, paths, *contents):
        """Objects of the cluster as files."""
        for path, content in zip(paths, contents, strict=True):
            Path(path).parent.mkdir(exist_ok=True)
            await asyncio.to_thread(Path(path).write_bytes, content)

    async def remove(self, paths):
        for path in paths:
            os.unlink(path)

    async def close(self):
        self.process.stdin.close()

    async def supervise(self):
        streams = [(self.process.stdout, self.replies), (self.process.stderr, self.log)]
        pumps = [asyncio.create_task(self.pump(stream, kept)) for stream, kept in streams]
        code = await self.process.wait()
        await asyncio.wait(pumps, timeout=2)  # Its own children may hold the pipes open.
        self.died = f"died ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"
        self.news.set()

    async def pump(self, stream, kept):
        while data := await stream.read(2**20):
            kept += data
            self.news.set()

    async def watch_driver(self):
        """A driver that was killed asks no more: nothing is left then, whatever Ray does about its session."""
        while time.monotonic() - self.asked < self.options["lease"]:
            await asyncio.sleep(1)
        os._exit(0)
