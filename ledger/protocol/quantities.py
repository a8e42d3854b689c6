"""The quantities that a reading may carry (SPEC section 5): code, OBIS code, unit, plausible range.

Every value is an integer in thousandths of the unit. A code that is not in this table makes a
record of version 1 malformed. OBIS codes: IEC 62056-6-1, medium 1 (electricity), channel 0.
"""

try:
    from micropython import const
except ImportError:

    def const(value: int) -> int:
        """Stand in for MicroPython's compile-time constant."""
        return value


VOLTAGE = const(1)
CURRENT = const(2)
ACTIVE_POWER = const(3)
REACTIVE_POWER = const(4)
FREQUENCY = const(5)
ENERGY_IMPORT = const(6)
ENERGY_EXPORT = const(7)

_REGISTER_MAX = const(9_999_999_999_999)  # mWh: ten digits of a kWh register with three decimals


class Quantity:
    """One row: ``code``, ``name``, ``obis``, ``unit``, and the range [``low``, ``high``]."""

    def __init__(self, code: int, name: str, obis: str, unit: str, low: int, high: int) -> None:
        self.code = code
        self.name = name
        self.obis = obis
        self.unit = unit
        self.low = low
        self.high = high


# Ranges are what a low-voltage meter can show at all, not what is usual: EN 50160 allows 230 V
# +10/-15 %, an open neutral gives up to 400 V, a dead phase 0; 100 A and 3 phases are the largest
# direct-connected meters. Outside of it a reading is rejected, inside the judge looks closer.
TABLE = (
    Quantity(VOLTAGE, "voltage", "1-0:32.7.0", "V", 0, 500_000),
    Quantity(CURRENT, "current", "1-0:31.7.0", "A", 0, 2_000_000),
    Quantity(ACTIVE_POWER, "active power", "1-0:16.7.0", "W", -1_000_000_000, 1_000_000_000),
    Quantity(REACTIVE_POWER, "reactive power", "1-0:131.7.0", "var", -(10**9), 10**9),
    Quantity(FREQUENCY, "frequency", "1-0:14.7.0", "Hz", 40_000, 70_000),
    Quantity(ENERGY_IMPORT, "energy import", "1-0:1.8.0", "Wh", 0, _REGISTER_MAX),
    Quantity(ENERGY_EXPORT, "energy export", "1-0:2.8.0", "Wh", 0, _REGISTER_MAX),
)
BY_CODE = {row.code: row for row in TABLE}


def in_range(code: int, value: int) -> bool:
    """Tell whether a value lies in the plausible range of a known quantity."""
    row = BY_CODE[code]
    return row.low <= value <= row.high
