"""The applications under measurement, each written the way its framework's users write it. The work is in `work.py`.

All serve the same paths: `/` hello, `/chunks8k`, `/chunks64k`, `/lines`, `/first`, `/ticks`, `/fresh`; and `/parked`
(one event, then an hour of silence that holds no thread) where the framework has a way to do that. Those with
WebSockets serve `/echo`, which answers a message with itself, and `/broadcast`, which sends it to everyone on that
path.
"""
