"""An echo server that needs a cache: `python echo_server.py 7000`, `nc 127.0.0.1 7000`, Ctrl-C."""

import logging
import sys

import trio

import grouper


async def cache(signals: grouper.Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
    logging.info("the cache is warm")
    task_status.started()
    await signals.wait()
    logging.info("the cache is saved")


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    server = grouper.TCPServer(echo, port=int(sys.argv[1]), host="127.0.0.1")
    sys.exit(grouper.run(grouper.Ordered([("cache", cache), ("server", server)])))
