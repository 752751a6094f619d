"""The values of options that both the arguments of the server and the journal use. It imports nothing heavy."""

from typing import Literal

Observations = Literal["full", "digest", "none"]
"""How observations are recorded: whole, as the BLAKE2b hash of their bytes, or not at all."""

Full = Literal["drop", "refuse"]
"""What happens while decisions cannot be recorded: they are answered and dropped, or refused."""
