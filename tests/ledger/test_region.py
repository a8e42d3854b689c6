"""The folder of a region (ledger.region)."""

import sqlite3
from pathlib import Path

import pytest

from ledger.region import RegionDirectory, RegionError
from ledger.store import StoreError
from tests.ledger.regional.generate import Play, Region, region_folder


@pytest.fixture
def directory(tmp_path: Path) -> RegionDirectory:
    play = Play(Region(size=4, cluster_size=4), RegionDirectory(tmp_path).regional)
    for _ in range(6):
        play.play()
    folder = region_folder(tmp_path, play)
    play.close()
    return folder


def test_files_lie_where_the_layout_says(tmp_path: Path) -> None:
    d = RegionDirectory(tmp_path)
    paths = [d.genesis, d.wide_genesis, d.config, d.gateway_key, d.regional, d.wide, d.queue]
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "genesis.cbor",
        "wide-genesis.cbor",
        "gateway.toml",
        "keys/gateway.key",
        "ledger/regional.sqlite",
        "ledger/wide.sqlite",
        "gateway/queue.sqlite",
    ]


def test_opened_chains_stand_where_they_were(directory: RegionDirectory) -> None:
    regional, wide = directory.open_regional(), directory.open_wide()
    assert (regional.height, wide.height) == (6, 1)
    assert wide.state.region(regional.genesis.chain).to_height == 5
    regional.close()
    wide.close()


def test_reader_may_come_while_the_owner_writes(directory: RegionDirectory) -> None:
    owner = directory.open_regional()
    with pytest.raises(StoreError, match="in use"):
        directory.open_regional()
    reader = directory.open_regional(read_only=True)
    assert reader.info() == owner.info()
    reader.close()
    owner.close()


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM state WHERE key=(SELECT max(key) FROM state)",
        "UPDATE history SET digest=zeroblob(32)",
    ],
)
def test_nobody_builds_on_a_state_that_is_not_the_newest_heads(
    directory: RegionDirectory, change: str
) -> None:
    sql = sqlite3.connect(directory.regional, isolation_level=None)
    assert sql.execute(change).rowcount > 0
    sql.close()
    with pytest.raises(StoreError, match="its state is not the one of block 6"):
        directory.open_regional()
    directory.open_regional(read_only=True).close()


def test_missing_genesis_names_the_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RegionError, match=r"does not exist.*name the folder"):
            RegionDirectory(path).load_genesis()


@pytest.mark.parametrize("data", [b"", b"\x00" * 40, b"\x83\x01\x01\x60"])
def test_broken_genesis_says_what_to_do(directory: RegionDirectory, data: bytes) -> None:
    directory.genesis.write_bytes(data)
    with pytest.raises(RegionError, match="copy it anew"):
        directory.open_regional()


def test_genesis_of_the_other_chain_is_refused(directory: RegionDirectory) -> None:
    directory.wide_genesis.write_bytes(directory.genesis.read_bytes())
    with pytest.raises(RegionError, match="not the genesis of a wide-area chain"):
        directory.load_wide_genesis()


def test_genesis_that_is_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "genesis.cbor").mkdir()
    with pytest.raises(RegionError, match="cannot be read"):
        RegionDirectory(tmp_path).load_genesis()
