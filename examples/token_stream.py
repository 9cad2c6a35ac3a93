"""Tokens as an LLM gives them, one after the other; a thousand readers at once need no thousand threads.

Run it with `catzilla run examples.token_stream:app`, then
`curl -N 'http://127.0.0.1:8000/tokens?prompt=Why+streams'`.
"""

import re
from collections.abc import Iterator
from typing import Any

from catzilla import Catzilla, Request, StreamingResponse, sleep

app = Catzilla()

SECONDS_A_TOKEN = 0.03
ANSWER = (
    "You asked: “{prompt}”. Every word here left the server on its own, the moment it was made. The generator behind "
    "it is plain Python: it yields a token, then a pause. While it pauses it holds no thread at all, so one small "
    "process keeps thousands of these answers going. Close the page, and the generator is closed at once, wherever it "
    "stands: nobody pays for tokens that nobody reads."
)


def generate_tokens(prompt: str) -> Iterator[str]:
    """A model, as far as this example is concerned: pieces of words, spaces included."""
    for piece in re.finditer(r"\s*(\w{1,5}|\S)", ANSWER.format(prompt=prompt)):
        yield piece.group()


@app.get("/tokens")
def tokens(request: Request) -> StreamingResponse:
    prompt = request.query_params.get("prompt", "How does this work?")[:200]

    def stream() -> Iterator[Any]:
        for token in generate_tokens(prompt):
            yield token
            yield sleep(SECONDS_A_TOKEN)

    return StreamingResponse(stream())


if __name__ == "__main__":
    app.listen()
