"""Work is handed out once, and again where it was lost; the first answer counts."""

import random

from hypothesis import given
from hypothesis import strategies as st

from metaloss.engines.orders import Cancel, Kill, Limits, Piece, Send
from metaloss.engines.scheduling import Scheduler

LIMITS = Limits(seconds=1.0, late=3.0, measured=2, silence=60.0)


def pieces(n, cost=1.0, **more):
    return [Piece(number, cost, **more) for number in range(n)]


def scheduler(workers=2, work=(), limits=LIMITS):
    made = Scheduler(limits)
    for worker in range(workers):
        made.joined(worker)
    made.add(work)
    return made


def sends(orders):
    return [order for order in orders if isinstance(order, Send)]


def test_each_worker_gets_the_next_piece():
    s = scheduler(2, pieces(4))
    assert [x.pieces for x in sends(s.orders(0.0))] == [(0,), (1,)]
    assert s.answered(0, 0, 1.0)
    assert [x.pieces for x in sends(s.orders(1.0))] == [(2,)]


def test_pieces_of_a_group_go_together():
    s = scheduler(2, [Piece(n, 1.0, group=n // 2) for n in range(6)])
    assert [x.pieces for x in sends(s.orders(0.0))] == [(0, 1), (2, 3)]


def test_small_pieces_make_a_call_of_about_a_second_once_their_time_is_known():
    s = scheduler(1, pieces(100))
    for number in range(2):
        s.orders(0.0)
        s.answered(0, number, 0.1)
    (order,) = sends(s.orders(0.0))
    assert len(order.pieces) == 10


def test_two_calls_are_left_for_every_worker():
    s = scheduler(2, pieces(12))
    for number in range(2):
        s.orders(0.0)
        s.answered(number % 2, number, 0.01)
    assert max(len(x.pieces) for x in sends(s.orders(0.0))) <= 3


def test_kinds_of_work_do_not_mix():
    s = scheduler(1, [Piece(0, 1.0, kind="a"), Piece(1, 1.0, kind="b")])
    assert [x.pieces for x in sends(s.orders(0.0))] == [(0,)]


def test_an_idle_worker_does_what_another_has_not_answered_and_the_slower_one_is_told():
    s = scheduler(2, pieces(1))
    first, second = sends(s.orders(0.0))
    assert (first.call, second.call) == (0, 0)
    assert s.resent == 1
    assert s.answered(1, 0, 1.0)
    assert s.orders(1.0) == [Cancel(0, 0)]
    assert not s.unfinished
    assert not s.answered(0, 0, 1.5)  # twice
    assert set(s.idle) == {0, 1}


def test_at_most_so_many_do_the_same():
    s = scheduler(9, pieces(1))
    assert len(sends(s.orders(0.0))) == LIMITS.copies


def test_what_a_lost_worker_had_comes_first():
    s = scheduler(2, pieces(4))
    s.orders(0.0)
    s.left(0)
    s.joined(2)
    assert [(x.worker, x.pieces) for x in sends(s.orders(1.0))] == [(2, (0,))]


def test_the_only_worker_may_be_lost_while_another_joins():
    s = scheduler(1, pieces(1))
    s.orders(0.0)
    s.left(0)
    assert s.orders(1.0) == []
    assert s.unfinished
    s.joined(1)
    assert [x.pieces for x in sends(s.orders(2.0))] == [(0,)]


def test_two_workers_lost_at_once_over_one_call_have_it_done_once():
    s = scheduler(2, pieces(1))
    assert len(sends(s.orders(0.0))) == 2
    s.left(0)
    s.left(1)
    s.joined(2)
    assert [(x.worker, x.pieces) for x in sends(s.orders(1.0))] == [(2, (0,))]
    s.joined(3)
    assert s.answered(2, 0, 1.0)
    assert sends(s.orders(2.0)) == []
    assert not s.unfinished


def test_three_workers_lost_over_a_piece_give_it_up():
    s = scheduler(1, pieces(1))
    for worker in range(3):
        s.joined(worker)
        assert sends(s.orders(0.0))
        s.left(worker)
    assert s.given_up == [0]
    assert not s.unfinished


def test_a_call_of_several_is_taken_apart_before_a_piece_is_given_up():
    s = scheduler(0, [Piece(n, 1.0, group="one") for n in range(2)])
    worker = 0
    while s.unfinished:
        worker += 1
        s.joined(worker)
        (order,) = sends(s.orders(0.0))
        if 1 not in order.pieces:
            s.answered(worker, order.call, 1.0)
        s.left(worker)
    assert s.given_up == [1]


def test_a_late_call_is_sent_again_before_the_queue():
    s = scheduler(1, pieces(9))
    for number in range(2):
        s.orders(0.0)
        s.answered(0, number, 1.0)
    assert [x.call for x in sends(s.orders(0.0))] == [2]
    s.joined(1)
    assert [x.call for x in sends(s.orders(2.9))] == [3]
    assert s.next_look() == 3.0
    s.answered(1, 3, 1.0)
    assert [(x.worker, x.call) for x in sends(s.orders(3.0))] == [(1, 2)]


def test_a_worker_that_is_silent_for_too_long_is_ended():
    s = scheduler(1, pieces(1))
    s.orders(0.0)
    assert s.orders(59.0) == []
    assert s.orders(60.0) == [Kill(0)]


def test_nobody_knows_how_long_a_first_training_takes():
    s = scheduler(1, pieces(1, endless=True))
    s.orders(0.0)
    assert s.orders(1e6) == []


def test_a_dropped_call_that_is_wanted_is_done_again():
    s = scheduler(1, pieces(1))
    s.orders(0.0)
    assert not s.answered(0, 0)
    assert [x.pieces for x in sends(s.orders(1.0))] == [(0,)]


def test_abandoned_work_is_forgotten_and_its_late_answer_too():
    s = scheduler(1, pieces(3))
    s.orders(0.0)
    assert s.abandon() == [0]
    assert not s.unfinished
    assert not s.answered(0, 0, 1.0)
    s.add(pieces(1))
    assert [x.pieces for x in sends(s.orders(1.0))] == [(0,)]


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 5))
def test_whatever_happens_every_piece_is_answered_once(seed, count, workers):
    draw = random.Random(seed)
    s = Scheduler(Limits(seconds=2.0, measured=2, silence=8.0, failures=10**9))
    s.add(Piece(n, draw.choice([0.5, 1.0, 3.0]), n // 3, n // 10) for n in range(count))
    names = iter(range(10**9))
    alive = set()
    at_work = {}  # by worker and call
    answers = []
    now = 0.0
    while s.unfinished:
        now += draw.random()
        while len(alive) < workers and draw.random() < 0.7:
            worker = next(names)
            alive.add(worker)
            s.joined(worker)
        for order in s.orders(now):
            if isinstance(order, Send):
                assert order.worker in alive
                at_work[order.worker] = order
            elif isinstance(order, Kill):
                alive.discard(order.worker)
                at_work.pop(order.worker, None)
                s.left(order.worker)
        for worker in sorted(alive & at_work.keys()):
            what = draw.random()
            if what < 0.15:  # killed at any moment
                alive.discard(worker)
                del at_work[worker]
                s.left(worker)
            elif what < 0.6:
                order = at_work.pop(worker)
                if s.answered(worker, order.call, 1.0):
                    answers += order.pieces
                if draw.random() < 0.1:  # an answer that comes twice
                    assert not s.answered(worker, order.call, 1.0)
    assert sorted(answers) == list(range(count))
    assert not s.given_up
