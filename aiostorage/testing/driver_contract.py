"""stub."""
__all__ = ["DriverContract"]
class DriverContract:
    pass
