"""The state of an algorithm as bytes: what a store keeps, and how it is read back."""

from aiostorage._core.state.codec import MsgpackCodec, PickleCodec, StateCodec, state_codec

__all__ = ["MsgpackCodec", "PickleCodec", "StateCodec", "state_codec"]
