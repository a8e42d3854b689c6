"""How long a block of a thousand meters takes: printed (`pytest -s`), not asserted."""

import time

from ledger.protocol import records
from tests.ledger.regional.lab import FIRST, Lab

METERS, CLUSTER = 1000, 25


def test_block_of_a_thousand_meters():
    lab = Lab(METERS, cluster_size=CLUSTER)
    spent = []
    for round_ in range(FIRST, FIRST + 3):
        readings = [lab.reading(i, round_) for i in range(METERS)]
        ballots = []
        for i in range(METERS):
            first = i // CLUSTER * CLUSTER
            others = [first + (i - first + step) % CLUSTER for step in range(1, 15)]
            ballots.append(lab.ballot(i, round_, [(readings[j], records.ACCEPT) for j in others]))
        for envelope in (*readings, *ballots):
            lab.app.verifier.admit(envelope, records.decode(envelope.payload))
        begin = time.process_time()
        block = lab.close(round_, *readings, *ballots)
        spent.append(time.process_time() - begin)
        assert len(block.records) == 2 * METERS
    line = ", ".join(f"{1000 * s:.0f}" for s in spent)
    print(f"{2 * METERS} records checked beforehand, CPU ms to apply them as a block: {line}")
    lab.database.close()
