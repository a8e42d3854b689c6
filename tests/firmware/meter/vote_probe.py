"""One meter's votes over rounds given on standard input, on either interpreter.

Input is lines of CBOR in hexadecimal: first [round length, [neighbour's address, …]], then a round
each, [own payload, [[address, digest, payload], …]]. Output is one line a round, the ballot's
payload in hexadecimal, and at the end what the voter would save.
"""

import sys
from binascii import hexlify, unhexlify

from firmware.meter.voter import Voter
from ledger.protocol import cbor, records


def main():
    voter = None
    for line in sys.stdin:
        row = cbor.loads(unhexlify(line.strip()))
        if voter is None:
            voter = Voter(bytes(8), row[0], row[1])
            continue
        voter.open_round(records.decode(row[0]))
        for address, digest, payload in row[1]:
            voter.take(address, records.decode(payload), digest)
        print(hexlify(voter.vote(bytes(32)).payload()).decode())
    print(hexlify(voter.export()).decode())


main()
