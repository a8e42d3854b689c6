"""Hypothesis strategies over the wire: records that are valid, and bytes that nearly are."""

from hypothesis import strategies as st

from ledger.protocol import quantities, records
from tests.vector_files import load
from tools.vectors.wire import cbor as reference

u32 = st.integers(0, 2**32 - 1)
positive = st.integers(1, 2**32 - 1)
times = st.integers(0, 2**40 - 1)
chains = st.binary(min_size=8, max_size=8)
digests = st.binary(min_size=32, max_size=32)
keys = st.binary(min_size=33, max_size=33)
cluster_names = st.from_regex(r"\A[A-Za-z0-9_-]{1,32}\Z")
codes = [row.code for row in quantities.TABLE]
measured = st.dictionaries(st.sampled_from(codes), st.integers(-(2**62), 2**62), min_size=1)
verdicts = st.sampled_from([0, 1, *range(16, 64)])
ballots = st.dictionaries(digests, verdicts, max_size=24)

readings = st.builds(
    records.Reading,
    chains,
    positive,
    positive,
    times,
    st.integers(1, 86_400),
    st.integers(0, 15),
    u32,
    digests,
    measured.map(lambda found: sorted(found.items())),
)
valid_records = st.one_of(
    readings,
    st.builds(records.Ballot, chains, u32, digests, ballots.map(lambda b: list(b.items()))),
    st.builds(records.Head, chains, positive, u32, times, *[digests] * 2, u32, *[digests] * 3),
    st.builds(records.RegistryChange, chains, positive, st.just(1), keys, cluster_names),
    st.builds(records.RegistryChange, chains, positive, st.just(2), keys, st.just("")),
    st.builds(records.Close, chains, u32),
    st.builds(records.Enrolment, chains, keys, st.text(max_size=64)),
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.integers(-1, 70)
    | st.binary(max_size=3)
    | st.sampled_from([bytes(n) for n in (8, 31, 32, 33, 64)])
    | st.text(max_size=3)
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=5), max_leaves=12)


@st.composite
def mutations(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Bytes of one of the seeds with a few changed, put in, taken out or repeated."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        end = at + draw(st.integers(0, 4))
        data[at:end] = draw(st.binary(max_size=4) | st.just(bytes(data[at:end]) * 2))
    return bytes(data)


def arrays(*heads: object) -> st.SearchStrategy[bytes]:
    """Encoded arrays that start as given and go on with anything of the profile."""
    rest = st.lists(values, max_size=15)
    return rest.map(lambda items: reference([*heads, *items]))


def seeds(name: str, *groups: str, key: str) -> list[bytes]:
    """Byte strings of a vector file."""
    content = load(name)
    return [bytes.fromhex(case[key]) for group in groups for case in content[group]]
