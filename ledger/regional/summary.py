"""What a region tells the wide area of a window that has ended (SPEC 13.2).

A summary follows from the regional chain up to its last height and from nothing else, so whoever
has the chain makes the same one.
"""

from ledger.protocol.cose import payload_digest
from ledger.regional.aggregate import Aggregate
from ledger.regional.application import RegionalApplication
from ledger.wide.summary import MAX_ADJUSTMENTS, Summary


def summarise(
    application: RegionalApplication, to_height: int, aggregate: Aggregate, wide_chain: bytes
) -> Summary:
    """Give the summary of a window that ended at ``to_height`` (``Blocks.windows_after``).

    ``wide_chain`` is the 8-byte id of the wide-area chain that it is for.
    """
    width = application.genesis.parameters.window_rounds
    from_round = aggregate.window * width
    late = sorted(aggregate.adjustments.items())[:MAX_ADJUSTMENTS]
    return Summary(
        chain=wide_chain,
        region=application.genesis.chain,
        from_height=aggregate.from_height - 1,
        to_height=to_height,
        from_round=from_round,
        to_round=from_round + width - 1,
        energy_in=aggregate.energy_in,
        energy_out=aggregate.energy_out,
        power=aggregate.power,
        voltage=aggregate.voltage,
        frequency=aggregate.frequency,
        accepted=aggregate.accepted,
        rejected=aggregate.rejected,
        unconfirmed=aggregate.unconfirmed,
        members=aggregate.members,
        alarms=aggregate.alarms,
        witnessed_height=aggregate.witnessed,
        witnessed_digest=_head_digest(application, aggregate.witnessed),
        log_size=to_height,
        log_root=application.log.root(to_height),
        adjustments=tuple((window, n[0], n[1], n[2]) for window, n in late),
    )


def _head_digest(application: RegionalApplication, height: int) -> bytes:
    if height == 0:
        return application.genesis.digest
    return payload_digest(application.blocks.head(height).payload())
