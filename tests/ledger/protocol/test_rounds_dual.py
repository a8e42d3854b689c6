"""Rounds, terms and epochs (SPEC section 7) on both interpreters."""

from ledger.protocol import rounds
from tests.vector_files import load


def test_rounds_terms_and_epochs_are_those_of_the_vectors():
    for case in load("committee")["rounds"]:
        round_, round_s = case["round"], case["round_s"]
        assert rounds.round_of(case["first_s"], round_s) == round_
        assert rounds.round_of(case["last_s"], round_s) == round_
        assert rounds.round_of(case["last_s"] + 1, round_s) == round_ + 1
        assert rounds.end_of(round_, round_s) == case["end_s"]
        assert rounds.term_of(round_) == case["term"]
        assert rounds.epoch_of(round_) == case["epoch"]
        assert rounds.next_epoch_start(round_) == case["next_epoch_start"]


def test_an_epoch_is_128_whole_terms_of_32_rounds():
    assert rounds.TERM_ROUNDS == 32
    assert rounds.EPOCH_ROUNDS == 4096
    for epoch in (0, 1, 7210):
        first = epoch * rounds.EPOCH_ROUNDS
        assert rounds.epoch_of(first) == rounds.epoch_of(first + 4095) == epoch
        assert rounds.term_of(first) % rounds.EPOCH_TERMS == 0
        assert rounds.next_epoch_start(first - 1) == first
