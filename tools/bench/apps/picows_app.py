"""picows on uvloop, the frames echoed as they are: `python -m tools.bench.apps.picows_app PORT`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from picows import (
    WSFrame,
    WSListener,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from tools.bench import work

HELLO = WSUpgradeResponse.create_ok_response(work.HELLO)

members: set[WSTransport] = set()


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        transport.send(frame.msg_type, frame.get_payload_as_memoryview())


class Member(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        members.add(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        message = frame.get_payload_as_bytes()
        for member in members:
            member.send(frame.msg_type, message)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        members.discard(transport)


def route(request: WSUpgradeRequest) -> Any:
    if request.path == b"/":
        return WSUpgradeResponseWithListener(HELLO, None)
    return Member() if request.path == b"/broadcast" else Echo()


async def main(port: int) -> None:
    server = await ws_create_server(route, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(main(int(sys.argv[1])))
