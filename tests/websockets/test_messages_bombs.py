"""What one read of a compressed connection may unpack to: the inbox is bounded however many messages it brings."""

from __future__ import annotations

import threading

from catzilla.testing import raw_frame
from tests.promises.helpers import PATIENCE, eventually
from tests.websockets.helpers import BINARY, socket_of
from tests.websockets.packing import Packer, traced_peak

MIB = 1024 * 1024


def test_many_small_bombs_do_not_fill_the_inbox(app, live_server, gate):
    """Each is within the limit of a message, and one read of the socket brings many of them."""

    @app.websocket("/held", compression=True)
    class Held:
        def on_message(self, ws, message):
            gate.wait()

    live = live_server(app)
    client = live.websocket("/held", compression=True)
    packer = Packer()
    frames = b"".join(raw_frame(BINARY, packer.pack(bytes(MIB)), reserved=4) for _ in range(100))
    with traced_peak() as peak:
        sender = threading.Thread(target=client.send_raw, args=(frames,))
        sender.start()
        gate.wait_arrived()
        eventually(lambda: not socket_of(live).is_reading, "the inbox is full")
        sender.join(PATIENCE)
        waiting = socket_of(live)._handling.inbox
        assert waiting is not None
        assert sum(map(len, waiting)) < 8 * MIB
    assert peak() < 16 * MIB
