"""Every MPI call but those of `shared_memory`: each server_* method stands beside the worker_* twin it meets.

The roles speak to a `Channel` and ask it for the time; they know no MPI. Methods marked collective must be called by
every rank, in the same order. Each wait polls and backs off, so that a rank that waits leaves its core to one that
learns; only a message that has begun to arrive is received to its end in one call.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisgd.compiled_loops import Float
from mpisgd.messages import Bytes, Order, Tag
from mpisgd.shared_memory import Shape, SharedMemory
from mpisgd.waiting import (
    LONGEST_SLEEP_PATIENT,
    LONGEST_SLEEP_TIMED,
    PATIENT_SLEEP,
    YIELDS_FOR_COLLECTIVE,
    YIELDS_FOR_MESSAGE,
    Backoff,
    Work,
    poll,
)

if TYPE_CHECKING:
    from mpi4py import MPI

SERVER = 0
LEADER = 1  # of the workers: speaks for them in lock step, prepares the memory that all share
NOTHING = np.empty(0, np.uint8)
# The workers of each node that share memory, by their delegate, who speaks with the server for all; who shares none
# speaks alone.
Nodes = dict[int, list[int]]


class Letter(NamedTuple):
    """A message that a worker sent to the server."""

    tag: Tag
    worker: int
    content: Bytes


class Channel:
    """One rank's end of the exchange. Workers are numbered by rank, from 1."""

    def __init__(self, communicator: MPI.Comm) -> None:
        """Duplicate and name the communicator, so that no other library's messages mix with ours. Collective."""
        from mpi4py import MPI  # noqa: PLC0415 - importing it initialises MPI

        self._mpi = MPI
        self._comm = communicator.Dup()
        self._comm.Set_name("mpisgd")
        self._crew = self._comm.Split(color=self._comm.rank != SERVER)  # the workers among themselves
        self._crew.Set_name("mpisgd workers")
        self._sends: dict[tuple[int, Tag], tuple[MPI.Request, Bytes]] = {}
        self._status = MPI.Status()
        self._updates = self._replies = NOTHING  # where messages of the asynchronous exchange are received
        self._reply = MPI.REQUEST_NULL
        self._until_reply = Backoff(YIELDS_FOR_MESSAGE)
        self.rank: int = self._comm.rank
        self.workers = range(1, self._comm.size)

    # --- time

    def now(self) -> float:
        """Return a monotonic time, in seconds."""
        return time.perf_counter()

    def wait_until(self, done: Work, meanwhile: Work | None = None, *, hurry: bool = True) -> None:
        """Poll `done` until it is true; `meanwhile` does a little work and tells whether there was any.

        Without `hurry` others have time to spare, and this rank sleeps at once between two polls.
        """
        backoff = Backoff(YIELDS_FOR_MESSAGE) if hurry else Backoff(0, longest_sleep=LONGEST_SLEEP_PATIENT)
        poll(done, meanwhile, backoff)

    # --- set-up

    def server_announce(self, text: str) -> None:
        """Tell every worker the same text. Collective, with `worker_hear`."""
        content = np.frombuffer(text.encode(), np.uint8)
        self._wait(self._comm.Ibcast(np.array([len(content)]), SERVER))
        self._wait(self._comm.Ibcast(content, SERVER))

    def worker_hear(self) -> str:
        """Return the text the server announces. Collective."""
        length = np.zeros(1, np.int64)
        self._wait(self._comm.Ibcast(length, SERVER))
        content = np.empty(length[0], np.uint8)
        self._wait(self._comm.Ibcast(content, SERVER))
        return content.tobytes().decode()

    def server_share_weights(self, weights: Float) -> None:
        """Give every worker the initial weights. Collective, with `worker_share_weights`."""
        self._wait(self._comm.Ibcast(weights, SERVER))

    def worker_share_weights(self, column_count: int) -> Float:
        """Return the initial weights, float32 (column_count,). Collective."""
        weights = np.empty(column_count, np.float32)
        self._wait(self._comm.Ibcast(weights, SERVER))
        return weights

    def worker_sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add these to the other workers' numbers and return the sum. Collective among the workers."""
        total = np.empty_like(values)
        self._wait(self._crew.Iallreduce(values, total))
        return total

    def server_hear_leader(self, *, hurry: bool = True) -> NDArray[np.float64]:
        """Return numbers that the workers' leader tells, float64. Beside `leader_tell`.

        Without `hurry` nobody waits for this rank, which then looks only every few milliseconds.
        """
        backoff = Backoff(0, longest_sleep=LONGEST_SLEEP_TIMED) if hurry else Backoff(0, shortest_sleep=PATIENT_SLEEP)
        poll(lambda: self._probe(LEADER, Tag.TOLD), None, backoff)
        return self._receive(LEADER, Tag.TOLD).view(np.float64)

    def leader_tell(self, numbers: NDArray[np.float64]) -> None:
        """Tell the server these numbers. A few leave at once; for many this rank waits until the server looks."""
        self._send(SERVER, Tag.TOLD, numbers.view(np.uint8))
        self.wait_until_sent()  # a large message moves only while this rank polls

    def server_take_columns(self) -> dict[int, Bytes]:
        """Return what each worker tells of its columns. Beside `worker_tell_columns`."""
        told: dict[int, Bytes] = {}

        def look() -> bool:
            for worker in self.workers:
                if worker not in told and self._probe(worker, Tag.COLUMNS):
                    told[worker] = self._receive(worker, Tag.COLUMNS)
                    return True
            return False

        poll(lambda: len(told) == len(self.workers), look, Backoff(0, longest_sleep=LONGEST_SLEEP_TIMED))
        return told

    def server_give_weights(self, worker: int, weights: Float) -> None:
        """Give a worker the initial weights of its columns."""
        self._send(worker, Tag.REPLY, weights.view(np.uint8))

    def worker_tell_columns(self, columns: Bytes) -> None:
        """Tell the server which columns this worker has."""
        self._send(SERVER, Tag.COLUMNS, columns)
        self.wait_until_sent()  # a large message moves only while this rank polls

    def worker_take_weights(self) -> Float:
        """Return the initial weights of this worker's columns, float32."""
        return self._await(SERVER, Tag.REPLY).view(np.float32)

    def server_echo(self, messages: int) -> None:
        """Send workers back what they send, so many times. Beside `worker_echo`."""
        for _ in range(messages):
            self.wait_until(lambda: self._probe(self._mpi.ANY_SOURCE, Tag.UPDATE, self._status))
            worker = self._status.source
            self._send(worker, Tag.REPLY, self._receive(worker, Tag.UPDATE))
        self.wait_until_sent()

    def worker_echo(self, message: Bytes) -> None:
        """Send the server a message and wait until it is back."""
        self._send(SERVER, Tag.UPDATE, message)
        self._await(SERVER, Tag.REPLY)

    # --- rows

    def server_can_send_rows(self, worker: int) -> bool:
        """Tell whether the last block sent to this worker has left."""
        return self._has_left(worker, Tag.ROWS)

    def server_send_rows(self, worker: int, block: Bytes) -> None:
        """Send a packed block of rows; waits only for the block before it to leave."""
        self._send(worker, Tag.ROWS, block)

    def worker_poll_rows(self) -> Bytes | None:
        """Return the next packed block of rows, if one has come."""
        return self._receive(SERVER, Tag.ROWS) if self._probe(SERVER, Tag.ROWS) else None

    def worker_ask_next_shard(self) -> None:
        """Tell the server that this worker has begun on its next sample."""
        self._send(SERVER, Tag.NEXT_SHARD, NOTHING)

    # --- lock step: the workers among themselves, and their leader with the server

    def worker_merge(self, mine: Float, total: Float) -> None:
        """Write the sum of all workers' buffers to `total`. Collective among the workers, a round each."""
        self._wait(self._crew.Iallreduce(mine, total))

    def worker_share_memory(self, shapes: Sequence[Shape], *, willing: bool) -> SharedMemory | None:
        """Return memory that all workers share, if they can: see `SharedMemory.of`. Collective among the workers."""
        return SharedMemory.of(self._crew, shapes, self._move_messages, willing=willing)

    def leader_report(self, report: Bytes, meanwhile: Work) -> None:
        """Send the server a packed report; waits until it has taken the one before, so that they do not pile up."""
        self._wait_until_left(SERVER, Tag.REPORT, meanwhile)
        self._sends[SERVER, Tag.REPORT] = (self._comm.Issend(report, SERVER, Tag.REPORT), report)

    def server_order(self, order: Order) -> None:
        """Tell the leader what to do."""
        self._send(LEADER, Tag.ORDER, np.array([order], np.uint8))

    def leader_poll_order(self) -> Order | None:
        """Return the server's next order, if one has come."""
        return Order(self._receive(SERVER, Tag.ORDER)[0]) if self._probe(SERVER, Tag.ORDER) else None

    # --- Hogwild! in memory
    def share_memory(self, shapes: Sequence[Shape], *, willing: bool) -> SharedMemory | None:
        """Return memory that all ranks share, if they can: see `SharedMemory.of`. Collective, its own twin."""
        return SharedMemory.of(self._comm, shapes, self._move_messages, willing=willing)

    def server_hear_nodes(self) -> Nodes:
        """Return which workers share memory, by their delegates. Collective, with `worker_share_node_memory`."""
        delegates = np.zeros(self._comm.size, np.int64)
        self._wait(self._comm.Igather(np.array([SERVER]), delegates, SERVER))
        nodes: Nodes = {}
        for worker in self.workers:
            nodes.setdefault(int(delegates[worker]), []).append(worker)
        return nodes

    def worker_share_node_memory(self, shapes: Sequence[Shape], *, willing: bool) -> SharedMemory | None:
        """Return memory that the workers of this node share, if they can. Collective, with `server_hear_nodes`."""
        node = self._workers_here()
        memory = SharedMemory.of(node, shapes, self._move_messages, willing=willing)
        (first,) = node.Get_group().Translate_ranks([0], self._comm.Get_group())
        delegate = self.rank if memory is None else first
        self._wait(self._comm.Igather(np.array([delegate]), None, SERVER))
        return memory

    # --- Hogwild! at a distance
    def worker_expect_replies(self, largest: int) -> None:
        """Make room for replies of at most that many bytes."""
        self._replies = np.empty(largest, np.uint8)

    def worker_send_update(self, update: Bytes) -> None:
        """Send a packed update and make ready for its reply, until which it must stay as it is; waits for neither."""
        self._reply = self._comm.Irecv(self._replies, SERVER, Tag.REPLY)
        self._send(SERVER, Tag.UPDATE, update)

    def worker_poll_reply(self) -> Bytes | None:
        """Return the reply to the last update, if it has come; it stays as it is until the next update is sent.

        Polling also moves the messages along.
        """
        if not self._reply.Test(self._status):
            return None
        return self._replies[: self._status.count]

    def worker_wait_reply(self) -> Bytes:
        """Wait for the reply to the last update, and return it as `worker_poll_reply` does."""
        if not self._reply.Test(self._status):
            poll(functools.partial(self._reply.Test, self._status), None, self._until_reply)
        return self._replies[: self._status.count]

    def server_poll(self) -> Letter | None:
        """Return the next message from any worker, if one has come. An update stays as it is until the next poll."""
        status = self._status
        if not self._probe(self._mpi.ANY_SOURCE, self._mpi.ANY_TAG, status):
            return None
        worker, tag, size = status.source, status.tag, status.count
        if tag != Tag.UPDATE:
            return Letter(Tag(tag), worker, self._receive(worker, tag))
        if size > len(self._updates):
            self._updates = np.empty(size + size // 2, np.uint8)
        self._comm.Recv(self._updates, worker, tag)
        return Letter(Tag.UPDATE, worker, self._updates[:size])

    def worker_reuse_update(self) -> None:
        """Wait until the last update has left, which it has once its reply has come: its memory is free again."""
        self._wait_until_left(SERVER, Tag.UPDATE)

    def server_reuse_reply(self, worker: int) -> None:
        """Wait until the last reply to this worker has left, which it has once the next update has come."""
        self._wait_until_left(worker, Tag.REPLY)

    def server_reply(self, worker: int, reply: Bytes) -> None:
        """Answer a worker's update; waits only for the answer before it to leave, which it has."""
        self._send(worker, Tag.REPLY, reply)

    def delegate_send_turns(self, turns: NDArray[np.float64]) -> None:
        """Send the server the records of the turns that are in the update sent next, as in `turn_statistics`."""
        self._send(SERVER, Tag.TURNS, turns.view(np.uint8).ravel())

    # --- the end
    def worker_leave(self) -> None:
        """Tell the server that this worker was told to stop and leaves; waits until all it sent has left."""
        self._send(SERVER, Tag.GONE, NOTHING)
        self.wait_until_sent()

    def wait_until_sent(self) -> None:
        """Wait until every message this rank has sent has left."""
        for key in list(self._sends):
            self._wait_until_left(*key)

    def abort(self, exit_code: int) -> None:
        """End every rank of the job at once."""
        self._comm.Abort(exit_code)

    # --- below the pairs; what is sent is bytes, and a status counts them
    def _workers_here(self) -> MPI.Comm:
        """Return the workers on this node. Collective among the workers."""
        return self._crew.Split_type(self._mpi.COMM_TYPE_SHARED)

    def _send(self, rank: int, tag: Tag, content: Bytes) -> None:
        self._wait_until_left(rank, tag)
        self._sends[rank, tag] = (self._comm.Isend(content, rank, tag), content)

    def _wait_until_left(self, rank: int, tag: Tag, meanwhile: Work | None = None) -> None:
        if not self._has_left(rank, tag):
            self.wait_until(lambda: self._has_left(rank, tag), meanwhile)

    def _has_left(self, rank: int, tag: Tag) -> bool:
        """Tell whether the last message of this tag to that rank has left; if so, let go of its memory."""
        under_way = self._sends.get((rank, tag))
        if under_way is None or not under_way[0].Test():
            return under_way is None
        del self._sends[rank, tag]
        return True

    def _probe(self, rank: int, tag: int, status: MPI.Status | None = None) -> bool:
        """Tell whether a message has come. MPICH's probe looks first and then fetches: the next one sees what came."""
        return self._comm.Iprobe(rank, tag, status) or self._comm.Iprobe(rank, tag, status)

    def _await(self, rank: int, tag: Tag) -> Bytes:
        """Wait for a message and return it."""
        self.wait_until(lambda: self._probe(rank, tag))
        return self._receive(rank, tag)

    def _move_messages(self) -> bool:
        """Let messages under way move on, and with them what a rank still waits for that is not here; no other work."""
        self._comm.Iprobe()
        return False

    def _receive(self, rank: int, tag: int) -> Bytes:
        """Receive a message that a probe has seen."""
        status = self._mpi.Status()
        self._comm.Probe(rank, tag, status)
        content = np.empty(status.count, np.uint8)
        self._comm.Recv(content, rank, tag)
        return content

    def _wait(self, collective: MPI.Request) -> None:
        poll(collective.Test, None, Backoff(YIELDS_FOR_COLLECTIVE))
