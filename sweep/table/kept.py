"""Kept probes: the weights of a curve's chosen probes, one file under the curve's key, only where a config asks."""

from __future__ import annotations

from sweep.base.store import Store

KEPT = "kept/"
FITS = "fits/"  # fitted probes of curves that failed after that, for their next attempt
_BY = {"best": ("best", "all"), "all": ("all",)}  # which files serve a wish


def kept_curves(store: Store, wish: str) -> frozenset[str]:
    """Keys of the curves whose probes are kept as far as ``best`` or ``all`` asks."""
    endings = tuple(f".{which}.safetensors" for which in _BY[wish])
    names = (name.removeprefix(KEPT) for name in store.names(KEPT))
    return frozenset(name.partition(".")[0] for name in names if name.endswith(endings))


def is_kept(store: Store, curve_key: str, wish: str) -> bool:
    """The same of one curve."""
    return any(store.exists(_name(curve_key, which)) for which in _BY[wish])


def write_kept(store: Store, curve_key: str, which: str, data: bytes) -> None:
    """Publish a curve's probes, all at once; those of all layers replace that of the best."""
    store.put(_name(curve_key, which), data)
    if which == "all":
        store.delete(_name(curve_key, "best"))


def read_kept(store: Store, curve_key: str) -> bytes | None:
    """A curve's probes, of all layers if there are; None if none are kept."""
    for which in _BY["best"][::-1]:
        try:
            return store.get(_name(curve_key, which))
        except FileNotFoundError:
            continue
    return None


def drop_kept(store: Store, curve_key: str) -> None:
    """Remove a curve's probes: they are damaged, and another run keeps them anew."""
    for which in _BY["best"]:
        store.delete(_name(curve_key, which))


def forget_fits(store: Store) -> None:
    """Remove saved fits: nobody asks for their curves, or these were published just before a process was killed."""
    for name in store.names(FITS):
        store.delete(name)


def _name(curve_key: str, which: str) -> str:
    return f"{KEPT}{curve_key}.{which}.safetensors"
