"""Layout of `model.safetensors`: tensor names, dtypes, shapes. F = features, P = 64 table points.

A layer NAME has three tensors: NAME.weight int8[out, in], NAME.bias int32[out], NAME.shift uint8[out].
A table NAME has three tensors: NAME.breaks int32[..., P], NAME.value int32[..., P], NAME.slope int32[..., P+1]
(meaning: fixed.interpolate).
"""

from __future__ import annotations

from microrisk.spec.formats import TABLE_POINTS
from microrisk.spec.records import N_FEATURES, N_HEADS

HEADS = ("maxz", "maha", "vae", "exposure")
"""Order of head columns everywhere."""

LAYERS: dict[str, tuple[int, int, str]] = {
    # name: (out, in, activation); "acc" = the last row's int32 accumulator is the result
    "maha.0": (N_FEATURES, N_FEATURES, "linear"),
    "vae.enc.0": (24, N_FEATURES, "relu"),
    "vae.enc.1": (16, 24, "relu"),
    "vae.enc.2": (6, 16, "linear"),
    "vae.dec.0": (16, 6, "relu"),
    "vae.dec.1": (24, 16, "relu"),
    "vae.dec.2": (N_FEATURES, 24, "linear"),
    "exposure.0": (32, N_FEATURES, "relu"),
    "exposure.1": (16, 32, "relu"),
    "exposure.2": (1, 16, "acc"),
}

TENSORS: dict[str, tuple[str, tuple[int, ...]]] = {
    "vae.residual_exp": ("u1", (N_FEATURES,)),  # recon residual^2 << exp, 0..RESIDUAL_EXP_MAX
    "vae.latent_exp": ("u1", (1,)),  # sum mu^2 << exp
    # generic normaliser; an instrument's own is table/<ID>/... with the same shapes
    "table/generic.breaks": ("<i4", (N_FEATURES, TABLE_POINTS)),
    "table/generic.value": ("<i4", (N_FEATURES, TABLE_POINTS)),
    "table/generic.slope": ("<i4", (N_FEATURES, TABLE_POINTS + 1)),
    # level tables, one per (instrument or generic, mask): level/<ID>/<mask as 8 hex digits>.*
    "level/generic/ffffffff.breaks": ("<i4", (N_HEADS, TABLE_POINTS)),
    "level/generic/ffffffff.value": ("<i4", (N_HEADS, TABLE_POINTS)),
    "level/generic/ffffffff.slope": ("<i4", (N_HEADS, TABLE_POINTS + 1)),
    "level/generic/ffffffff.on": ("<i4", (N_HEADS,)),  # LEVEL code at which a head goes into alarm
    "level/generic/ffffffff.off": ("<i4", (N_HEADS,)),  # and leaves it
}
