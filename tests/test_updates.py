"""Updates and replies come out of their rooms as they went in, and none is larger than it need be."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exchange import pairs
from mpisgd.exchange_loops import PAIR, Content
from mpisgd.messages import Bytes
from mpisgd.updates import (
    Keys,
    ReplyHeader,
    ReplyRoom,
    Room,
    UpdateHeader,
    UpdateRoom,
    largest_reply,
    unpack_reply,
    unpack_update,
)
from strategies import examples, vectors

PLACES = 8
counts = st.integers(0, 2**62)
numbers = st.floats(allow_nan=False)
float32s = st.floats(width=32, allow_nan=False)
turns = st.integers(-1, 2**31 - 1)
update_headers = st.builds(
    UpdateHeader,
    version=counts,
    rows=counts,
    moved=counts,
    changes=counts,
    decay=numbers,
    round_trip=float32s,
    computing=float32s,
    waiting=float32s,
    turn=turns,
    wanted=turns,
)
reply_headers = st.builds(
    ReplyHeader, stop=st.booleans(), version=counts, rows=counts, scale=numbers, log_folded=numbers
)
lists_of_keys = st.lists(st.integers(0, 2**31 - 1), max_size=PLACES).map(lambda keys: np.array(keys, np.int32))


@st.composite
def contents(draw: st.DrawFn) -> Content:
    """Values, or no more pairs than take as many bytes as values of all places; none of either among them."""
    if draw(st.booleans()):
        return draw(vectors(draw(st.integers(0, PLACES)), float32s))
    places = draw(st.lists(st.integers(0, 2**31 - 1), max_size=PLACES // 2))
    return pairs(places, draw(vectors(len(places), float32s)))


updates = st.tuples(update_headers, contents(), lists_of_keys, lists_of_keys)
replies = st.tuples(reply_headers, contents())


def put(room: Room, content: Content) -> Content:
    """Write the content where a message has it."""
    there: Content = room.pairs(len(content)) if content.dtype == PAIR else room.values(len(content))
    there[:] = content
    return there


def update(room: UpdateRoom, header: UpdateHeader, content: Content, keys: Keys, wanted: Keys) -> Bytes:
    return room.seal(header, put(room, content), keys, wanted)


def reply(room: ReplyRoom, header: ReplyHeader, content: Content) -> Bytes:
    return room.seal(header, put(room, content))


def assert_same(found: Content, sent: Content) -> None:
    """Bit for bit, the sign of a zero as well."""
    assert found.dtype == sent.dtype
    assert found.tobytes() == sent.tobytes()


@examples
@given(updates)
def test_updates(sent: tuple[UpdateHeader, Content, Keys, Keys]) -> None:
    header, *arrays = unpack_update(update(UpdateRoom(PLACES), *sent))
    assert header == sent[0]
    for found, before in zip(arrays, sent[1:], strict=True):
        assert_same(found, before)


@examples
@given(replies)
def test_replies(sent: tuple[ReplyHeader, Content]) -> None:
    header, content = unpack_reply(reply(ReplyRoom(PLACES), *sent))
    assert header == sent[0]
    assert_same(content, sent[1])


@examples
@given(updates, updates)
def test_an_update_has_nothing_of_the_one_before_it_in_its_room(
    first: tuple[UpdateHeader, Content, Keys, Keys], second: tuple[UpdateHeader, Content, Keys, Keys]
) -> None:
    room = UpdateRoom(PLACES)
    update(room, *first)
    np.testing.assert_array_equal(update(room, *second), update(UpdateRoom(PLACES), *second))


@examples
@given(replies, replies)
def test_a_reply_has_nothing_of_the_one_before_it_in_its_room(
    first: tuple[ReplyHeader, Content], second: tuple[ReplyHeader, Content]
) -> None:
    room = ReplyRoom(PLACES)
    reply(room, *first)
    np.testing.assert_array_equal(reply(room, *second), reply(ReplyRoom(PLACES), *second))


UPDATE = UpdateHeader(version=1, rows=1, moved=1, changes=1, decay=1.0, round_trip=0.0, computing=0.0, waiting=0.0)
REPLY = ReplyHeader(stop=False, version=1, rows=1, scale=1.0, log_folded=0.0)


def test_a_message_of_nothing_is_not_one_of_everything() -> None:
    """Pairs of no place say that nothing changed; values of no place are all there are of no column."""
    for nothing in (pairs([], []), np.empty(0, np.float32)):
        room = UpdateRoom(PLACES)
        assert_same(unpack_update(room.seal(UPDATE, put(room, nothing)))[1], nothing)
        assert_same(unpack_reply(reply(ReplyRoom(PLACES), REPLY, nothing))[1], nothing)


@examples
@given(updates)
def test_a_message_is_no_longer_than_what_it_says(sent: tuple[UpdateHeader, Content, Keys, Keys]) -> None:
    header, content, keys, wanted = sent
    no_update, no_reply = UpdateRoom(0).seal(UPDATE, pairs([], [])), ReplyRoom(0).seal(REPLY, pairs([], []))
    assert max(len(no_update), len(no_reply)) <= 80
    message = update(UpdateRoom(PLACES), *sent)
    assert len(message) == len(no_update) + content.nbytes + keys.nbytes + wanted.nbytes
    assert len(reply(ReplyRoom(PLACES), REPLY, content)) == len(no_reply) + content.nbytes
    assert header == unpack_update(message)[0]


@examples
@given(replies)
def test_no_reply_that_fits_its_room_is_larger_than_the_largest(sent: tuple[ReplyHeader, Content]) -> None:
    assert len(reply(ReplyRoom(PLACES), *sent)) <= largest_reply(PLACES)


def test_a_dense_vector_is_little_more_than_its_numbers() -> None:
    assert largest_reply(1000) - 4 * 1000 <= 80
    room = UpdateRoom(1000)
    assert len(room.seal(UPDATE, put(room, np.ones(1000, np.float32)))) - 4 * 1000 <= 80
