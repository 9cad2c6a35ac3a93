"""A progress bar over Server-Sent Events: a thread does the job, the handler tells how far it is.

Run it with `catzilla run examples.progress:app`, then `curl -N http://127.0.0.1:8000/progress`.
"""

import queue
import threading
from collections.abc import Iterator

from catzilla import Catzilla, Event, EventStream, current_stream

app = Catzilla()

STEPS = 40
SECONDS_A_STEP = 0.05


def job(report: "queue.Queue[int]", cancelled: threading.Event) -> None:
    """Something that takes its time, and knows nothing of the web."""
    for step in range(1, STEPS + 1):
        if cancelled.wait(SECONDS_A_STEP):  # the work of a step
            return
        report.put(step)


@app.get("/progress")
def progress() -> EventStream:
    stream = current_stream()

    def events() -> Iterator[Event]:
        report: queue.Queue[int] = queue.Queue()
        cancelled = threading.Event()
        worker = threading.Thread(target=job, args=[report, cancelled])
        worker.start()
        try:
            done = 0
            while done < STEPS:
                done = stream.get(report)  # ends at once, with an exception, when the client leaves
                yield Event({"done": done, "of": STEPS}, id=done, event="progress")
            yield Event("finished", event="done")
        finally:
            cancelled.set()
            worker.join()

    return EventStream(events())


if __name__ == "__main__":
    app.listen()
