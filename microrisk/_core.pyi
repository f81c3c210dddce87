"""Types and contracts of the compiled extension; import it through `microrisk.core`, which checks the build.

Record arrays have the dtypes of `microrisk.spec.records`, one dimension, contiguous. Prices and quantities are integers
in the feed's own units. Every run_* and decode releases the interpreter lock; an engine (and its decoder) works for one
thread at a time: while it runs, other threads may read its counters, anything else is refused (RuntimeError).
A buffer is any object with the buffer protocol (bytes, mmap, memoryview, array).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

ABI_HASH: str
"""abi_hash of the specification that the extension was built from."""
ALL_INSTRUMENTS: int
"""EVENT.instrument of a STATE that concerns every instrument (0xFFFFFFFF)."""

Records = NDArray[np.void]

class Heads:
    """All heads of one weight set on the CPU, in integers, equal to `microrisk.fixed` to the bit.

    Parameters
    ----------
    tensors : the layers, vae.residual_exp and vae.latent_exp, with names, dtypes and shapes of `spec.weightfile`;
        other names are ignored
    mask : bit f = feature f can be produced by the feed; a masked feature adds no residual

    Raises WeightFileError for a missing or wrong tensor, and for a row that could leave the accumulator.
    """

    vectorised: bool
    """Whether the AVX2 form is used; may be set, and stays False where the CPU has none."""
    def __init__(self, tensors: dict[str, NDArray[Any]], mask: int = 0xFFFFFFFF) -> None: ...
    def score(self, codes: NDArray[np.int8]) -> NDArray[np.int32]:
        """Codes (n, 32) to heads (n, 4): maxz, maha, vae, exposure."""

class ItchDecoder:
    """Nasdaq TotalView-ITCH 5.0 -> EVENT; keeps symbols, message counts and the place of the stream.

    A known type of another length, or with an impossible side, is malformed and skipped by its length prefix; an
    unknown type is skipped the same way. Length zero before a known type is the framing of some writers, otherwise the
    end mark. seq = 1-based number of the framed message; every event has LAST; S gives a STATE of ALL_INSTRUMENTS.

    Parameters
    ----------
    midnight_ns : UTC ns of the session date's midnight in New York, added to every time stamp
    loose_framing : the writer's length fields are wrong: a known type has its own length whatever the prefix says
    """

    def __init__(self, *, midnight_ns: int = 0, loose_framing: bool = False) -> None: ...
    def decode(self, data: Buffer, offset: int, out: Records) -> tuple[int, int]:
        """Events written to `out` (EVENT) and the new offset; stops when `out` is full or the rest is incomplete.

        An incomplete message stays at the new offset; behind the end mark everything is consumed as trailing.
        """
    def message(self, data: Buffer, seq: int, ts_recv: int, out: Records) -> int:
        """One bare message (a MoldUDP64 block) with its own sequence and receive time; 0 or 1 event in out[0]."""
    def symbols(self) -> dict[int, str]:
        """Locate -> symbol: from R, or from the first A, F or P of a locate that had no R."""
    def counts(self) -> dict[str, int]:
        """Well-formed messages by type code."""
    @property
    def messages(self) -> int:
        """Framed messages of every kind, malformed and unknown ones too."""
    @property
    def malformed(self) -> int: ...
    @property
    def unknown_type(self) -> int: ...
    @property
    def trailing(self) -> int:
        """Bytes behind the end mark."""
    @property
    def ended(self) -> bool:
        """An end mark was seen."""
    @property
    def first_ts(self) -> int:
        """Event time of the first well-formed message, ns; NULL_TS before it."""
    @property
    def last_ts(self) -> int: ...

class MoldCapture:
    """Captures (pcap, pcapng) of MoldUDP64 as one stream of messages; the rules of `microrisk.feed.mold` and `pcap`.

    Datagrams of several captures come in the order of capture.

    Parameters
    ----------
    captures : whole captures in memory, kept while this lives
    first : the first sequence expected; 0 takes what comes first

    Raises FeedError when one is no capture.
    """

    def __init__(self, captures: list[memoryview], *, first: int = 0) -> None: ...
    def decode(self, decoder: ItchDecoder, out: Records, max_messages: int) -> tuple[int, bool]:
        """Events written to `out`, and whether there is more.

        Stops when `out` is full, after `max_messages`, and before the first message behind a gap or a new session.
        """
    def blocks(self, max: int) -> list[tuple[int, int, bytes]]:
        """Up to `max` new messages: sequence, receive time (ns UTC, 0 = not known), bytes."""
    def counters(self) -> dict[str, int]:
        """What the transport met: names of `MoldCounters`, and `foreign` (segments of another protocol, IEX only)."""
    def captures(self) -> list[dict[str, int]]:
        """By capture: names of `CaptureCounters`."""
    def gaps(self, start: int = 0) -> list[tuple[bytes, int, int, int]]:
        """From gap number `start` on: session (raw bytes), first missing sequence, how many, receive time."""
    @property
    def progress(self) -> float:
        """Share of the captures' bytes read."""

class IexCapture:
    """Captures of IEX-TP segments of one message protocol; as `MoldCapture`, by the rules of `microrisk.feed.iex`."""

    def __init__(self, captures: list[memoryview], protocol: int) -> None: ...
    def decode(self, decoder: IexDecoder, out: Records, max_messages: int) -> tuple[int, bool]:
        """As `MoldCapture.decode`; `out` needs room for four events, the most that a message has.

        The call after a restart begins with a CLEAR for each instrument that had a book (`IexDecoder.clearing`).
        """
    def blocks(self, max: int) -> list[tuple[int, int, bytes]]: ...
    def counters(self) -> dict[str, int]: ...
    def captures(self) -> list[dict[str, int]]: ...
    def gaps(self, start: int = 0) -> list[tuple[bytes, int, int, int]]: ...
    @property
    def progress(self) -> float: ...

class IexDecoder:
    """Messages of TOPS, DEEP or DEEP+ -> EVENT; numbers the instruments as their symbols appear."""

    def __init__(self, protocol: int) -> None: ...
    def symbols(self) -> list[str]:
        """Symbols by instrument number."""
    def counts(self) -> dict[str, int]:
        """Well-formed messages by type code."""
    @property
    def messages(self) -> int:
        """Messages of every kind, malformed and unknown ones too."""
    @property
    def malformed(self) -> int: ...
    @property
    def unknown_type(self) -> int: ...
    @property
    def synthetic(self) -> int:
        """CLEARs of restarts."""
    @property
    def clearing(self) -> bool:
        """CLEARs of a restart are still to come."""
    @property
    def first_ts(self) -> int: ...
    @property
    def last_ts(self) -> int: ...

def udp_datagrams(data: Buffer, max: int = ...) -> list[Any]:
    """[datagrams, counters] of one capture: (receive time, destination, port, payload, cut) each; for tests."""

class Engine:
    """Books of many instruments, sinks that record them, and an optional scoring stage.

    The rules are those of `microrisk.book.reference`, its naive twin. Orders are keyed by (instrument, order id).
    Instrument numbers are below 2**20. Sinks and stages are switched on before the first event (RuntimeError).
    Each take_* hands over what was recorded since the last one.

    Parameters
    ----------
    always_open : a venue that never closes: every instrument is ALWAYS in continuous trading
    reserve_orders, reserve_instruments : room taken in advance
    """

    def __init__(
        self, *, always_open: bool = False, reserve_orders: int = 65536, reserve_instruments: int = 64
    ) -> None: ...
    def run_events(self, events: Records) -> None:
        """Apply EVENT records in order: L3 when order_id is not 0, L2 for MODIFY with order_id 0."""
    def run_itch(self, decoder: ItchDecoder, data: Buffer, offset: int, max_messages: int) -> int:
        """Decode and apply one message at a time; returns the new offset (as ItchDecoder.decode).

        Counts the decoder's malformed, unknown_type and trailing into `integrity` itself.
        """
    def finish(self) -> None:
        """End of input: records what a last snapshot left unrecorded."""
    def record_bbo(self) -> None:
        """A BBO row on LAST (outside a snapshot) when best price or size differ from the instrument's last row."""
    def take_bbo(self) -> Records: ...
    def record_views(self, every_ns: int = 0) -> None:
        """A VIEW per completed event and tick, or at most one per `every_ns` and instrument."""
    def take_views(self) -> Records: ...
    def record_depth(self, depth: int) -> None:
        """An image of `depth` levels a side whenever one of them changed (on LAST, outside a snapshot)."""
    def record_samples(self, depth: int, every_ns: int) -> None:
        """Images as of the multiples of `every_ns` of the core's clock, of instruments whose first levels changed.

        The book counts as it was after the last complete event at or before that time; one more sample at `finish`.
        Takes the place of `record_depth`; the rows go to Table("samples").
        """
    def record_prints(self) -> None:
        """Every execution and trade that counts as volume, for Table("trades")."""
    def record_deeds(self) -> None:
        """Every event but NONE and STATE, with what the book knew about its order before it, for Table("events")."""
    def take_depth(self) -> tuple[Records, NDArray[np.int64]]:
        """BBO rows (n) and levels (n, bid/ask, depth, px/qty); NULL_PX and 0 beyond the last level."""
    def watch(
        self,
        kernel: int,
        state: bytes,
        table: NDArray[np.int8],
        heads: Heads | None = None,
        alert: int = 0,
        alert_params: bytes = b"",
        alert_state: bytes = b"",
        rows: int = 1,
        select: bool = False,
    ) -> None:
        """Score every completed event and tick of every instrument, or of those chosen.

        Parameters
        ----------
        kernel : address of int32 step(const View*, void* state, const int8* table, int8 codes[32]); not 0 = codes
        state : template of the kernel's state, copied for each instrument, 8-byte aligned
        table : int8 (32, 4096), expanded lookup table; kept alive
        heads : None = codes only, heads 0
        alert : address of void step(const int32* heads, const void* params, void* state, int32* level,
            uint8 alert_fresh[2]); 0 = level and alert 0
        rows : ROW records kept: 0 none, 1 all, 2 those in which a head went into alarm
        select : an instrument has no view, features and heads until `watch_instrument` chooses it
        """
    def set_table(
        self,
        instrument: int,
        state: bytes,
        table: NDArray[np.int8],
        alert_params: bytes = b"",
        keep_state: bool = False,
    ) -> None:
        """An instrument's own state, table and (when not empty) alert parameters; after `watch`.

        keep_state : the state that `load` brought goes on
        """
    def watch_instrument(self, instrument: int, on: bool) -> None:
        """Begin (with a fresh state) or end the scoring of one instrument; RuntimeError unless the stage selects."""
    def last_row(self, instrument: int) -> Any:
        """The newest ROW (np.void) of a watched instrument, None before it; kept whatever `rows` says."""
    def event_counts(self) -> NDArray[np.uint64]:
        """Completed events of each of `instruments()`, without those that run_itch took by its short way."""
    def record_trades(self) -> None:
        """Keep a TRADE for each completed event of a watched instrument in which something was traded.

        And a CROSSING for each book, watched or not, that becomes crossed in continuous trading.
        """
    def take_trades(self) -> Records: ...
    def take_crossings(self) -> Records: ...
    def events_of(self, instrument: int) -> int:
        """The same of one instrument, 0 when it is not known."""
    @property
    def kept(self) -> int:
        """Rows, trades and crossings that wait to be taken."""
    def run_clock(self, ts_ns: int) -> None:
        """The time is ts_ns: staleness ticks up to and including it, as the next message would have caused."""
    def doubt(self, instrument: int | None = None) -> None:
        """Mark a book, or every known one, as not to be trusted."""
    def save(self) -> bytes:
        """Everything that decides the future: books, marks, counts, views, kernel and alert states, the clock.

        What sinks have recorded is not part of it.
        """
    def load(self, data: Buffer) -> None:
        """Go on from `save` of the same build, after `watch` with the same stage, before the first event.

        Instruments with a table of their own need `set_table(..., keep_state=True)` after it.

        Raises JournalError for damaged bytes, RuntimeError when the engine has had an event.
        """
    def state_of(self, instrument: int) -> bytes:
        """Copy of the kernel's state; KeyError before the instrument's first event."""
    def ticks(self, on: bool) -> None:
        """Staleness ticks: a VIEW with tick=1 at each multiple of 250 ms of the core's clock.

        At most 40 after an instrument's last completed event, up to and including the time of the next message,
        before it is applied; instruments in rising order. ts_event, ts_recv and seq stay those of its last event.
        """
    def take_rows(self) -> Records: ...
    def look_ahead(self, on: bool) -> None:
        """Whether run_itch looks at messages ahead (it does unless told otherwise); to measure what that is worth."""
    def latency(self, on: bool) -> None:
        """Measure each message from before its decoding to after its alert."""
    def take_latency(self) -> NDArray[np.uint64]:
        """Counts by bucket of `latency_edges`, and begin anew."""
    def orders(self, instrument: int) -> Records:
        """ORDER: bids best first, then asks best first, queue order inside a level; an L2 level is one of id 0."""
    def levels(self, instrument: int, depth: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bids and asks as (n, 2) of px, qty, best first; depth 0 = all."""
    def queue_position(self, instrument: int, order_id: int) -> tuple[int, int]:
        """Orders ahead and quantity ahead; KeyError when the order is not in the book. Walks the queue."""
    def instruments(self) -> NDArray[np.uint32]:
        """Every instrument that had a book event, in rising order."""
    def integrity(self, instrument: int | None = None) -> dict[str, int]:
        """Counts by Integrity name: totals, or of one instrument."""
    def findings(self) -> Records:
        """The first 10,000 findings (FINDING), in order."""
    def count(self, kind: int, n: int = 1, instrument: int | None = None) -> None:
        """Findings of a decoder written in Python. Hard kinds and unknown_order mark the instrument suspect.

        instrument None = of no instrument; a gap then marks every known instrument.
        """
    @property
    def n_events(self) -> int:
        """Book-changing events applied."""
    @property
    def live_orders(self) -> int: ...
    @property
    def now(self) -> int:
        """The core's clock, ns; NULL_TS before the first event."""
    def memory(self) -> dict[str, int]:
        """Bytes held for orders, levels, ladders, index and instruments; not what sinks recorded."""
    @property
    def allocations(self) -> int:
        """Growths of the engine's memory after construction, new instruments included."""
    def suspect(self, instrument: int) -> bool:
        """Whether the instrument's book is marked as not to be trusted."""
    def reset_book(self, instrument: int) -> None:
        """Empty the book and take the mark off."""

class Journal:
    """Blocks of the input journal (`spec/journal.py`), written into a file descriptor that stays the caller's.

    Parameters
    ----------
    number : of the next block
    crc : checksum of the block before, 0 for the first
    """

    def __init__(self, fd: int, *, number: int = 0, crc: int = 0) -> None: ...
    def append(self, feed: int, kind: int, flags: int, recv_ns: int, seq: int, body: Buffer) -> None:
        """A record into the block in the making; ValueError when body or block would be too long."""
    def flush(self) -> int:
        """Write the block; its bytes, 0 when it is empty.

        OSError when it cannot be written: the file ends with its last whole block, the records stay pending.
        """
    def switch(self, fd: int) -> None:
        """Go on in another file; RuntimeError while records are pending."""
    @property
    def number(self) -> int: ...
    @property
    def crc(self) -> int: ...
    @property
    def written_bytes(self) -> int: ...
    @property
    def pending_records(self) -> int: ...

class LiveFeed:
    """A MoldUDP64 feed of ITCH messages: arbitration of its lines, and its records to an engine.

    take, take_stream, give_up, begin_session and joined put records into the journal's block; nothing is applied before
    `Poller.poll` or `commit` has written it.

    While a poll runs in another thread, counters(), expected, ended, messages, names_version and last_packet_ns may be
    read; anything else is refused (RuntimeError).

    Parameters
    ----------
    number : EVENT feed number of its records
    midnight_ns : UTC ns of the session's midnight in New York
    session : name to expect, b"" takes the first that comes
    expected : the first number to take, 0 takes what comes first
    window : messages held behind a hole at most; then the hole is given up
    """

    def __init__(
        self,
        engine: Engine,
        *,
        number: int,
        midnight_ns: int,
        session: bytes = b"",
        expected: int = 0,
        window: int = 65536,
    ) -> None: ...
    def take(self, line: int, datagram: Buffer, recv_ns: int, journal: Journal) -> None:
        """A datagram of line 0..25, or an answer of a re-request server."""
    def take_stream(self, seq: int, blocks: Buffer, recv_ns: int, journal: Journal) -> None:
        """Messages (u16 length, big-endian, and bytes each) whose numbers are known, from seq on."""
    def holes(self) -> list[tuple[int, int, int]]:
        """First missing number, how many, receive time (ns) of the packet that showed it."""
    def give_up(self, upto: int, recv_ns: int, journal: Journal) -> int:
        """Declare what is missing below `upto` lost (GAP), hand on what waited; how many were lost."""
    def waiting_session(self) -> bytes | None:
        """Name (10 bytes) of a session whose datagrams wait to be begun or refused."""
    def begin_session(self, name: bytes, midnight_ns: int, recv_ns: int, journal: Journal, first: int = 1) -> None:
        """SESSION, then what waited for it."""
    def expect_day(self, midnight_ns: int) -> None:
        """The first session, as long as none is known, is of the day that begins at midnight_ns (UTC ns)."""
    def refuse_session(self) -> None:
        """The waiting session is none of ours."""
    def begin_join(self) -> None:
        """Hold whatever comes until `joined`."""
    def joined(self, seq: int, recv_ns: int, journal: Journal) -> None:
        """The books stand in front of number seq: what is held from there on is handed on."""
    def apply(self, kind: int, flags: int, recv_ns: int, seq: int, body: Buffer) -> int:
        """One record of this feed to the books; how many messages it held."""
    def counters(self) -> dict[str, int]:
        """packets_a, packets_b, missing_a, ..., messages, duplicates, late, recovered, reordered, malformed, ..."""
    def stages(self) -> dict[str, NDArray[np.uint64]]:
        """Counts by bucket of `paced_edges`: receive_taken, taken_journalled, journalled_scored, receive_scored; and
        missing_filled, from the sight of a hole to the coming of each piece of it.
        """
    def symbols(self) -> dict[int, str]: ...
    def save(self) -> bytes: ...
    def load(self, data: Buffer) -> None: ...
    @property
    def expected(self) -> int:
        """The next number to hand on; 0 before the first."""
    @property
    def session(self) -> bytes: ...
    @property
    def ended(self) -> bool: ...
    @property
    def urgent(self) -> bool:
        """Something is missing, a session waits, or rows tell of alarms."""
    @property
    def joining(self) -> bool: ...
    @property
    def messages(self) -> int:
        """Messages applied, those of images too."""
    @property
    def names_version(self) -> int:
        """Rises whenever an instrument gets a name."""
    @property
    def last_packet_ns(self) -> int:
        """Receive time of the newest datagram, 0 before the first."""

class Poller:
    """UDP sockets of many feeds on one thread: receive, arbitrate, write the block, apply its records.

    Receive times are the kernel's, on a steady clock: the wall clock at construction and monotonic time since.
    """

    def __init__(self, journal: Journal) -> None: ...
    def add(self, fd: int, feed: LiveFeed, line: int) -> None:
        """A non-blocking socket, which stays the caller's; OSError when it cannot be set up."""
    def remove(self, fd: int) -> None: ...
    def know(self, feed: LiveFeed) -> None:
        """A feed without a socket, whose records `commit` applies."""
    def wake(self) -> None:
        """From any thread: the poll that waits, or the next one, returns."""
    def poll(self, timeout_us: int, grace_us: int = 1000, spin: bool = False) -> int:
        """Receive, write and apply for timeout_us (rounded up to ms); messages applied.

        Returns early when woken, and when a feed becomes urgent (`LiveFeed.urgent`); while one stays so, behind
        grace_us. spin = never sleep. OSError when the journal cannot be written: nothing of the block is applied, and
        it is written first next time.
        """
    def commit(self) -> int:
        """Write the pending block and apply its records; messages applied."""
    def now_ns(self) -> int:
        """The steady clock, ns UTC; from any thread."""
    def shift_wall(self, ns: int) -> None:
        """For tests: as if the wall clock had been stepped."""
    def counters(self) -> dict[str, int]:
        """polls, wakes, datagrams, batches, kernel_drops, truncated, receive_errors, clock_steps."""

def crc32(data: Buffer, crc: int = 0) -> int:
    """CRC-32 of zlib, continued."""

class Naming:
    """Instrument numbers to places in a table's dictionary of names, and to the unit of their prices."""

    def __init__(self) -> None: ...
    def set(self, instrument: int, place: int, px_exp: int) -> None:
        """Prices are px * 10**-px_exp; IndexError for an exponent outside -9..27 or an impossible number."""

class Table:
    """What an engine records, as the pages of a Parquet file: prices in 1e-9, nulls for what is not there.

    Parameters
    ----------
    what : bbo, book, samples, trades or events; columns as `microrisk.pipeline.tables.SCHEMAS` says
    naming : of the instruments
    """

    def __init__(self, what: str, naming: Naming) -> None: ...
    def drain(self, engine: Engine) -> list[int]:
        """Take what the engine has recorded; or take nothing and say which instruments have no name yet."""
    @property
    def rows(self) -> int:
        """Rows of the row group in the making."""
    def end_pages(self) -> None:
        """Put the rest of the row group into pages."""
    def pages(self) -> list[tuple[int, int, int, bytes]]:
        """Hand over finished pages: column, encoding (parquet.thrift), values with nulls, body before compression."""
    def end_group(self, is_unsigned: list[bool]) -> list[tuple[bytes, int, int | None, int | None, int]]:
        """Of each column: PLAIN INT64 dictionary, its entries, smallest and largest value, nulls; then begin anew."""

def latency_edges() -> NDArray[np.uint64]:
    """Smallest ns of each bucket of the latency histogram; the last bucket has no upper end."""

def run_paced(
    engine: Engine,
    decoder: ItchDecoder,
    data: Buffer,
    offset: int,
    max_messages: int,
    *,
    interval_ns: float = 0.0,
    time_scale: float = 0.0,
) -> dict[str, Any]:
    """Decode and apply ITCH messages at the times at which they are due; this thread spins while it waits.

    Message i is due i * interval_ns after the start; with time_scale above 0 at the distance of its time stamp from the
    first one's, times time_scale. With both 0 all are due at once: the wall time is then the capacity of this loop.
    A message that could not be begun in time keeps its due time. Records that the engine makes are thrown away.

    Returns
    -------
    latency, service : uint64[4352], counts by bucket of `paced_edges`: from due to done, and from begun to done
    latency_sum_ns, latency_max_ns, service_sum_ns, service_max_ns
    messages, offset, wall_ns, waited_ns
    late : messages that were due before the one in front of them was done
    away_ns, away_max_ns, away_times : gaps above 1 us between two readings of the clock while waiting
    """

def spin(seconds: float) -> dict[str, Any]:
    """Read the clock and do nothing else: gaps (as `latency`), gaps_max_ns, gaps_sum_ns, away_*, wall_ns."""

def paced_edges() -> NDArray[np.uint64]:
    """Smallest ns of each bucket of the paced histograms: the buckets of HdrHistogram with 2 significant digits."""
