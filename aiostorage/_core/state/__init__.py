"""The state of an algorithm as bytes: what a store keeps, and how it is read back."""

from aiostorage._core.state.codec import MsgpackCodec, PickleCodec, StateCodec, state_codec
from aiostorage._core.state.envelope import MAX_INFLATED, unwrapped_size

__all__ = [
    "MAX_INFLATED",
    "MsgpackCodec",
    "PickleCodec",
    "StateCodec",
    "state_codec",
    "unwrapped_size",
]
