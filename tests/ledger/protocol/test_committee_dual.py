"""Rounds and committees (SPEC sections 7 and 8) on both interpreters."""

from ledger.protocol import committee
from tests.vector_files import load, unhex


def _draw(case, candidates):
    return committee.draw(
        unhex(case["seed"]), case["term"], unhex(case["meter"]), candidates, case["k"]
    )


def test_committees_are_those_of_the_vectors():
    for case in load("committee")["draws"]:
        candidates = [unhex(voter) for voter in case["candidates"]]
        expected = [unhex(voter) for voter in case["committee"]]
        assert _draw(case, candidates) == expected, case["note"]
        assert len(expected) == committee.seats(case["k"], len(candidates)), case["note"]


def test_the_order_of_candidates_is_irrelevant():
    for case in load("committee")["draws"]:
        candidates = [unhex(voter) for voter in case["candidates"]]
        backwards = list(reversed(candidates))
        rotated = candidates[5:] + candidates[:5]
        assert _draw(case, candidates) == _draw(case, backwards) == _draw(case, rotated)


def test_drawing_leaves_the_candidates_as_they_are():
    candidates = [bytes([i]) * 16 for i in range(20, 0, -1)]
    before = list(candidates)
    committee.draw(bytes(32), 1, bytes(16), candidates, 5)
    assert candidates == before


def test_all_of_up_to_twelve_candidates_sit_and_k_of_more():
    assert [committee.seats(5, n) for n in (0, 1, 3, 12, 13, 100)] == [0, 1, 3, 12, 5, 5]
    assert [committee.seats(50, n) for n in (12, 13, 49, 50, 51)] == [12, 13, 49, 50, 50]
