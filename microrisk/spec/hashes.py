"""The two identities of the specification. Neither covers prose: wording may change without a rebuild."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from microrisk.spec import features, formats, iex, messages, records, weightfile


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _message_facts(m: messages.Message) -> list[Any]:
    return [m.code, m.name, m.length, [[f.name, f.offset, f.size, f.kind] for f in m.fields]]


def _record_facts(dtype: np.dtype[Any]) -> list[Any]:
    fields: Mapping[str, Any] = dtype.fields or {}
    return [dtype.itemsize, [[n, str(fields[n][0]), fields[n][1]] for n in dtype.names or ()]]


def abi_hash() -> str:
    """Records, enumerations and message layouts; compiled into the extension."""
    msgs = [_message_facts(m) for m in (*messages.ITCH, messages.MOLD_HEADER, messages.DBN_MBO)]
    msgs += [[*_message_facts(m), list(p)] for m, p in ((iex.SEGMENT, ()), *((m.layout, m.protocols) for m in iex.IEX))]
    recs = {n: _record_facts(d) for n, d in records.RECORDS.items()}
    enums = {n: {k: v.value for k, v in e.__members__.items()} for n, e in records.ENUMS.items()}
    return _digest([msgs, recs, enums])


def format_hash() -> str:
    """Feature order and versions, number formats, weight layout; in weight files and hardware text."""
    feats = [[f.index, f.name, f.version] for f in features.FEATURES]
    numbers = {
        k: [v.width, v.frac, v.signed] if isinstance(v, formats.Format) else v
        for k, v in vars(formats).items()
        if k.isupper() and isinstance(v, int | formats.Format)
    }
    layers = {n: list(v) for n, v in weightfile.LAYERS.items()}
    tensors = {n: [d, list(s)] for n, (d, s) in weightfile.TENSORS.items()}
    return _digest([feats, numbers, list(weightfile.HEADS), layers, tensors])
