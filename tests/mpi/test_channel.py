"""Each server_* method against its worker_* twin, over real MPI."""

from __future__ import annotations

import numpy as np
import pytest
from mpi4py import MPI

from mpisgd.channel import LEADER, SERVER, Channel
from mpisgd.messages import Order, Tag

pytestmark = pytest.mark.mpi(min_size=2)


def wait_for(channel, poll):
    """Poll until there is something, and return it."""
    found = []

    def look():
        found.append(poll())
        return found[-1] is not None

    channel.wait_until(look)
    return found[-1]


def test_every_worker_hears_what_is_announced(channel: Channel):
    text = "rows and weights, größer " * 1000
    if channel.rank == SERVER:
        channel.server_announce(text)
        channel.server_announce("")
    else:
        assert channel.worker_hear() == text
        assert channel.worker_hear() == ""


@pytest.mark.parametrize("hurry", [True, False])
def test_weights_are_shared_and_numbers_summed(channel: Channel, hurry: bool):
    weights = np.arange(100_003, dtype=np.float32)
    if channel.rank == SERVER:
        channel.server_share_weights(weights)
        total = channel.server_hear_leader(hurry=hurry)
    else:
        np.testing.assert_array_equal(channel.worker_share_weights(len(weights)), weights)
        total = channel.worker_sum(np.tile([channel.rank, 1.0], 50_000))
        if channel.rank == LEADER:
            channel.leader_tell(total)
    np.testing.assert_array_equal(total, np.tile([sum(channel.workers), len(channel.workers)], 50_000))


def test_merge_sums_what_the_workers_have(channel: Channel):
    if channel.rank != SERVER:
        mine, total = np.full(1000, channel.rank, np.float32), np.empty(1000, np.float32)
        for _ in range(3):
            channel.worker_merge(mine, total)
            np.testing.assert_array_equal(total, np.full(1000, sum(channel.workers), np.float32))


def test_the_leader_reports_and_hears_orders_in_turn(channel: Channel):
    orders = [Order.MEASURE, Order.MEASURE, Order.STOP]
    if channel.rank == SERVER:
        for order in orders:
            channel.server_order(order)
            letter = wait_for(channel, channel.server_poll)
            assert (letter.tag, letter.worker) == (Tag.REPORT, LEADER)
            np.testing.assert_array_equal(letter.content, np.full(100_000, order, np.uint8))
        channel.wait_until_sent()
    elif channel.rank == LEADER:
        for order in orders:
            assert wait_for(channel, channel.leader_poll_order) is order
            channel.leader_report(np.full(100_000, order, np.uint8), lambda: False)
        assert channel.leader_poll_order() is None
        channel.wait_until_sent()


def test_no_more_reports_than_one_wait_for_the_server(channel: Channel):
    """Small ones as well, which MPI would let go at once; the leader does other work until the first is taken."""
    report = np.zeros(8, np.uint8)
    if channel.rank == SERVER:
        wait_for(channel, lambda: MPI.COMM_WORLD.Iprobe(LEADER) or None)  # the leader has sent one, and has another
        MPI.COMM_WORLD.recv(source=LEADER)
        assert [wait_for(channel, channel.server_poll).tag for _ in range(2)] == [Tag.REPORT] * 2
    elif channel.rank == LEADER:
        told = []

        def tell_server() -> bool:
            if not told:
                told.append(MPI.COMM_WORLD.isend("go on", SERVER))
            return False

        channel.leader_report(report, lambda: False)
        channel.leader_report(report, tell_server)
        assert told, "the second report did not wait"
        told[0].wait()
        channel.wait_until_sent()


@pytest.mark.parametrize("size", [0, 1, 100_000, 10_000_000])
def test_rows_arrive_in_the_order_sent(channel: Channel, size: int):
    blocks = [np.full(size, number, np.uint8) for number in (1, 2, 3)]
    if channel.rank == SERVER:
        for block in blocks:
            for worker in channel.workers:
                channel.server_send_rows(worker, block)
        channel.wait_until_sent()
        assert all(channel.server_can_send_rows(worker) for worker in channel.workers)
    else:
        for block in blocks:
            np.testing.assert_array_equal(wait_for(channel, channel.worker_poll_rows), block)


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_every_update_is_answered_to_its_sender(channel: Channel, size: int):
    """A worker writes its updates to the same place, each once the last is answered, and polls or waits for that."""
    turns = 20
    if channel.rank == SERVER:
        for _ in range(turns * len(channel.workers)):
            letter = wait_for(channel, channel.server_poll)
            assert letter.tag is Tag.UPDATE
            assert (letter.content == letter.content[0]).all()
            assert (letter.content[0] - letter.worker) % 16 == 0
            channel.server_reply(letter.worker, letter.content[: len(letter.content) // 2 + 1].copy())
        channel.wait_until_sent()
    else:
        channel.worker_expect_replies(size)
        room = np.empty(size, np.uint8)
        for turn in range(turns):
            update = room[: 1 + (size - 1) * (turn + 1) // turns]
            update[:] = what = (channel.rank + 16 * turn) % 256
            channel.worker_send_update(update)
            reply = wait_for(channel, channel.worker_poll_reply) if turn % 2 else channel.worker_wait_reply()
            assert len(reply) == len(update) // 2 + 1
            assert (reply == what).all()


def test_the_server_hears_which_workers_share_memory(channel: Channel):
    shapes = [((3,), np.dtype(np.float64))]
    for willing in (True, False):
        together = willing and len(channel.workers) > 1
        if channel.rank == SERVER:
            alone = {worker: [worker] for worker in channel.workers}
            assert channel.server_hear_nodes() == ({1: list(channel.workers)} if together else alone)
        else:
            memory = channel.worker_share_node_memory(shapes, willing=willing)
            assert (memory is not None) == together
            if memory is not None:
                assert (memory.rank, memory.size) == (channel.rank - 1, len(channel.workers))
                memory.free()


@pytest.mark.parametrize("turns", [1, 10_000])
def test_the_turns_of_a_node_come_before_their_update(channel: Channel, turns: int):
    if channel.rank == SERVER:
        letters = {worker: [] for worker in channel.workers}
        for _ in range(2 * len(channel.workers)):
            letter = wait_for(channel, channel.server_poll)
            letters[letter.worker].append((letter.tag, letter.content.copy()))
        for worker, ((first, records), (second, update)) in letters.items():
            assert (first, second) == (Tag.TURNS, Tag.UPDATE)
            np.testing.assert_array_equal(records.view(np.float64), np.full(14 * turns, worker))
            np.testing.assert_array_equal(update, np.full(5, worker))
            channel.server_reply(worker, update)
        channel.wait_until_sent()
    else:
        channel.worker_expect_replies(5)
        channel.delegate_send_turns(np.full((turns, 14), float(channel.rank)))
        channel.worker_send_update(np.full(5, channel.rank, np.uint8))
        np.testing.assert_array_equal(channel.worker_wait_reply(), np.full(5, channel.rank))
        channel.wait_until_sent()


def test_a_reply_stays_until_the_next_update(channel: Channel):
    """Whatever else arrives; and the server's next letter may be of another kind and size."""
    if channel.rank == SERVER:
        for _ in range(3 * len(channel.workers)):
            letter = wait_for(channel, channel.server_poll)
            if letter.tag is Tag.UPDATE:
                channel.server_send_rows(letter.worker, np.full(1000, 7, np.uint8))
                channel.server_reply(letter.worker, letter.content + letter.content)
        channel.wait_until_sent()
    else:
        channel.worker_expect_replies(1000)
        for what, size in ((3, 1000), (5, 10)):
            channel.worker_send_update(np.full(size, what, np.uint8))
            reply = channel.worker_wait_reply()
            assert (wait_for(channel, channel.worker_poll_rows) == 7).all()
            if size == 10:
                channel.worker_ask_next_shard()
            np.testing.assert_array_equal(reply, np.full(size, 2 * what, np.uint8))
        channel.wait_until_sent()


def test_the_server_gets_every_kind_of_letter_in_order(channel: Channel):
    if channel.rank == SERVER:
        tags: dict[int, list[Tag]] = {worker: [] for worker in channel.workers}
        for _ in range(2 * len(channel.workers)):
            letter = wait_for(channel, channel.server_poll)
            tags[letter.worker].append(letter.tag)
        assert all(seen == [Tag.NEXT_SHARD, Tag.GONE] for seen in tags.values())
        assert channel.server_poll() is None
    else:
        channel.worker_ask_next_shard()
        channel.worker_leave()
