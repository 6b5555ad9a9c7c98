"""A Ray actor that owns one Node worker process: carries its frames, keeps its log, and ends it when it ends."""
import asyncio
import json
import os
import signal
import struct
import time
from contextlib import suppress

import ray

MAX_FRAME = 2**31


def split(body):
    """Header and data of a frame's safetensors blob."""
    (length,) = struct.unpack("<Q", body[:8])
    return json.loads(body[8 : 8 + length]), memoryview(body)[8 + length :]


class NodeWorker:
    def __init__(self, command, options):
        self.command, self.options = command, options
        self.frames, self.log, self.died = [], bytearray(), None
        self.kept = {}  # id of a call whose answer stays in the cluster -> (its frames so far, future of the last)
        self.news, self.asked = asyncio.Event(), time.monotonic()

    async def start(self):
        """Starts the worker; what can't be started is told as `error`."""
        lost = [folder for folder in self.options["folders"] if not os.path.isdir(folder)]
        if lost:
            return {"error": f"{lost[0]} is not there"}
        replies, end = os.pipe()
        # A stopped or hung worker would not notice that its stdin ended: it is killed with this process.
        shell = ["/bin/sh", "-c", f'exec setpriv --pdeathsig KILL "$@" 3>/dev/fd/{end}', "sh"]
        command = [arg.replace("{here}", os.getcwd()) for arg in self.command]
        pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.STDOUT}
        place = {"cwd": self.options["cwd"], "env": {**os.environ, **self.options["env"]}, "pass_fds": (end,)}
        try:
            self.process = await asyncio.create_subprocess_exec(*shell, *command, **place, **pipes, limit=2**22)
        except OSError as error:
            return {"error": str(error)}
        finally:
            os.close(end)
        reader = asyncio.StreamReader(limit=2**22)
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(replies, "rb"))
        self.tasks = [asyncio.create_task(self.supervise(reader)), asyncio.create_task(self.watch_driver())]
        node = ray.get_runtime_context().get_node_id()
        return {"pid": self.process.pid, "node": node, "address": ray.util.get_node_ip_address()}

    async def send(self, frame):
        """Writes frames. A dead worker shows by `receive`."""
        with suppress(ConnectionError):
            self.process.stdin.write(frame)
            await self.process.stdin.drain()

    async def receive(self, seconds):
        """What came since the last time, waited for at most so long: frames, log, how the worker ended."""
        self.asked = time.monotonic()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.news.wait(), seconds)
        self.news.clear()
        self.asked = time.monotonic()
        frames, log, self.frames, self.log = b"".join(self.frames), bytes(self.log), [], bytearray()
        return {"frames": frames, "log": log, "died": self.died}

    async def keep(self, number, frame):
        """A call whose answer stays in the cluster as an object: its last reply without tensors, and all its frames."""
        self.kept[number] = frames, done = [], asyncio.get_running_loop().create_future()
        if self.died:
            done.set_result(None)
        await self.send(frame)
        told = await done
        del self.kept[number]
        return told, frames

    async def give(self, number, kept, methods):
        """`keep` with a kept answer for its request: each partial frame calls methods[0], the last frame methods[1]."""
        for body in kept:
            header, data = split(body)
            reply = json.loads(header["__metadata__"]["call"])
            last = reply.get("partial") is None
            call = {"v": 1, "id": number, "method": methods[last], "params": reply["result" if last else "partial"]}
            header["__metadata__"]["call"] = json.dumps(call)
            text = json.dumps(header).encode()
            text += b" " * (-len(text) % 8)
            told, frames = await self.keep(number, struct.pack("<QQ", 8 + len(text) + len(data), len(text)) + text + data)
            if told is None or json.loads(told).get("error"):
                break
        return told, frames

    async def close(self):
        self.process.stdin.close()

    async def supervise(self, reader):
        ends = [asyncio.create_task(self.read_frames(reader)), asyncio.create_task(self.read_log())]
        code = await self.process.wait()
        await asyncio.wait(ends, timeout=2)  # Its own children may hold the pipes open.
        self.died = f"died ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"
        for _, done in self.kept.values():
            if not done.done():
                done.set_result(None)
        self.news.set()

    async def read_frames(self, reader):
        with suppress(asyncio.IncompleteReadError):  # The worker ended.
            while head := await reader.readexactly(8):
                length, told, reply = *struct.unpack("<Q", head), None, {}
                # The driver knows a damaged frame, and ends the worker.
                body = await reader.readexactly(length) if length <= MAX_FRAME else b""
                with suppress(struct.error, TypeError, ValueError, KeyError):
                    told = split(body)[0]["__metadata__"]["call"] if self.kept else "{}"
                    reply = dict(json.loads(told))
                frames, done = self.kept.get(reply.get("id"), (self.frames, None))
                frames.append(body if done else head + body)
                if done is None:
                    self.news.set()
                elif reply.get("partial") is None and not done.done():
                    done.set_result(told)

    async def read_log(self):
        while text := await self.process.stdout.read(2**16):
            self.log += text
            self.news.set()

    async def watch_driver(self):
        """A driver that was killed asks no more: nothing is left then, whatever Ray does about its session."""
        while time.monotonic() - self.asked < self.options["lease"]:
            await asyncio.sleep(1)
        os._exit(0)
