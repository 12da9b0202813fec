"""The ring in which short messages lie: used to its last byte, and no message overwrites another one."""

import random

import sharedmem


def test_no_message_is_put_where_others_lie():
    """Messages of many lengths, from many places, until the ring is replaced: all arrive as they were."""
    rng = random.Random(5)
    for round_ in range(100):
        queue, sent = sharedmem.Queue(), []
        memory = queue.stats()["memory"]

        def put(queue=queue, sent=sent):
            sent.append(rng.randbytes(rng.randrange(200)))
            queue.put(sent[-1])

        for _ in range(rng.randrange(1, 60)):
            put()
        for _ in range(rng.randrange(len(sent))):
            assert queue.get(timeout=0) == sent.pop(0)
        while queue.stats()["memory"] == memory:
            put()
        assert queue.get_many(block=False) == sent, f"in round {round_}"
